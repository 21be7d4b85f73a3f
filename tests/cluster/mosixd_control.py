#!/usr/bin/env python3
"""The control socket of mosixd: every request, what it answers, and every way to ask wrongly."""
import json
import os
import signal
import socket
import subprocess
import unittest

from mosixd_harness import Cluster, main, sleeper, wait_until

ROOT = os.geteuid() == 0
NOBODY = 65534


def is_kernel_thread(pid):
    with open(f"/proc/{pid}/comm") as f:
        return f.read() == "kthreadd\n"


class Answers(unittest.TestCase):
    def test_status_nodes_and_processes(self):
        with Cluster(3) as cluster:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            status = one.ask(op="status")
            self.assertTrue(status["ok"])
            self.assertEqual((status["node"], status["id"], status["nodes"]), ("node1", 1, 3))
            self.assertEqual((status["uid"], status["pid"]), (os.geteuid(), one.process.pid))
            self.assertEqual((status["guests"], status["away"], status["ending"]), (0, 0, False))
            self.assertEqual(status["kernel"], os.uname().release)

            nodes = {row["id"]: row for row in one.ask(op="nodes")["nodes"]}
            self.assertEqual(sorted(nodes), [1, 2, 3])
            self.assertTrue(nodes[1]["up"] and nodes[2]["up"])
            self.assertEqual(nodes[2]["name"], "node2")
            self.assertGreater(nodes[2]["memory_mb"], 0)
            self.assertGreater(nodes[2]["rtt_us"], 0)
            self.assertFalse(nodes[3]["up"])
            self.assertIn("is mosixd running there?", nodes[3]["error"])
            self.assertEqual(one.ask(op="processes"), {"ok": True, "processes": []})
            two.end()
            nodes = {row["id"]: row for row in one.ask(op="nodes")["nodes"]}
            self.assertFalse(nodes[2]["up"])

    def test_wrong_requests(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            with one.connect() as control:
                for wrong, part in [(b"garbage\n", "not a JSON object"), (b"[1,2]\n", "not a JSON object"),
                                    (b"\xff\xfe{}\n", "not a JSON object"), (b"{}\n", 'no "op"'),
                                    (b'{"op":"fly"}\n', 'unknown request "fly"'), (b'{"op":7}\n', 'no "op"'),
                                    (b'{"op":"\\ud800"}\n', "not a JSON object")]:
                    control.send_raw(wrong)
                    answer = control.line()
                    self.assertFalse(answer["ok"], wrong)
                    self.assertIn(part, answer["error"])
                # The connection has survived all of them.
                self.assertTrue(control.ask(op="status")["ok"])

            for pid, code, part in [(0, 22, "not the number of a process"), (-5, 22, "not the number"),
                                    (4194304, 3, "there is no process 4194304"), ("12", 22, "not the number"),
                                    (2 ** 40, 22, "not the number"), (one.process.pid, 1, "is part of mosix")]:
                for op in ("run", "migrate", "place", "where", "why", "trace"):
                    if op == "trace" and not isinstance(pid, int) or op == "trace" and pid in (0, 2 ** 40):
                        continue
                    answer = one.ask(op=op, pid=pid, node="node2", to="node2")
                    self.assertEqual((answer["ok"], answer["code"]), (False, code), (op, pid, answer))
                    self.assertIn(part, answer["error"])

            with sleeper() as cat:
                answer = one.ask(op="migrate", pid=cat.pid, to="atlantis")
                self.assertEqual(answer["code"], 2)
                self.assertIn("no node atlantis in", answer["error"])
                self.assertIn("there are node1, node2", answer["error"])
                answer = one.ask(op="run", pid=cat.pid)
                self.assertIn("no node is named", answer["error"])
                # Nobody listens at node2: the custodian asks mosixd to dial, and the reason comes all the way.
                answer = one.ask(op="migrate", pid=cat.pid, to="node2")
                self.assertEqual(answer["code"], 111)
                self.assertIn("node2 cannot be reached", answer["error"])
                self.assertIn("is mosixd running there?", answer["error"])
                self.assertEqual(one.ask(op="where", pid=cat.pid)["where"], "home")
                cat.stdin.close()

    def test_zombie_and_kernel_thread(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            dead = subprocess.Popen(["true"])
            os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
            answer = one.ask(op="migrate", pid=dead.pid, to="node2")
            self.assertEqual(answer["code"], 3)
            self.assertIn("has ended", answer["error"])
            dead.wait()
            if os.path.exists("/proc/2/comm") and is_kernel_thread(2):
                answer = one.ask(op="migrate", pid=2, to="node2")
                self.assertEqual(answer["code"], 22 if ROOT else 1)

    def test_thread_is_not_a_process(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            child = subprocess.Popen(
                ["python3", "-c", "import threading,sys\n"
                 "def say(): print(threading.get_native_id(), flush=True); sys.stdin.read()\n"
                 "threading.Thread(target=say).start()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            with child:
                tid = int(child.stdout.readline())
                answer = one.ask(op="migrate", pid=tid, to="node2")
                self.assertEqual(answer["code"], 22)
                self.assertIn(f"is a thread of process {child.pid}", answer["error"])
                child.stdin.close()

    def test_over_long_request_and_crowd(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            with one.connect() as control:
                try:
                    control.send_raw(b"x" * 200_000)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # cut off while we were still sending
                answer = control.line()
                self.assertEqual(answer["code"], 90)
                self.assertIn("longer than 65536", answer["error"])
                self.assertIsNone(control.line())
            with one.connect() as control:  # several in one go are answered in order
                control.send_raw(b'{"op":"nodes"}\n{"op":"status"}\n{"op":"nope"}\n')
                self.assertIn("nodes", control.line())
                self.assertIn("uptime_s", control.line())
                self.assertFalse(control.line()["ok"])
            with one.connect() as control:  # a last request before the half-close is still answered
                control.send_raw(b'{"op":"status"}\n')
                control.socket.shutdown(socket.SHUT_WR)
                self.assertTrue(control.line()["ok"])
                self.assertIsNone(control.line())
            crowd = [one.connect() for _ in range(512)]
            with one.connect() as late:
                answer = late.line()
                self.assertEqual(answer["code"], 16)
            for control in crowd:
                control.socket.close()
            wait_until(lambda: (one.ask(op="status") or {}).get("ok"), "room for a tool again")


class Moves(unittest.TestCase):
    def test_there_and_home_again(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            self.assertEqual(one.ask(op="migrate", pid=cat.pid, to="home")["to"], "home")
            self.assertEqual(one.notes(), [])  # nobody was started for that

            moved = one.ask(op="migrate", pid=cat.pid, to="2")
            self.assertEqual(moved, {"ok": True, "pid": cat.pid, "from": "home", "to": "node2", "freeze_ms": 1.5,
                                     "total_ms": 2.5, "bytes": 4096})
            (row,) = one.ask(op="processes")["processes"]
            self.assertEqual((row["pid"], row["where"], row["home"], row["calls"]), (cat.pid, "node2", "node1", 34))
            wait_until(lambda: two.ask(op="status")["guests"] == 1, "the guest at node2")
            (row,) = two.ask(op="processes")["processes"]
            self.assertEqual((row["pid"], row["home"], row["where"], row["foreign"]),
                             (cat.pid, "node1", "node2", True))
            self.assertEqual(one.ask(op="status")["away"], 1)
            self.assertEqual(one.ask(op="where", pid=cat.pid)["where"], "node2")

            self.assertEqual(one.ask(op="migrate", pid=cat.pid, to="node1")["to"], "home")
            why = one.ask(op="why", pid=cat.pid)
            self.assertEqual(why["where"], "home")
            self.assertEqual([(e["from"], e["to"], e["ok"]) for e in why["history"]],
                             [("node2", "home", True), ("home", "node2", True)])
            wait_until(lambda: two.ask(op="processes")["processes"] == [], "the guest to have left")

            custodian, = [n for n in one.notes() if n.get("role") == "custodian"]
            supervisor, = [n for n in two.notes() if n.get("role") == "supervisor"]
            self.assertEqual(custodian["arguments"]["--node"], "node1")
            self.assertEqual(supervisor["arguments"]["--home"], "node1")
            self.assertEqual(supervisor["arguments"]["--node"], "node2")
            self.assertEqual(supervisor["arguments"]["--family"], custodian["arguments"]["--family"])
            self.assertEqual(custodian["descriptors"][:4], [0, 1, 2, 3])
            self.assertEqual(supervisor["descriptors"][:5], [0, 1, 2, 3, 4])
            for started in (custodian, supervisor):
                self.assertLessEqual(len(started["descriptors"]), 6)  # its own for listing, and nothing of mosixd's
                self.assertEqual(started["session"], started["pid"])
                self.assertEqual(started["pending"], [])
            if ROOT:
                self.assertEqual((custodian["uid"], supervisor["uid"]), (0, NOBODY))
                self.assertEqual(supervisor["groups"], [])
            cat.stdin.close()

    def test_family_of_children(self):
        with Cluster(2) as cluster:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            shell = subprocess.Popen(["bash", "-c", "sleep 1000 & echo $!; wait"], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True, preexec_fn=os.setpgrp)
            child = int(shell.stdout.readline())
            try:
                self.assertTrue(one.ask(op="migrate", pid=shell.pid, to="node2")["ok"])
                self.assertTrue(one.ask(op="place", pid=child, node="node2")["ok"])
                rows = one.ask(op="processes")["processes"]
                self.assertEqual({row["pid"] for row in rows}, {shell.pid, child})
                self.assertEqual(len({row["family"] for row in rows}), 1)
                self.assertEqual(len([n for n in one.notes() if n.get("role") == "custodian"]), 1)
                # A process that is no relation is a family of its own.
                with sleeper() as cat:
                    self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
                    self.assertEqual(len({r["family"] for r in one.ask(op="processes")["processes"]}), 2)
                    cat.stdin.close()
            finally:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.communicate()

    def test_run_is_watched(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            answer = one.ask(op="run", pid=cat.pid, node="127.0.0.2", require=True, hold=True, evil={"a": 1})
            self.assertTrue(answer["ok"], answer)
            self.assertEqual({k: v for k, v in answer["got"].items() if k != "id"},
                             {"op": "watch_exec", "pid": cat.pid, "node": "node2", "require": True, "hold": True})
            self.assertEqual(one.ask(op="run", pid=cat.pid, node="node1")["where"], "home")
            cat.stdin.close()

    def test_custodian_that_fails(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2).start()

            def mode(text):
                with open(os.path.join(one.dir, "mode"), "w") as f:
                    f.write(text)

            mode("fail")
            answer = one.ask(op="migrate", pid=cat.pid, to="node2")
            self.assertEqual((answer["ok"], answer["code"]), (False, 71))
            self.assertEqual(one.ask(op="where", pid=cat.pid)["where"], "home")
            mode("")
            self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
            mode("fail")
            one.ask(op="run", pid=cat.pid, node="node2")
            history = one.ask(op="why", pid=cat.pid)["history"]
            self.assertEqual((history[0]["ok"], history[0]["reason"]), (False, "the stand-in was told to fail"))

            mode("die")
            answer = one.ask(op="migrate", pid=cat.pid, to="home")
            self.assertEqual(answer["code"], 103)
            self.assertIn("was killed by signal 9", answer["error"])
            one.wait_log("was killed by signal 9 with 1 processes away")
            self.assertEqual(one.ask(op="processes")["processes"], [])
            mode("")
            self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])  # a new one is started
            cat.stdin.close()

    def test_order_that_meets_an_ending_custodian(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            with open(os.path.join(one.dir, "mode"), "w") as f:
                f.write("quit")
            answer = one.ask(op="migrate", pid=cat.pid, to="node2")
            self.assertTrue(answer["ok"], answer)
            self.assertEqual(len([n for n in one.notes() if n.get("role") == "custodian"]), 2)
            cat.stdin.close()

    def test_missing_components(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one = cluster.node(1, env={"MOSIX_CUSTODIAN": "/nonexistent/custodian"}).start()
            answer = one.ask(op="migrate", pid=cat.pid, to="node2")
            self.assertEqual(answer["code"], 2)
            self.assertIn("/nonexistent/custodian", answer["error"])
            cat.stdin.close()

    def test_tool_that_leaves_before_its_answer(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            with one.connect() as control:
                control.send(op="migrate", pid=cat.pid, to="node2")
            wait_until(lambda: one.ask(op="status")["away"] == 1, "the move to happen all the same")
            cat.stdin.close()


class Tracing(unittest.TestCase):
    def test_stream(self):
        with Cluster(2) as cluster, sleeper() as cat, sleeper() as other:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            with one.connect() as early, one.connect() as everything:
                # Before the process is managed: events come as soon as it is.
                self.assertEqual(early.ask(op="trace", pid=cat.pid, on=True, stacks=True), {"ok": True})
                self.assertEqual(everything.ask(op="trace", pid=0, on=True), {"ok": True})
                self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
                self.assertTrue(one.ask(op="migrate", pid=other.pid, to="node2")["ok"])
                orders = lambda: [n["trace"] for n in one.notes() if "trace" in n]
                wait_until(lambda: len(orders()) >= 3, "the custodians to be told", one.log)
                self.assertIn({"op": "trace", "pid": cat.pid, "on": True, "stacks": True}, orders())
                self.assertIn({"op": "trace", "pid": 0, "on": True, "stacks": False}, orders())
                with one.connect() as now:  # an event for those that wait, whoever they are
                    now.ask(op="trace", pid=cat.pid, on=True)
                    event = now.line()
                    self.assertEqual((event["event"], event["pid"], event["text"]), ("trace", cat.pid, "getpid()"))
                self.assertEqual(early.line()["pid"], cat.pid)
                self.assertIn(everything.line()["pid"], (cat.pid, other.pid))
            wait_until(lambda: {"op": "trace", "pid": 0, "on": False, "stacks": False} in orders(),
                       "tracing to be switched off when nobody looks")
            cat.stdin.close()
            other.stdin.close()


class Adoption(unittest.TestCase):
    def test_table(self):
        with Cluster(2) as cluster:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            say = ("import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n"
                   f"s.sendto(sys.argv[1].encode(), {os.path.join(one.run_dir, 'adopt.sock')!r})\n"
                   "print('said', flush=True); sys.stdin.read()")
            children = [subprocess.Popen(["python3", "-c", say, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                        for text in ('{"event":"adopt","pid":1,"locked":true}', "x" * 10000)]
            for child in children:
                child.stdout.readline()
            wait_until(lambda: one.ask(op="status")["adopted"] == 2, "both to be listed")
            rows = {row["pid"]: row for row in one.ask(op="processes")["processes"]}
            self.assertEqual(set(rows), {child.pid for child in children})  # the kernel's pid, not the one claimed
            self.assertEqual(rows[children[0].pid]["reason"], "locked to its home")
            self.assertEqual(rows[children[1].pid]["where"], "home")
            self.assertEqual(one.ask(op="why", pid=children[1].pid)["reason"], "nobody has asked it to move")
            # A process that moves is listed once.
            self.assertTrue(one.ask(op="migrate", pid=children[0].pid, to="node2")["ok"])
            self.assertEqual(len(one.ask(op="processes")["processes"]), 2)
            for child in children:
                child.communicate()
            wait_until(lambda: one.ask(op="status")["adopted"] == 0, "both to be forgotten")


@unittest.skipUnless(ROOT, "needs root to be two users")
class Users(unittest.TestCase):
    def as_nobody(self, at, **request):
        text = ("import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
                "s.sendall(sys.argv[2].encode()+b'\\n')\nprint(s.makefile().readline())")
        out = subprocess.run(["python3", "-c", text, os.path.join(at.run_dir, "mosixd.sock"), json.dumps(request)],
                             user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE, check=True)
        return json.loads(out.stdout)

    def test_each_only_his_own(self):
        with Cluster(2) as cluster, sleeper() as roots, \
                sleeper(user=NOBODY, group=NOBODY, extra_groups=[12345]) as nobodys:
            one, two = cluster.node(1).start(), cluster.node(2).start()
            for op in ("migrate", "run", "place", "where", "why", "trace"):
                answer = self.as_nobody(one, op=op, pid=roots.pid, to="node2", node="node2")
                self.assertEqual((answer["ok"], answer["code"]), (False, 1), (op, answer))
                self.assertIn("belongs to another user", answer["error"])
            self.assertTrue(one.ask(op="migrate", pid=roots.pid, to="node2")["ok"])
            self.assertTrue(self.as_nobody(one, op="migrate", pid=nobodys.pid, to="node2")["ok"])
            self.assertEqual([row["pid"] for row in self.as_nobody(one, op="processes")["processes"]], [nobodys.pid])
            self.assertEqual(len(one.ask(op="processes")["processes"]), 2)
            custodian = [n for n in one.notes() if n.get("role") == "custodian"][-1]
            self.assertEqual((custodian["uid"], custodian["gid"], custodian["groups"]), (NOBODY, NOBODY, [12345]))
            supervisor = [n for n in two.notes() if n.get("role") == "supervisor"][-1]
            self.assertEqual(supervisor["arguments"]["--uid"], str(NOBODY))
            roots.stdin.close()
            nobodys.stdin.close()

    def test_set_id_program(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            copy = os.path.join(cluster.dir, "cat")
            subprocess.run(["cp", "/bin/cat", copy], check=True)
            os.chmod(copy, 0o4755)
            child = subprocess.Popen([copy], executable=copy, stdin=subprocess.PIPE, user=NOBODY)
            with child:
                with open(f"/proc/{child.pid}/status") as f:
                    runs_set_id = "\t65534\t0\t" in f.read()
                if not runs_set_id:
                    child.stdin.close()
                    self.skipTest("the folder for temporary files is mounted nosuid")
                answer = self.as_nobody(one, op="migrate", pid=child.pid, to="node2")
                self.assertEqual(answer["code"], 1)
                self.assertIn("set-id program", answer["error"])
                child.stdin.close()

    def test_root_stays_unless_allowed(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one = cluster.node(1, settings="allow_root_guests = false\n").start()
            answer = one.ask(op="migrate", pid=cat.pid, to="node2")
            self.assertEqual(answer["code"], 1)
            self.assertIn("allow_root_guests = true", answer["error"])
            self.assertEqual(one.notes(), [])
            cat.stdin.close()

    def test_daemon_of_an_ordinary_user(self):
        with Cluster(2) as cluster, sleeper() as roots, sleeper(user=NOBODY, group=NOBODY) as nobodys:
            def become():
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)

            one = cluster.node(1, preexec=become)
            two = cluster.node(2, preexec=become)
            for node in (one, two):
                for path in (node.dir, node.etc, os.path.join(node.etc, "cluster.key")):
                    os.chown(path, NOBODY, NOBODY)
                node.start()
            self.assertEqual(one.ask(op="status")["uid"], NOBODY)
            answer = one.ask(op="migrate", pid=roots.pid, to="node2")
            self.assertEqual(answer["code"], 1)
            self.assertTrue(self.as_nobody(one, op="migrate", pid=nobodys.pid, to="node2")["ok"])
            self.assertEqual(one.notes()[0]["uid"], NOBODY)
            mode = os.stat(os.path.join(one.run_dir, "mosixd.sock")).st_mode & 0o777
            self.assertEqual(mode, 0o600)
            roots.stdin.close()
            nobodys.stdin.close()


main()
