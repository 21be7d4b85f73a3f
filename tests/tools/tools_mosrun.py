#!/usr/bin/env python3
"""mosrun: what it asks for, what the program then is, and each way to fail."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import unittest

from standin import TIMEOUT, ToolTest, end_session, refusal

NODES = {"ok": True, "nodes": [
    {"name": "node1", "id": 1, "address": "10.0.0.1", "up": True, "load": 1.0, "cpus": 2},
    {"name": "node2", "id": 2, "address": "10.0.0.2", "up": True, "load": 3.0, "cpus": 8},
    {"name": "node3", "id": 3, "address": "10.0.0.3", "up": True, "load": 0.5, "cpus": 4},
    {"name": "node4", "id": 4, "address": "10.0.0.4", "up": False, "load": 0, "cpus": 64},
]}
SHOW = 'echo "$$ node=$MOSIX_NODE lock=$MOSIX_LOCK preload=$LD_PRELOAD"'


class MosrunTest(ToolTest):
    answers = {"status": {"ok": True, "node": "node1"}, "nodes": NODES, "run": {"ok": True}}

    def mosrun(self, *words, **options):
        return self.run_tool("mosrun", *words, **options)

    def run_request(self):
        requests = self.standin.asked("run")
        self.assertEqual(len(requests), 1, self.standin.requests)
        return requests[0]


class Places(MosrunTest):
    def test_forms_of_a_node(self):
        for words in (("-r", "node2"), ("-rnode2",), ("-node2",)):
            with self.subTest(words=words):
                self.standin.requests.clear()
                result = self.mosrun(*words, "sh", "-c", SHOW)
                self.expect(result, 0, err="")
                request = self.run_request()
                self.assertEqual(request["node"], "node2")
                self.assertEqual((request["require"], request["hold"]), (False, True))
                self.assertEqual(result.stdout.split()[:3], [str(request["pid"]), "node=node2", "lock="])
        for word, node in (("-2", "2"), ("-10.0.0.2", "10.0.0.2"), ("-r10.0.0.2", "10.0.0.2")):
            with self.subTest(word=word):
                self.standin.requests.clear()
                self.expect(self.mosrun(word, "true"), 0, "")
                self.assertEqual(self.run_request()["node"], node)

    def test_name_comes_from_the_reply(self):
        self.standin.answers["run"] = {"ok": True, "node": "node2"}
        self.assertIn("node=node2 ", self.mosrun("-2", "sh", "-c", SHOW).stdout)

    def test_best(self):
        for words, node in ((("-b",), "node3"), (("-j", "1,2"), "node2"), (("-j1-2",), "node2"), (("-j", "node1,3-4"), "node3"),
                            (("-j", "10.0.0.2"), "node2"), (("-b", "-j", "2,1"), "node2")):
            with self.subTest(words=words):
                self.standin.requests.clear()
                self.expect(self.mosrun(*words, "true"), 0)
                self.assertEqual(self.run_request()["node"], node)

    def test_best_is_home(self):
        """Nothing to be moved: no node for the children, and home wins a tie."""
        self.standin.answers["nodes"] = {"ok": True, "nodes": [
            {"name": "node2", "id": 2, "up": True, "load": 0, "cpus": 2}, {"name": "node1", "id": 1, "up": True, "load": 0, "cpus": 2}]}
        self.standin.answers["run"] = {"ok": True, "where": "home"}
        result = self.mosrun("-b", "sh", "-c", SHOW)
        self.expect(result, 0, err="")
        self.assertIn("node= ", result.stdout)
        self.assertEqual(self.standin.asked("run"), [])

    def test_none_of_the_list_is_up(self):
        self.expect(self.mosrun("-F", "-j", "4,9", "sh", "-c", "echo here"), 0, "here\n", "none of the nodes is up")
        for words in (("--require", "-j", "4,9"), ("-j", "4,9")):
            self.expect(self.mosrun(*words, "true"), 125, "", "none of the nodes is up")

    def test_home_and_anywhere_ask_for_nothing(self):
        for words in (("-h",), ()):
            self.expect(self.mosrun(*words, "sh", "-c", SHOW, env=self.environment(MOSIX_NODE="node9")), 0)
            self.assertEqual(self.standin.requests, [])

    def test_preload(self):
        library = self.mosrun("sh", "-c", "echo $LD_PRELOAD").stdout.strip()
        self.assertTrue(library.startswith("/") and library.endswith("/libmosix.so"), library)
        other = self.mosrun("sh", "-c", "echo $LD_PRELOAD", env=self.environment(LD_PRELOAD="/lib/x86_64-linux-gnu/libm.so.6"))
        self.assertEqual(other.stdout.strip(), library + ":/lib/x86_64-linux-gnu/libm.so.6")
        kept = "/lib/x86_64-linux-gnu/libm.so.6:" + library
        self.assertEqual(self.mosrun("sh", "-c", "echo $LD_PRELOAD", env=self.environment(LD_PRELOAD=kept)).stdout.strip(), kept)

    def test_lock(self):
        """openMosix's -L, -l and -k: lock, unlock, keep what the caller has; children inherit it."""
        for words, inherited, asked, seen in (
                (("-L",), "", True, "1"), (("-L",), "1", True, "1"), (("-k",), "1", True, "1"), ((), "1", True, "1"),
                (("-k",), "", None, ""), ((), "", None, ""), (("-l",), "1", None, ""), (("-l",), "", None, "")):
            with self.subTest(words=words, inherited=inherited):
                self.standin.requests.clear()
                result = self.mosrun(*words, "-r2", "sh", "-c", SHOW, env=self.environment(MOSIX_LOCK=inherited))
                request = self.run_request()
                self.assertIn(f" lock={seen} ", result.stdout)
                self.assertEqual(request.get("locked"), asked)

    def test_options_end_at_the_command(self):
        self.expect(self.mosrun("echo", "-r", "node2"), 0, "-r node2\n")
        self.expect(self.mosrun("--", "printf", "%s\\n", "--help"), 0, "--help\n")
        self.expect(self.mosrun("-r2", "--", "echo", "-L"), 0, "-L\n")


