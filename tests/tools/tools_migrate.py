#!/usr/bin/env python3
"""migrate and mosps: what they ask, what they print, and every documented exit code."""

import errno
import json
import unittest

from standin import ToolTest, refusal

MOVED = {"ok": True, "pid": 4711, "from": "home", "to": "node2", "freeze_ms": 3.21, "total_ms": 12, "bytes": 52428800}


class Migrate(ToolTest):
    def migrate(self, *words, **options):
        return self.run_tool("migrate", *words, **options)

    def test_moved(self):
        self.standin.answers["migrate"] = MOVED
        self.expect(self.migrate(4711, "node2"), 0,
                    "4711 moved from home to node2: freeze 3.2 ms, total 12.0 ms, 52.4 MB\n")
        self.assertEqual(self.standin.requests, [{"op": "migrate", "pid": 4711, "to": "node2"}])

    def test_json(self):
        self.standin.answers["migrate"] = MOVED
        result = self.migrate("--json", 4711, "home")
        self.assertEqual(json.loads(result.stdout), MOVED)
        self.standin.answers["migrate"] = refusal(errno.EBUSY, "it is moving already")
        result = self.migrate(4711, "home", "--json")
        self.expect(result, 1)
        self.assertEqual(json.loads(result.stdout),
                         {"ok": False, "pid": 4711, "code": errno.EBUSY, "error": "it is moving already"})

    def test_refusals(self):
        for code, exit_code in ((errno.EBUSY, 1), (errno.ETIMEDOUT, 1), (0, 1), (errno.ESRCH, 4), (errno.EPERM, 5),
                                (errno.ENOENT, 6)):
            with self.subTest(code=code):
                self.standin.answers["migrate"] = refusal(code, "this is why")
                self.expect(self.migrate(4711, "node2"), exit_code, "", "migrate: this is why\n")

    def test_refusal_without_reason(self):
        self.standin.answers["migrate"] = {"ok": False, "code": errno.ESRCH}
        self.expect(self.migrate(4711, "node2"), 4, "", "migrate: No such process\n")

    def test_bad_command_lines(self):
        for words in ((), (4711,), ("x", "node2"), (0, "node2"), (-4, "node2"), ("4711x", "node2"),
                      ("99999999999999999999", "node2"), (1, 2, 3), ("--nonsense", 1, 2)):
            with self.subTest(words=words):
                self.expect(self.migrate(*words), 2, "")
        self.assertEqual(self.standin.requests, [])

    def test_no_daemon(self):
        self.expect(self.migrate(4711, "node2", env=self.nowhere()), 3, "", "no mosixd runs here")

    def test_socket_path_too_long(self):
        self.expect(self.migrate(4711, "node2", env=self.environment(MOSIX_RUN_DIR="/tmp/" + "x" * 120)), 3, "",
                    "File name too long")

    def test_broken_replies(self):
        for answer in (None, b"", b"\n", b"{}\n", b"[1]\n", b"not json\n", b'{"ok":"yes"}\n', b'{"ok":true', b"\xff\xfe\n",
                       b"x" * (5 << 20)):
            with self.subTest(answer=answer and answer[:20]):
                self.standin.answers["migrate"] = answer
                self.expect(self.migrate(4711, "node2"), 7, "", "migrate: ")

    def test_fields_of_another_type(self):
        self.standin.answers["migrate"] = {"ok": True, "pid": "x", "from": 3, "to": None, "freeze_ms": "fast", "bytes": []}
        self.expect(self.migrate(4711, "node2"), 0, "4711 moved from ? to node2: freeze 0.0 ms, total 0.0 ms, 0.0 MB\n")

    def test_control_characters_stay_out_of_the_terminal(self):
        self.standin.answers["migrate"] = refusal(1000, "evil \x1b[2Jnode\nsecond line")
        self.expect(self.migrate(4711, "node2"), 1, "", "migrate: evil ?[2Jnode second line\n")

    def test_version(self):
        self.assertRegex(self.migrate("--version").stdout, r"^migrate \(libmosix\) \d+\.\d+\.\d+\n$")


class Mosps(ToolTest):
    ROWS = [
        {"pid": 200, "program": "make", "home": "node1", "where": "node2", "moves": 3, "cpu_away_ms": 65000,
         "calls": 10, "calls_per_s": 1234.4, "since_s": 7300, "reason": ""},
        {"pid": 31, "program": "bash", "home": "node1", "where": "home", "moves": 0, "cpu_away_ms": 0, "calls": 0,
         "calls_per_s": 0, "since_s": 3.25, "reason": "io_uring_setup"},
        {"pid": 7, "program": "guest", "home": "node3", "where": "node1", "moves": 1, "cpu_away_ms": 10,
         "calls": 1, "calls_per_s": 2, "since_s": 1, "reason": "", "foreign": True},
    ]

    def test_table(self):
        self.standin.answers["processes"] = {"ok": True, "processes": self.ROWS}
        self.expect(self.run_tool("mosps"), 0,
                    "PID  PROGRAM  HOME   WHERE  MOVES  CPU-AWAY  CALLS/S   TIME  WHY\n"
                    " 31  bash     node1  home       0      0.0s        0   3.2s  io_uring_setup\n"
                    "200  make     node1  node2      3     1m05s     1234  2h01m\n")

    def test_all(self):
        self.standin.answers["processes"] = {"ok": True, "processes": self.ROWS}
        lines = self.run_tool("mosps", "-a").stdout.splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("guest", lines[1])

    def test_json(self):
        self.standin.answers["processes"] = {"ok": True, "processes": self.ROWS}
        self.assertEqual([row["pid"] for row in json.loads(self.run_tool("mosps", "--json").stdout)], [31, 200])

    def test_odd_rows(self):
        self.standin.answers["processes"] = {"ok": True, "processes": [3, None, {"pid": "x", "program": 4}, {}]}
        self.expect(self.run_tool("mosps"), 0)
        self.standin.answers["processes"] = {"ok": True, "processes": "none"}
        self.assertEqual(len(self.run_tool("mosps").stdout.splitlines()), 1)

    def test_no_daemon(self):
        self.expect(self.run_tool("mosps", env=self.nowhere()), 3, "", "no mosixd runs here")
        self.expect(self.run_tool("mosps", "--json", env=self.nowhere()), 3, "")
        self.expect(self.run_tool("mosps", "--nonsense"), 2, "")


if __name__ == "__main__":
    unittest.main()
