#!/usr/bin/env python3
"""mosixlab, seen from outside: statuses, signals, terminal, limits, and that nothing stays behind.

usage: mosixlab_test.py MOSIXLAB STANDIN [TEST...]

Each test has a lab root of its own (MOSIXLAB_DIR) and a token in the environment of all that it starts, by
which the processes of its labs are told from everybody else's. Needs root; exits 77 (skipped) without.
"""
import contextlib
import glob
import json
import os
import pty
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

SLOWNESS = int(os.environ.get("MOSIX_TEST_SLOWNESS", "1"))
LIMIT = 20 * SLOWNESS  # seconds for anything that should happen at once


def cgroup_folders(name):
    return glob.glob(f"/sys/fs/cgroup/mosixlab-{name}-*") + glob.glob(f"/sys/fs/cgroup/*/mosixlab-{name}-*")


def contents(path, mode="r"):
    with open(path, mode) as file:
        return file.read()


class Lab(unittest.TestCase):
    mosixlab = standin = None

    def setUp(self):
        self.token = uuid.uuid4().hex
        self.folder = tempfile.mkdtemp(prefix="mosixlab-test-")
        os.chmod(self.folder, 0o755)
        self.root = self.folder + "/labs"
        self.env = dict(os.environ, MOSIXLAB_DIR=self.root, MOSIX_LAB_MOSIXD=self.standin,
                        MOSIX_TEST_TOKEN=self.token, PS1="ready> ")
        self.started = []
        self.addCleanup(self.clean_up)  # runs when a setUp fails half-way, too

    def clean_up(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        self.lab("down", "--all")
        self.wait_until_gone(self.ours())
        shutil.rmtree(self.folder, ignore_errors=True)

    # What a test does.
    def lab(self, *words, **options):
        options = {"env": self.env, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True,
                   "timeout": 3 * LIMIT, **options}
        return subprocess.run([self.mosixlab, *words], **options)

    def start(self, *words, **options):
        options = {"env": self.env, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, "text": True, "bufsize": 1, **options}
        process = subprocess.Popen([self.mosixlab, *words], **options)
        self.started.append(process)
        return process

    def labs(self):
        return json.loads(self.lab("status", "--json").stdout)

    def output(self, *words, **options):
        done = self.lab(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    # What a test looks at.
    def ours(self):
        """Processes that carry the token: pid and pidfd, this one excluded."""
        found = {}
        for folder in glob.glob("/proc/[0-9]*"):
            pid = int(folder[6:])
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid)
                try:
                    if self.token.encode() in contents(folder + "/environ", "rb") and pid != os.getpid():
                        found[pid] = os.dup(fd)
                finally:
                    os.close(fd)
        return found

    def wait_until_gone(self, processes):
        deadline = time.monotonic() + LIMIT
        for pid, fd in processes.items():
            ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
            os.close(fd)
            self.assertTrue(ready, f"process {pid} is still there")

    def processes(self):
        found = self.ours()
        for fd in found.values():
            os.close(fd)
        return sorted(found)

    def assert_nothing_left(self):
        self.assertEqual(self.processes(), [])
        self.assertFalse(os.path.exists(self.root), "lab folder")
        self.assertNotIn(self.folder, contents("/proc/self/mountinfo"))

    # Statuses.
    def test_status_is_passed_on(self):
        self.assertEqual(self.lab("run", "--", "true").returncode, 0)
        self.assertEqual(self.lab("run", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.lab("run", "--", "sh", "-c", "kill -9 $$").returncode, 137)
        self.assertEqual(self.lab("run", "--", "sh", "-c", "kill -TERM $$").returncode, 143)
        self.assert_nothing_left()

    def test_own_failures(self):
        done = self.lab("run", "--", "no-such-program")
        self.assertEqual((done.returncode, done.stderr),
                         (127, "mosixlab: no-such-program: No such file or directory\n"))
        self.assertEqual(self.lab("run", "--", "/etc/passwd").returncode, 126)
        for words in (["run"], ["fly"], [], ["run", "--rate", "fast", "--", "true"], ["run", "-n", "0", "true"],
                      ["exec", "--rate", "1mbit", "node1", "true"], ["exec", "node1", "true"], ["down"],
                      ["run", "--no-such-option", "true"], ["run", "--cpus", "many", "true"]):
            done = self.lab(*words)
            self.assertEqual(done.returncode, 125, words)
            self.assertEqual(done.stdout, "")
            self.assertNotEqual(done.stderr, "")
        self.assert_nothing_left()

    def test_help_and_version(self):
        self.assertIn("usage: mosixlab run", self.output("--help"))
        self.assertRegex(self.output("--version"), r"^mosixlab \d+\.\d+")
        self.assertIn("usage:", self.output("run", "--help"))

    # What the command gets.
    def test_stdio_directory_environment(self):
        done = self.lab("run", "--", "sh", "-c", 'cat; pwd; echo "$SPECIAL"; echo err >&2', stdin=None,
                        input="in\n", cwd=self.folder, env=dict(self.env, SPECIAL="a b"))
        self.assertEqual(done.stdout, f"in\n{self.folder}\na b\n")
        self.assertEqual(done.stderr, "err\n")

    def test_descriptors_are_the_callers_only(self):
        reader, writer = os.pipe()
        script = "import os; print(sorted(os.listdir('/proc/self/fd'), key=int))"
        native = subprocess.run([sys.executable, "-c", script], pass_fds=[writer], capture_output=True, text=True,
                                stdin=subprocess.DEVNULL)
        lab = self.lab("run", "--", sys.executable, "-c", script, pass_fds=[writer])
        os.close(reader)
        os.close(writer)
        self.assertEqual(lab.stdout, native.stdout)

    def test_process_identity(self):
        """The command leads a group of its own with a real number, and has no signal blocked."""
        script = ("import os, signal; print(os.getpgrp() == os.getpid() > 1000, "
                  "len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))")
        self.assertEqual(self.output("run", "--", sys.executable, "-c", script), "True 0")

    def test_processes_left_in_the_background_end_with_the_lab(self):
        self.assertEqual(self.output("run", "--", "sh", "-c", "sleep 1000 & setsid sleep 1000 & echo ok"), "ok")
        self.assert_nothing_left()

    # The nodes.
    def test_away_is_elsewhere(self):
        self.output("up", "-n", "3", cwd=self.folder)
        seen = {}
        for node in ("node1", "node2", "node3"):
            script = ("hostname; for i in net mnt pid uts ipc; do readlink /proc/self/ns/$i; done;"
                      "cat /etc/hostname; stat -c %d:%i / /etc /tmp /home /dev/shm; pwd; echo $$")
            lines = self.output("exec", node, "--", "sh", "-c", script, cwd=self.folder).split("\n")
            self.assertEqual(lines[0], node)
            self.assertEqual(lines[6], node)
            self.assertTrue(1000 * int(node[4:]) < int(lines[-1]) < 1000 * int(node[4:]) + 900, lines[-1])
            seen[node] = lines
        for first, second in (("node1", "node2"), ("node2", "node3")):
            for one, other in list(zip(seen[first], seen[second]))[:11]:
                self.assertNotEqual(one, other)
        self.assertEqual(seen["node1"][-2], self.folder)
        self.assertEqual(seen["node2"][-2], "/")
        self.assertEqual(self.output("exec", "node2", "--", "sh", "-c", "ls -A /tmp /home /root | wc -w"), "3")
        self.assertNotEqual(self.output("exec", "node2", "cat", "/etc/passwd"),
                            self.output("exec", "node1", "cat", "/etc/passwd"))
        done = self.lab("exec", "--cwd", self.folder, "node2", "true")
        self.assertEqual(done.returncode, 125)
        self.assertNotEqual(self.lab("exec", "node2", "touch", "/usr/bin/new").returncode, 0)

    def test_settings(self):
        self.output("up", "-n", "2")
        keys = set()
        for number, node in (("1", "node1"), ("2", "node2")):
            map_lines = self.output("exec", node, "cat", "/etc/mosix/mosix.map").split("\n")
            self.assertEqual([line.split() for line in map_lines[1:]], [["1", "node1", "1"], ["2", "node2", "1"]])
            self.assertEqual(self.output("exec", node, "stat", "-c", "%a", "/etc/mosix/cluster.key"), "600")
            keys.add(self.output("exec", node, "cat", "/etc/mosix/cluster.key"))
            toml = self.output("exec", node, "cat", "/etc/mosix/mosix.toml")
            self.assertIn(f'node_name = "{node}"\nnode_id = {number}\n', toml)
            self.assertIn("\nallow_root_guests = true\n", toml + "\n")
            hosts = self.output("exec", node, "getent", "hosts", "node2")
            self.assertEqual(hosts.split(), ["10.77.0.2", "node2"])
        self.assertEqual(len(keys), 1)
        self.assertRegex(keys.pop(), "^[0-9a-f]{64}$")
        self.assertFalse(os.path.exists("/etc/mosix/cluster.key") and
                         "mosixlab" in contents("/etc/mosix/mosix.toml"), "wrote into the machine's /etc")

    def test_nodes_talk_and_cables_can_be_cut(self):
        self.output("up")
        call = ("exec", "node1", "--", sys.executable, "-c",
                "import socket; socket.create_connection(('node2', 7230), timeout=1); print('through')")
        self.assertEqual(self.output(*call), "through")
        self.output("cut", "node2")
        self.assertIn("timed out", self.lab(*call).stderr)
        self.output("mend", "node2")
        self.assertEqual(self.output(*call), "through")

    def test_killed_node(self):
        self.output("up")
        self.output("kill", "node2")
        deadline = time.monotonic() + LIMIT
        while self.labs()[0]["nodes"][1]["mosixd"] != "gone":
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(self.lab("exec", "node2", "true").returncode, 125)
        self.output("exec", "node1", "true")

    # Users.
    def check_nested_namespaces(self, *user):
        for node in ("node1", "node2"):
            self.assertEqual(self.output("exec", *user, node, "--", "unshare", "-U", "-n", "-m", "-p", "-f",
                                         "--time", "echo", "made"), "made")
            # sh and ls: in a pipe grep might not be there yet.
            script = "mount -t proc proc /proc && mount -t tmpfs none /tmp && ls /proc >/tmp/list; grep -c '^[0-9]' /tmp/list"
            self.assertEqual(self.output("exec", *user, node, "--", "unshare", "-Urpfmn", "sh", "-c", script), "2")

    def test_nested_namespaces_as_root(self):
        self.output("up")
        self.check_nested_namespaces()

    def test_user(self):
        logs = self.folder + "/logs"
        self.output("up", "--user", "--keep-logs", logs)
        for node in ("node1", "node2"):
            self.assertEqual(self.output("exec", node, "--", "sh", "-c", "id -u; grep CapEff /proc/self/status"),
                             "65534\nCapEff:\t0000000000000000")
            self.assertEqual(self.output("exec", node, "stat", "-c", "%u", "/run/mosix/mosixd.sock"), "65534")
            self.assertEqual(self.output("exec", node, "head", "-c", "1", "/etc/mosix/cluster.key") != "", True)
            self.assertIn("uid 65534", contents(f"{logs}/{node}.log"))
            self.assertEqual(self.output("exec", "--uid", "0", node, "id", "-u"), "0")
        self.check_nested_namespaces()

    def test_made_by_an_ordinary_user(self):
        root = self.folder + "/user"
        os.mkdir(root)
        os.chown(root, 65533, 65533)
        if subprocess.run(["unshare", "-Ur", "true"], user=65533, group=65533, extra_groups=[],
                          stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("ordinary users cannot make user namespaces here")
        with open(self.mosixlab, "rb") as program:
            if b"__tsan_init" in program.read():
                self.skipTest("only a process of one thread may enter a user namespace; the sanitizer has another")
        environment = dict(self.env, MOSIXLAB_DIR=root + "/labs")
        done = subprocess.run([self.mosixlab, "run", "--", "hostname"], env=environment, user=65533, group=65533,
                              extra_groups=[], capture_output=True, text=True, cwd="/")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "node1\n", ""))
        self.assertEqual(os.listdir(root), [])
        self.assertEqual(self.processes(), [])

    # Limits.
    def test_cpus(self):
        script = "grep -m1 -o 'mosixlab-.*' /proc/self/cgroup"
        process = self.start("run", "--name", "c" + self.token[:8], "--cpus", "0.25", "--", "sh", "-c",
                             script + "; read end")
        group = process.stdout.readline().strip()
        self.assertEqual(group, f"mosixlab-c{self.token[:8]}-node1")
        folders = cgroup_folders("c" + self.token[:8])
        self.assertEqual(len(folders), 2)
        for folder in folders:
            if os.path.exists(folder + "/cpu.max"):
                self.assertEqual(contents(folder + "/cpu.max").split(), ["1250", "5000"])
            else:
                self.assertEqual(contents(folder + "/cpu.cfs_quota_us"), "1250\n")
                self.assertEqual(contents(folder + "/cpu.cfs_period_us"), "5000\n")
        process.communicate("\n", timeout=LIMIT)
        self.assertEqual(cgroup_folders("c" + self.token[:8]), [])

    def test_cpus_hold(self):
        """Half a second of work at a quarter of a processor takes about two seconds."""
        script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; times"
        done = self.lab("run", "--cpus", "0.25", "--", "bash", "-c",
                        "start=$EPOCHREALTIME; " + script + "; echo $start $EPOCHREALTIME")
        lines = done.stdout.split("\n")
        minutes, seconds = re.match(r"(\d+)m([\d.]+)s", lines[0]).groups()
        start, end = map(float, lines[2].split())
        used = int(minutes) * 60 + float(seconds)
        self.assertLess(used / (end - start), 0.32)

    def test_rate(self):
        self.output("up", "--rate", "100mbit")
        for node in ("node1", "node2"):
            self.assertRegex(self.output("exec", node, "tc", "qdisc", "show", "dev", "eth0"),
                             r"tbf .*rate 100Mbit")
        self.output("down")
        self.assert_nothing_left()

    def test_delay_works_or_says_why_not(self):
        done = self.lab("run", "--delay", "10ms", "--", "tc", "qdisc", "show", "dev", "eth0")
        if done.returncode == 0:
            self.assertRegex(done.stdout, r"netem .*delay 10ms")
        else:
            self.assertEqual(done.returncode, 125)
            self.assertIn("this kernel has no netem", done.stderr)
        self.assert_nothing_left()

    # Signals.
    def test_signals_are_passed_on(self):
        # With a limit: bash reads on, natively too, where a signal comes between its look for traps and its read.
        script = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo ready; while :; do read -t 0.2 x; done"
        process = self.start("run", "--", "bash", "-c", script)
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.stdout.readline(), "usr1\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.stdout.readline(), "term\n")
        self.assertEqual(process.wait(LIMIT), 3)
        self.assert_nothing_left()

    def test_signal_that_kills(self):
        process = self.start("run", "--", "sh", "-c", "echo ready; exec sleep 1000")
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(LIMIT), 130)
        self.assert_nothing_left()

    def test_stopped_command_without_terminal(self):
        """Nobody stops the front end for it, or a test run would hang."""
        script = "(sleep 0.2; kill -CONT $$) & kill -STOP $$; echo went on"
        self.assertEqual(self.output("run", "--", "sh", "-c", script, start_new_session=True), "went on")

    # Whatever is killed, nothing stays.
    def start_long(self, *options):
        process = self.start("run", *options, "--", "sh", "-c", "sleep 1000 & echo ready; sleep 1000")
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process, self.labs()[0]["keeper"], self.ours()

    def test_front_end_killed(self):
        name = "k" + self.token[:8]
        process, _, everybody = self.start_long("--name", name, "--cpus", "1")
        # Front end, its guard of the command, keeper, two inits, two mosixds, sh and its two sleeps.
        deadline = time.monotonic() + LIMIT
        while len(everybody) < 10 and time.monotonic() < deadline:
            everybody = self.ours()  # it says that it is ready just before its second sleep begins
        self.assertEqual(len(everybody), 10)
        self.assertEqual(len(cgroup_folders(name)), 2)
        process.kill()
        process.wait()
        self.wait_until_gone(everybody)
        self.assert_nothing_left()
        self.assertEqual(cgroup_folders(name), [])

    def test_process_group_killed(self):
        process = self.start("run", "--", "sh", "-c", "echo ready; sleep 1000", start_new_session=True)
        process.stdout.readline()
        everybody = self.ours()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.wait_until_gone(everybody)
        self.assert_nothing_left()

    def test_exec_killed(self):
        """The command does not run on, and does not keep the caller's pipes open."""
        self.output("up")
        process = self.start("exec", "node2", "--", "sh", "-c", "sleep 1000 & echo ready; sleep 1000")
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.kill()
        self.assertEqual(process.communicate(timeout=LIMIT), ("", ""))
        self.output("exec", "node2", "true")

    def test_keeper_killed(self):
        process, keeper, everybody = self.start_long()
        os.kill(keeper, signal.SIGKILL)
        _, errors = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 137)
        self.assertIn("keeper was killed", errors)
        self.wait_until_gone(everybody)
        self.assert_nothing_left()

    def test_front_end_and_keeper_killed(self):
        name = "b" + self.token[:8]
        process, keeper, everybody = self.start_long("--name", name, "--cpus", "1")
        os.kill(process.pid, signal.SIGSTOP)  # so that it cannot tidy up for the keeper
        os.kill(keeper, signal.SIGKILL)
        process.kill()
        process.wait()
        self.wait_until_gone(everybody)
        self.assertEqual(self.labs(), [])  # and sweeps
        self.assertEqual(os.listdir(self.root), [])
        self.assertEqual(cgroup_folders(name), [])

    def test_killed_at_any_moment_of_the_start(self):
        """A kill after a delay that grows in small steps meets every stage of building a lab."""
        for step in range(25):
            process = self.start("run", "-n", "3", "--", "true", stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(step * 0.002)
            process.kill()
            process.wait()
        self.wait_until_gone(self.ours())
        self.assertEqual(self.labs(), [])

    # Several labs.
    def test_two_labs_at_once(self):
        one = self.start("run", "--name", "one", "--", "sh", "-c", "echo up; read x; hostname -I")
        two = self.start("run", "--name", "two", "--", "sh", "-c", "echo up; read x; hostname -I")
        self.assertEqual(one.stdout.readline() + two.stdout.readline(), "up\nup\n")
        self.assertEqual([lab["name"] for lab in self.labs()], ["one", "two"])
        self.assertEqual(self.lab("run", "--name", "one", "true").returncode, 125)
        self.assertEqual(self.output("exec", "--name", "two", "node2", "hostname"), "node2")
        self.assertIn("which lab", self.lab("exec", "node2", "true").stderr)
        for process in (one, two):
            self.assertIn("10.77.0.1", process.communicate("\n", timeout=LIMIT)[0])
            self.assertEqual(process.returncode, 0)
        self.assert_nothing_left()

    def test_up_twice_status_down(self):
        self.assertEqual(self.output("up"), "lab lab is up: node1 to node2 (10.77.0.1 to 10.77.0.2)")
        again = self.lab("up")
        self.assertEqual(again.returncode, 125)
        self.assertIn("there already", again.stderr)
        rows = [line.split() for line in self.output("status").split("\n")]
        self.assertEqual([row[:3] + row[4:5] for row in rows],
                         [["LAB", "NODE", "ADDRESS", "MOSIXD"], ["lab", "node1", "10.77.0.1", "up"],
                          ["lab", "node2", "10.77.0.2", "up"]])
        self.output("down")
        self.assert_nothing_left()

    # A mosixd that misbehaves.
    def test_mosixd_that_fails(self):
        done = self.lab("run", "--", "true", env=dict(self.env, MOSIX_STANDIN="crash"))
        self.assertEqual(done.returncode, 125)
        self.assertIn("mosixd exited 3 before it was ready", done.stderr)
        self.assertIn("the sky is falling", done.stderr)
        self.assert_nothing_left()

    def test_mosixd_that_ignores_sigterm(self):
        done = self.lab("run", "--", "true", env=dict(self.env, MOSIX_STANDIN="deaf"))
        self.assertEqual(done.returncode, 0)
        self.assertIn("node2: mosixd did not end within", done.stderr)
        self.assert_nothing_left()

    def test_logs_are_kept(self):
        self.output("run", "--keep-logs", "logs", "--", "true", cwd=self.folder)
        self.assertEqual(sorted(os.listdir(self.folder + "/logs")), ["node1.log", "node2.log"])
        self.assertIn("stand-in: pid 2000 uid 0", contents(self.folder + "/logs/node2.log"))

    def test_start_is_fast(self):
        times = []
        for _ in range(7):
            start = time.monotonic()
            self.output("run", "--", "true")
            times.append(time.monotonic() - start)
        print(f"two nodes up and down again: median {statistics.median(times) * 1000:.0f} ms", file=sys.stderr)
        self.assertLess(statistics.median(times), SLOWNESS)


class Terminal(Lab):
    """The front end as a job of an interactive shell in a terminal of its own.

    The commands say `exec sleep`: dash vforks what it starts, and loses a key that is pressed meanwhile.
    """

    def setUp(self):
        super().setUp()
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], self.env)
        self.shell = pid
        self.addCleanup(self.end_shell)
        self.seen = ""
        self.expect("ready> ")

    def end_shell(self):
        os.close(self.terminal)
        os.kill(self.shell, signal.SIGKILL)
        os.waitpid(self.shell, 0)

    def expect(self, text):
        """Reads up to `text` and returns what came before it."""
        deadline = time.monotonic() + LIMIT
        while text not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                self.fail(f"expected {text!r}, got {self.seen!r}")
            self.seen += os.read(self.terminal, 4096).decode(errors="replace")
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, text):
        os.write(self.terminal, text.encode())

    def test_ctrl_c(self):
        self.type(f"{self.mosixlab} run -- sh -c 'echo st''arted; exec sleep 1000'; echo status=$?\n")
        self.expect("started")
        self.type("\x03")
        self.expect("status=130")
        self.expect("ready> ")

    def test_ctrl_z_and_fg(self):
        self.type(f"{self.mosixlab} run -- sh -c 'echo st''arted; read x; echo got-$x; exit 4'\n")
        self.expect("started")
        self.type("\x1a")
        self.expect("Stopped")
        self.expect("ready> ")
        self.type("jobs\n")
        self.expect("Stopped")
        self.expect("ready> ")
        self.type("fg\n")
        self.expect("read x")
        self.type("word\n")
        self.expect("got-word")
        self.expect("ready> ")
        self.type("echo status=$?\n")
        self.expect("status=4")

    def test_background_and_fg(self):
        """In the background the command may not read; in front it may."""
        self.type(f"{self.mosixlab} run -- sh -c 'read x; echo got-$x' &\n")
        self.expect("ready> ")
        self.type("while ! jobs | grep -q Stop; do :; done; echo has''stopped\n")
        self.expect("hasstopped")
        self.expect("ready> ")
        self.type("fg\n")
        self.expect("read x")
        self.type("word\n")
        self.expect("got-word")
        self.expect("ready> ")

    def test_interactive_shell_inside(self):
        self.type(f"{self.mosixlab} run -- bash --norc --noprofile -i; echo left=$?\n")
        self.expect("ready> ")
        self.type("hostname\n")
        self.expect("node1")
        self.expect("ready> ")
        self.type("sh -c 'echo in''ner; read x; echo got-$x'\n")
        self.expect("inner")
        self.type("\x1a")
        self.expect("Stopped")
        self.expect("ready> ")
        self.type("fg\n")
        self.type("word\n")
        self.expect("got-word")
        self.expect("ready> ")
        self.type("exit 9\n")
        self.expect("left=9")
        self.expect("ready> ")

    def test_pipeline_keeps_the_terminal(self):
        """What the lab is piped into may use the terminal; the command gets it when it asks."""
        script = "'echo asking >&2; read x </dev/tty; echo got-$x'"
        self.type(f"{self.mosixlab} run -- sh -c {script} | cat; echo status=${{PIPESTATUS[0]}}\n")
        self.expect("asking\r\n")
        self.type("word\n")
        self.expect("got-word")
        self.expect("status=0")
        self.expect("ready> ")

    def test_ctrl_c_in_a_pipeline(self):
        self.type(f"{self.mosixlab} run -- sh -c 'echo st''arted; exec sleep 1000' | cat\n")
        self.expect("started")
        self.type("\x03")
        self.expect("ready> ")
        self.type("echo status=${PIPESTATUS[0]}\n")
        self.expect("status=130")


# The base's tests are not the terminal's.
for inherited in [name for name in vars(Lab) if name.startswith("test_")]:
    setattr(Terminal, inherited, None)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("skipped: needs root")
        sys.exit(77)
    Lab.mosixlab, Lab.standin = map(os.path.abspath, sys.argv[1:3])
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