class Programs(MosrunTest):
    def test_exit_status_is_the_programs(self):
        for code in (0, 1, 42, 125, 255):
            self.expect(self.mosrun("-r2", "sh", "-c", f"exit {code}"), code, "", "")
        self.assertEqual(self.mosrun("-r2", "sh", "-c", "kill -TERM $$").returncode, -signal.SIGTERM)

    def test_missing_and_not_runnable(self):
        self.expect(self.mosrun("-r2", "/no/such/program"), 127, "", "mosrun: /no/such/program: No such file")
        self.expect(self.mosrun("-r2", "no-such-program"), 127, "", "no-such-program: No such file")
        self.expect(self.mosrun("-r2", ""), 127, "")
        self.expect(self.mosrun("-r2", "/etc/passwd"), 126, "", "/etc/passwd: Permission denied")
        self.expect(self.mosrun("-r2", "/tmp"), 126, "", "/tmp: Permission denied")
        self.assertEqual(self.standin.requests, [])

    def test_script_without_a_first_line(self):
        path = os.path.join(self.scratch, "plain")
        with open(path, "w", encoding="ascii") as file:
            file.write('echo "$1"; exit 3\n')
        os.chmod(path, 0o755)
        self.expect(self.mosrun(path, "argument"), 3, "argument\n")

    def test_search_path(self):
        directory = os.path.join(self.scratch, "bin")
        os.mkdir(directory)
        path = os.path.join(directory, "tool")
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\necho found\n")
        search = f"/no/such:{directory}:{os.environ['PATH']}"
        self.expect(self.mosrun("tool", env=self.environment(PATH=search)), 126, "", "tool: Permission denied")
        os.chmod(path, 0o755)
        self.expect(self.mosrun("tool", env=self.environment(PATH=search)), 0, "found\n")

    def set_id_copy(self, mode):
        path = os.path.join(self.scratch, "special")
        shutil.copy("/bin/true", path)
        os.chmod(path, 0o755 | mode)
        if not os.stat(path).st_mode & mode:
            self.skipTest("no set-id files on this file system")
        return path

    def test_set_id(self):
        for mode, text in ((stat.S_ISUID, "set-user-id"), (stat.S_ISGID, "set-group-id")):
            with self.subTest(text=text):
                path = self.set_id_copy(mode)
                self.expect(self.mosrun("-r2", path), 0, "", f"({text}); it runs at home")
                self.expect(self.mosrun("--require", "-r2", path), 125, "", f"({text})")
                self.expect(self.mosrun("-h", path), 0, "", "")
                self.assertEqual(self.mosrun("-h", path).stderr, "")
        self.assertEqual(self.standin.requests, [])

    def test_nothing_of_ours_is_open(self):
        self.standin.answers["place"] = {"ok": True}
        self.assertEqual(self.mosrun("-r2", "ls", "/proc/self/fd").stdout, self.run_tool("ls", "/proc/self/fd").stdout)


