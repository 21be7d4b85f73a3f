#!/usr/bin/env python3
"""mosctl: its questions and tables, and `check` on machines that lack something."""

import errno
import json
import os
import shutil
import subprocess
import sys
import unittest

from standin import ToolTest, refusal

HERE = os.path.dirname(os.path.realpath(__file__))
STATUS = {"ok": True, "node": "node1", "id": 1, "version": "0.1.0", "uid": 0, "uptime_s": 75, "guests": 2, "away": 3,
          "kernel": "6.1.0", "nodes": 4}
NODES = {"ok": True, "nodes": [
    {"name": "node1", "id": 1, "address": "10.0.0.1", "up": True, "load": 0.25, "cpus": 2, "memory_mb": 2048,
     "free_mb": 1024, "guests": 0, "rtt_us": 120},
    {"name": "node2", "id": 2, "address": "10.0.0.2", "up": False, "error": "connect 10.0.0.2:7230: Connection refused"},
]}


class Questions(ToolTest):
    answers = {"status": STATUS, "nodes": NODES}

    def mosctl(self, *words, **options):
        return self.run_tool("mosctl", *words, **options)

    def test_status(self):
        self.expect(self.mosctl("status"), 0,
                    "node     node1 (number 1), Linux 6.1.0\n"
                    "mosixd   0.1.0, as uid 0, since 1m15s\n"
                    "nodes    4\n"
                    "away     3 own processes on other nodes\n"
                    "guests   2 of other nodes here\n")
        self.assertEqual(json.loads(self.mosctl("status", "--json").stdout), STATUS)

    def test_what_has_brought_processes_home(self):
        for counts, line in (
                ({}, None),
                ({"ioctl": 1}, "brought  home 1 time: ioctl\n"),
                ({"ioctl": 2, "ptrace": 5, "mmap of a device": 2},
                 "brought  home 9 times: ptrace (5), ioctl (2), mmap of a device (2)\n"),
                ({"a\x1b[2Jb": 1, "odd": "word"}, "brought  home 1 time: a?[2Jb\n"),
                ("nonsense", None)):
            self.standin.answers["status"] = dict(STATUS, brought_home=counts)
            result = self.mosctl("status")
            self.assertEqual(result.returncode, 0)
            tail = result.stdout.split("of other nodes here\n")[1]
            self.assertEqual(tail, line or "")

    def test_nodes(self):
        self.expect(self.mosctl("nodes"), 0,
                    "ID  NAME   ADDRESS   STATE  LOAD  CPUS  FREE  MEMORY  GUESTS     RTT  ERROR\n"
                    " 1  node1  10.0.0.1  up     0.25     2  1.0G    2.0G       0  0.12ms\n"
                    " 2  node2  10.0.0.2  down      -     -     -       -       -       -  "
                    "connect 10.0.0.2:7230: Connection refused\n")

    def test_where_and_why(self):
        self.standin.answers["where"] = {"ok": True, "where": "node2"}
        self.expect(self.mosctl("where", 4711), 0, "node2\n")
        self.standin.answers["why"] = {"ok": True, "where": "home", "reason": "io_uring_setup", "history": [
            {"time": 0, "from": "home", "to": "node2", "ok": True, "reason": "migrate"},
            {"time": 61.5, "from": "node2", "to": "node3", "ok": False, "reason": "node3 is full"}]}
        self.expect(self.mosctl("why", 4711), 0,
                    "4711 is at home: io_uring_setup\n"
                    "TIME                 FROM   TO     RESULT     REASON\n"
                    "1970-01-01 00:00:00  home   node2  moved      migrate\n"
                    "1970-01-01 00:01:01  node2  node3  not moved  node3 is full\n")
        self.assertEqual(self.standin.requests, [{"op": "where", "pid": 4711}, {"op": "why", "pid": 4711}])

    def test_failures(self):
        self.standin.answers["where"] = refusal(errno.ESRCH, "there is no process 4711")
        self.expect(self.mosctl("where", 4711), 4, "", "there is no process 4711")
        self.standin.answers["why"] = refusal(errno.EPERM, "process 1 belongs to another user")
        self.expect(self.mosctl("why", 1), 5, "", "another user")
        for words in ((), ("nonsense",), ("where",), ("where", "x"), ("why", "0"), ("status", "more")):
            with self.subTest(words=words):
                self.expect(self.mosctl(*words), 2, "")
        for words in (("status",), ("nodes",), ("where", 1), ("why", 1)):
            with self.subTest(words=words):
                self.expect(self.mosctl(*words, env=self.nowhere()), 3, "", "no mosixd runs here")

    def test_key(self):
        one, other = (self.mosctl("key").stdout for _ in range(2))
        self.assertRegex(one, r"^[0-9a-f]{64}\n$")
        self.assertNotEqual(one, other)


