#!/usr/bin/env python3
"""How mosixd starts, refuses to start, and ends."""
import json
import os
import signal
import socket
import subprocess
import unittest

import mosixd_harness as harness
from mosixd_harness import Cluster, guest_open, main, prove, read_message, sleeper, wait_until


def run(node, *arguments, **environment):
    env = dict(node.env, **environment)
    return subprocess.run([harness.mosixd_path(), *arguments], env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=harness.LIMIT_S)


class CommandLine(unittest.TestCase):
    def test_help_version_usage(self):
        with Cluster(1) as cluster:
            node = cluster.node(1)
            out = run(node, "--help")
            self.assertEqual(out.returncode, 0)
            for word in ("--foreground", "--config", "--check-config", "--version"):
                self.assertIn(word, out.stdout)
            out = run(node, "--version")
            self.assertEqual((out.returncode, out.stdout.split()[0]), (0, "mosixd"))
            self.assertEqual(run(node, "--no-such-option").returncode, 2)

    def test_check_config(self):
        with Cluster(2) as cluster:
            node = cluster.node(2)
            out = run(node, "--check-config")
            self.assertEqual(out.returncode, 0, out.stderr)
            self.assertIn("this node node2, number 2", out.stdout)
            self.assertFalse(os.path.exists(node.run_dir))

            def complaint(name, text, mode=0o644):
                node.write(name, text, mode)
                out = run(node, "--check-config")
                self.assertEqual((out.returncode, out.stdout), (1, ""))
                return out.stderr

            good = open(os.path.join(node.etc, "mosix.toml"))
            with good:
                settings = good.read()
            self.assertIn("mosix.toml:1: unknown setting \"ports\"", complaint("mosix.toml", "ports = 1\n"))
            node.write("mosix.toml", settings + 'map_file = "/nonexistent/map"\n')
            out = run(node, "--check-config")
            self.assertIn("no map of the cluster (/nonexistent/map); write one", out.stderr)
            node.write("mosix.toml", settings)
            self.assertIn("mosix.map:1: 2 words instead of three", complaint("mosix.map", "1 127.0.0.1\n"))
            self.assertIn("none of this machine's addresses (127.0.0.2) is in", complaint("mosix.map", "1 10.0.0.1 1\n"))
            node.write("mosix.map", "1 127.0.0.1 2\n")
            self.assertIn("is not 64 hexadecimal digits", complaint("cluster.key", "secret\n", 0o600))
            self.assertIn("can be read by others: chmod 600", complaint("cluster.key", harness.KEY + "\n", 0o644))
            os.unlink(os.path.join(node.etc, "cluster.key"))
            out = run(node, "--check-config")
            self.assertIn("make one with `mosctl key >", out.stderr)
            if os.geteuid() == 0:
                node.write("cluster.key", harness.KEY + "\n", 0o600)
                self.assertIn("guest_user \"nemo\" is not a user",
                              complaint("mosix.toml", settings + 'guest_user = "nemo"\n'))

    def test_other_settings_file(self):
        with Cluster(2) as cluster:
            node = cluster.node(1)
            path = os.path.join(cluster.dir, "other.toml")
            with open(path, "w") as f:
                f.write('listen = "127.0.0.1"\nnode_name = "kiwi"\n')
            self.assertIn("this node kiwi, number 1", run(node, "--check-config", "--config", path).stdout)
            self.assertEqual(run(node, "--check-config", "--config", path + "x").returncode, 1)