class Failures(MosrunTest):
    def test_bad_command_lines(self):
        for words in ((), ("-r",), ("-r2",), ("-j",), ("-j", "1,,2", "true"), ("-j", "", "true"), ("--nonsense", "true"), ("-z", "true"),
                      ("--require", "true"), ("--require", "-h", "true"), ("--require", "-F", "-r2", "true")):
            with self.subTest(words=words):
                self.expect(self.mosrun(*words), 125, "", "mosrun: ")
        self.assertEqual(self.standin.requests, [])

    def test_no_daemon(self):
        environment = self.nowhere()
        for words in (("-r2",), ("--require", "-r2"), ("-j2",), ("--require", "-b")):
            self.expect(self.mosrun(*words, "echo", "ran", env=environment), 125, "", "no mosixd runs here")
        self.expect(self.mosrun("-b", "echo", "ran", env=environment), 0, "ran\n", "no mosixd runs here")
        result = self.mosrun("-F", "-r2", "sh", "-c", SHOW, env=environment)
        self.expect(result, 0)
        self.assertRegex(result.stderr, r"^mosrun: no mosixd runs here .*; the program runs at home\n$")
        self.assertIn("node= ", result.stdout)

    def test_unavailable_node(self):
        self.standin.answers["run"] = refusal(errno.ECONNREFUSED, "node2 does not answer")
        result = self.mosrun("-F", "-r2", "sh", "-c", "echo node=$MOSIX_NODE")
        self.expect(result, 0, "node=\n")
        self.assertEqual(result.stderr, "mosrun: node2 does not answer; the program runs at home\n")
        for words in ((), ("--require",)):
            result = self.mosrun(*words, "-r2", "echo", "ran")
            self.expect(result, 125, "")
            self.assertEqual(result.stderr, "mosrun: node2 does not answer\n")
        self.expect(self.mosrun("-b", "echo", "ran"), 0, "ran\n", "node2 does not answer; the program runs at home")
        self.assertEqual(self.mosrun("--require", "-r2", "true").returncode, 125)
        self.assertTrue(self.standin.asked("run")[-1]["require"])

    def test_unknown_node(self):
        """A name that no map has is a mistake in the command line, not a node that is down."""
        self.standin.answers["run"] = refusal(errno.ENOENT, "no node nodeX")
        self.expect(self.mosrun("-r", "nodeX", "echo", "ran"), 125, "", "mosrun: no node nodeX\n")
        self.expect(self.mosrun("-F", "-r", "nodeX", "echo", "ran"), 0, "ran\n", "no node nodeX; the program runs at home")

    def test_broken_replies(self):
        for answer in (None, b"", b"nonsense\n", b"[]\n"):
            with self.subTest(answer=answer):
                self.standin.answers["run"] = answer
                self.expect(self.mosrun("-F", "-r2", "echo", "ran"), 0, "ran\n", "; the program runs at home")
                self.expect(self.mosrun("-r2", "echo", "ran"), 125, "")


class Report(MosrunTest):
    SUM = {"ok": True, "cpu_away_us": 1_500_000, "processes": 3, "moves": 2, "where": "node2", "reason": "", "complete": True}

    def accounts(self, answer):
        def account(request, _):
            return answer if request.get("end") else {"ok": True, "pid": request["pid"]}
        self.standin.answers["account"] = account

    def test_report(self):
        self.accounts(self.SUM)
        result = self.mosrun("--report", "-r2", "sh", "-c", "exit 7")
        self.expect(result, 7, "")
        self.assertRegex(result.stderr, r"^real \d+\.\d\ds\nhome \d+\.\d\ds \(user \d+\.\d\ds, system \d+\.\d\ds\)\n"
                                        r"away 1\.50s \(2 moves, last on node2\)\n$")
        self.assertEqual(self.mosrun("--report", "sh", "-c", "kill -KILL $$").returncode, 128 + 9)

    def test_the_account_is_opened_before_the_program_runs(self):
        self.accounts(self.SUM)
        self.mosrun("--report", "-r2", "true")
        ops = [request["op"] for request in self.standin.requests]
        self.assertEqual((ops[0], ops[-1]), ("account", "account"))
        self.assertEqual(self.standin.requests[0]["pid"], self.run_request()["pid"])
        self.assertTrue(self.standin.requests[-1]["end"])

    def test_last_place(self):
        self.accounts(dict(self.SUM, moves=1, cpu_away_us=250_000, where="home", reason="it ended"))
        self.assertIn("away 0.25s (1 move, last at home (it ended))\n", self.mosrun("--report", "true").stderr)

    def test_what_has_brought_it_home(self):
        self.accounts(dict(self.SUM, brought_home={"ptrace": 2, "ioctl": 1}))
        self.assertIn("last on node2)\nbrought home 3 times: ptrace (2), ioctl\n", self.mosrun("--report", "true").stderr)

    def test_what_is_not_known(self):
        self.accounts(dict(self.SUM, complete=False))
        self.assertIn("away at least 1.50s (2 moves", self.mosrun("--report", "true").stderr)
        self.accounts(None)
        self.assertIn("away unknown (mosixd has ended", self.mosrun("--report", "true").stderr)

    def test_failures(self):
        self.expect(self.mosrun("--report", "--require", "-r2", "true", env=self.nowhere()), 125, "")
        self.expect(self.mosrun("--report", "/no/such"), 127, "")
        result = self.mosrun("--report", "true", env=self.nowhere())
        self.expect(result, 0, "", "away 0.00s (0 moves)")

    def test_signals_are_passed_on(self):
        process = subprocess.Popen(["mosrun", "--report", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done"],
                                   env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)
        self.addCleanup(end_session, process)
        self.assertEqual(process.stdout.readline(), "up\n")
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 9, errors)


if __name__ == "__main__":
    unittest.main()