class Check(ToolTest):
    answers = {"status": STATUS, "nodes": NODES}

    def findings(self, *words, env=None, prefix=(), **options):
        result = self.run_tool(*prefix, "mosctl", "check", "--json", *words, env=env, **options)
        self.assertIn(result.returncode, (0, 1), result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["complete"], result.returncode == 0)
        return {finding["feature"]: finding for finding in report["findings"]}

    def make_key(self, mode=0o600):
        path = os.path.join(self.scratch, "cluster.key")
        with open(path, "w", encoding="ascii") as file:
            file.write(self.run_tool("mosctl", "key").stdout)
        os.chmod(path, mode)

    def test_every_feature_is_there(self):
        """Issue 2's list: each has a line, and a lack has its loss and its cure."""
        found = self.findings()
        for wanted in ("ptrace of an adopted process", "ptrace of any own process", "ptrace: rseq configuration",
                       "process_vm_readv, process_vm_writev", "pidfd_getfd", "PR_SET_MM_MAP", "ARCH_MAP_VDSO_64",
                       "user namespace", "pid namespace", "mount namespace with an empty root", "network namespace",
                       "IPC namespace", "UTS namespace", "time namespace", "chosen pids (ns_last_pid)",
                       "seccomp user notification", "seccomp: WAIT_KILLABLE_RECV", "seccomp: SYNC_WAKE_UP",
                       "seccomp: ADDFD", "userfaultfd", "PAGEMAP_SCAN with asynchronous protection",
                       "soft-dirty marks", "io_uring", "io_uring: DEFER_TASKRUN", "io_uring: socket in the ring",
                       "io_uring: no mapping, no descriptor", "locked memory for rings", "mosixd", "settings",
                       "cluster key", "node node1", "node node2"):
            self.assertIn(wanted, found)
        for finding in found.values():
            if not finding["ok"]:
                self.assertTrue(finding["lost"] and finding["cure"], finding)
            if os.geteuid() == 0 and "node" not in finding["feature"].split()[0] and finding["feature"] not in (
                    "mosixd", "settings", "cluster key"):
                self.assertIsNotNone(finding["root"], finding)
                self.assertIsNotNone(finding["user"], finding)

    def test_unreachable_node_names_the_firewall(self):
        node = self.findings()["node node2"]
        self.assertFalse(node["ok"])
        self.assertIn("firewall", node["cure"])
        self.assertIn("7230", node["cure"])
        self.assertIn("Connection refused", (node["root"] or node["user"])["detail"])

    def test_key(self):
        self.assertIn("mosctl key", self.findings()["cluster key"]["cure"])
        self.make_key(0o644)
        self.assertEqual(self.findings()["cluster key"]["cure"], f"chmod 600 {self.scratch}/cluster.key")
        self.make_key()
        self.assertTrue(self.findings()["cluster key"]["ok"])

    def test_key_of_the_settings(self):
        """key_file in mosix.toml, or in the settings of the mosixd that runs, wherever it has them from."""
        elsewhere = os.path.join(self.scratch, "elsewhere.key")
        with open(os.path.join(self.scratch, "mosix.toml"), "w", encoding="ascii") as file:
            file.write(f'key_file = "{elsewhere}"\n')
        self.make_key()
        for environment in (None, self.nowhere()):
            finding = self.findings(env=environment)["cluster key"]
            self.assertFalse(finding["ok"])
            self.assertIn(elsewhere, finding["cure"])
        os.rename(os.path.join(self.scratch, "cluster.key"), elsewhere)
        for environment in (None, self.nowhere()):
            self.assertTrue(self.findings(env=environment)["cluster key"]["ok"])
        self.standin.answers["status"] = dict(STATUS, key_file="/of/another/config.key")
        self.assertIn("/of/another/config.key", self.findings()["cluster key"]["cure"])

    def test_wrong_settings(self):
        path = os.path.join(self.scratch, "mosix.toml")
        with open(path, "w", encoding="ascii") as file:
            file.write('node_name = "x"\nmax_guest = 4\n')
        finding = self.findings(env=self.nowhere())["settings"]
        self.assertFalse(finding["ok"])
        detail = (finding["root"] or finding["user"])["detail"]
        self.assertIn(f'{path}:2: unknown setting "max_guest"', detail)
        self.assertIn("--check-config", finding["cure"])

    def test_cures_of_nodes(self):
        """A firewall, a mosixd that does not run, another key and another version want different things."""
        for code, words in ((errno.ETIMEDOUT, ("firewall", "9999")), (errno.EHOSTUNREACH, ("firewall", "9999")),
                            (errno.ECONNREFUSED, ("start mosixd", "9999")), (errno.EACCES, ("keys differ",)),
                            (errno.EPROTO, ("version",))):
            with self.subTest(code=code):
                node = dict(NODES["nodes"][1], code=code)
                self.standin.answers.update(status=dict(STATUS, port=9999), nodes={"ok": True, "nodes": [node]})
                cure = self.findings()["node node2"]["cure"]
                for word in words:
                    self.assertIn(word, cure)

    def without(self, *words):
        if os.geteuid() != 0:
            self.skipTest("needs root, for a mount namespace")
        return self.findings("--kernel", prefix=(sys.executable, os.path.join(HERE, "lacking.py"), *words, "--"))

    def test_yama(self):
        for scope, cure in (("1", "sysctl kernel.yama.ptrace_scope=0"), ("2", "sysctl kernel.yama.ptrace_scope=1"),
                            ("3", "reboot")):
            with self.subTest(scope=scope):
                found = self.without("yama/ptrace_scope=" + scope, "-101")  # ptrace
                for name in ("ptrace of an adopted process", "ptrace of any own process"):
                    self.assertFalse(found[name]["ok"])
                    self.assertIn(cure, found[name]["cure"])
                    self.assertIn("kernel.yama.ptrace_scope is " + scope, found[name]["cure"])

    def test_apparmor(self):
        found = self.without("apparmor_restrict_unprivileged_userns=1", "-272")  # unshare
        for name in ("user namespace", "pid namespace", "mount namespace with an empty root"):
            self.assertFalse(found[name]["ok"])
            self.assertIn("kernel.apparmor_restrict_unprivileged_userns=0", found[name]["cure"])
            self.assertIn("mosix-supervisor", found[name]["cure"])
        found = self.without("unprivileged_userns_clone=0", "-272")
        self.assertIn("kernel.unprivileged_userns_clone=1", found["user namespace"]["cure"])

    def test_io_uring_switched_off(self):
        for value in ("1", "2"):
            found = self.without("io_uring_disabled=" + value, "-425")
            for name in ("io_uring", "io_uring: DEFER_TASKRUN", "io_uring: no mapping, no descriptor"):
                self.assertFalse(found[name]["ok"])
                self.assertIn("sysctl kernel.io_uring_disabled=0", found[name]["cure"])
                self.assertFalse(found[name]["essential"])
        self.assertIn("seccomp profile", self.without("-425")["io_uring"]["cure"])

    def test_no_daemon(self):
        self.make_key()
        found = self.findings(env=self.nowhere())
        self.assertFalse(found["mosixd"]["ok"])
        self.assertNotIn("node node1", found)
        self.assertNotIn("mosixd", self.findings("--kernel", env=self.nowhere()))

    def test_lack_of_user_namespaces(self):
        if subprocess.run(["unshare", "-Ur", "true"], check=False).returncode != 0:
            self.skipTest("no user namespaces on this machine")
        found = self.findings("--kernel", prefix=(
            "unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"', "sh"))
        for name in ("user namespace", "pid namespace", "network namespace"):
            self.assertFalse(found[name]["ok"], name)
            self.assertIn("user.max_user_namespaces", found[name]["cure"])
        self.assertTrue(found["seccomp user notification"]["ok"])

    def test_low_memlock(self):
        found = self.findings("--kernel", prefix=("prlimit", "--memlock=65536:65536"))
        finding = found["locked memory for rings"]
        self.assertEqual(finding["user"], {"ok": False, "detail": "only 8 rings of all processes of a user (64 KiB)"})
        self.assertIn("LimitMEMLOCK", finding["cure"])

    @unittest.skipUnless(shutil.which("setpriv") and os.geteuid() == 0, "needs setpriv and root")
    def test_as_user_only(self):
        os.chmod(self.standin.run_dir, 0o755)
        os.chmod(self.scratch, 0o755)
        found = self.findings("--kernel", prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
        for finding in found.values():
            self.assertIsNone(finding["root"], finding)
            self.assertIsNotNone(finding["user"], finding)

    def test_probes_leave_nothing_behind(self):
        before = set(os.listdir("/proc"))
        self.findings("--kernel")
        ours = [pid for pid in set(os.listdir("/proc")) - before if pid.isdigit() and comm(pid) == "mosctl"]
        self.assertEqual(ours, [])

    def test_text(self):
        self.make_key()
        text = self.run_tool("mosctl", "check").stdout
        self.assertIn("AS ROOT  AS USER", text)
        self.assertIn("node node2\n", text)
        self.assertRegex(text, r"(Everything essential is there|Something essential is lacking)\.\n$")


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    unittest.main()