class Start(unittest.TestCase):
    def test_second_one_and_taken_port(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            out = run(one, "--foreground")
            self.assertEqual(out.returncode, 1)
            self.assertIn("another mosixd serves", out.stderr)
            self.assertTrue(one.ask(op="status")["ok"])  # the first has not suffered
            out = run(one, "--foreground", MOSIX_RUN_DIR=os.path.join(cluster.dir, "elsewhere"))
            self.assertEqual(out.returncode, 1)
            self.assertIn(f"listen on 127.0.0.1:{cluster.port}: Address already in use", out.stderr)

    def test_run_directory_of_somebody_else(self):
        with Cluster(2) as cluster:
            one = cluster.node(1)
            os.symlink("/tmp", one.run_dir)
            out = run(one, "--foreground")
            self.assertEqual(out.returncode, 1)
            self.assertIn("belongs to somebody else", out.stderr)

    def test_killed_one_leaves_nothing_in_the_way(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            one.end(signal.SIGKILL)
            self.assertTrue(os.path.exists(os.path.join(one.run_dir, "mosixd.sock")))
            one.start()
            self.assertTrue(one.ask(op="status")["ok"])

    def test_background(self):
        with Cluster(2) as cluster:
            one = cluster.node(1)
            self.assertEqual(run(one).returncode, 0)
            pid = one.ask(op="status")["pid"]  # ready when the command returned
            pidfd = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: harness.select.select([pidfd], [], [], 1)[0], "the daemon to end")
            os.close(pidfd)
            with open(os.path.join(one.run_dir, "mosixd.log")) as f:
                self.assertIn("ended", f.read())
            one.write("mosix.map", "nonsense\n")
            out = run(one)
            self.assertEqual(out.returncode, 1)
            self.assertIn("mosix.map:1", out.stderr)

    def test_features_are_handed_on(self):
        with Cluster(2) as cluster, sleeper() as cat:
            features = "[features]\npagemap_scan = false\nio_uring = false\n"
            one = cluster.node(1, settings=features, env={"MOSIX_FEATURES_OFF": "sync_wake_up"}).start()
            two = cluster.node(2, settings="[features]\nio_uring = true\n").start()
            self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
            off = one.notes()[0]["features_off"].split(",")
            self.assertEqual(sorted(off), ["io_uring", "pagemap_scan", "sync_wake_up"])
            self.assertEqual(two.notes()[0]["features_off"], "")
            cat.stdin.close()

    def test_map_is_read_again(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            one.write("mosix.map", "1 127.0.0.1 3\n")
            one.process.send_signal(signal.SIGHUP)
            one.wait_log("map read again, 3 nodes")
            self.assertEqual(one.ask(op="status")["nodes"], 3)
            for bad, part in (("1 127.0.0.1\n", "mosix.map:1:"), ("7 127.0.0.7 1\n", "has no node 1, which is this one")):
                one.write("mosix.map", bad)
                one.process.send_signal(signal.SIGHUP)
                one.wait_log(part)
            self.assertEqual(one.ask(op="status")["nodes"], 3)


class End(unittest.TestCase):
    def test_everybody_goes_home(self):
        with Cluster(3) as cluster, sleeper() as cat, sleeper() as other:
            one, two, three = (cluster.node(n).start() for n in (1, 2, 3))
            self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
            self.assertTrue(three.ask(op="migrate", pid=other.pid, to="node1")["ok"])
            wait_until(lambda: one.ask(op="status")["guests"] == 1, "the guest")
            with one.connect() as waiting:
                self.assertEqual(one.end(), 0)
                self.assertIsNone(waiting.line())
            log = one.log()
            self.assertIn("ending: 1 guests go home, 1 own processes come home", log)
            self.assertIn("guest %d from node3 has left" % other.pid, log)
            self.assertIn("process %d (prog) has moved from node2 to home" % cat.pid, log)
            self.assertTrue(log.rstrip().endswith("ended"))
            self.assertEqual([n["order"] for n in one.notes() if "order" in n], [{"op": "expel"}])
            self.assertEqual(sorted(os.listdir(one.run_dir)), ["mosixd.pid"])
            cat.stdin.close()
            other.stdin.close()

    def test_a_hung_custodian_does_not_hold_it_for_ever(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
            with open(os.path.join(one.dir, "mode"), "w") as f:
                f.write("hang")
            self.assertEqual(one.end(), 1)
            self.assertIn("not everybody was home after 10 s: 0 guests, 1 own processes away", one.log())
            cat.stdin.close()

    def test_told_twice(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
            with open(os.path.join(one.dir, "mode"), "w") as f:
                f.write("hang")
            one.process.send_signal(signal.SIGTERM)
            one.wait_log("ending:")
            self.assertEqual(one.end(), 1)
            self.assertIn("told to end once more", one.log())
            cat.stdin.close()

    def test_guests_survive_a_killed_mosixd(self):
        with Cluster(2) as cluster:
            two = cluster.node(2).start()
            with two.dial() as s:
                s.settimeout(harness.LIMIT_S)
                self.assertTrue(prove(s))
                s.sendall(guest_open())
                self.assertEqual(read_message(s)[0], harness.ACCEPT)
                wait_until(lambda: two.notes(), "the supervisor")
                supervisor = two.notes()[0]["pid"]
                two.end(signal.SIGKILL)
                self.assertTrue(harness.is_stand_in(supervisor))


main()
