#!/usr/bin/env python3
"""mostrace: lines, filters, summary, following, and commands, on scripted events."""

import errno
import json
import os
import signal
import subprocess
import threading
import unittest

from standin import TIMEOUT, ToolTest, end_session, refusal


# Above every pid_max: these processes are nowhere, so that a trace ends when nothing more comes.
def event(pid, number, text, result="0", value=0, **more):
    line = {"event": "trace", "pid": pid, "tid": pid, "number": number, "args": [0] * 6, "result": value,
            "answered_by": "home", "started_ns": 3661_000_123_456, "round_trip_ns": 45_000, "home_ns": 33_000,
            "text": text, "result_text": result, "stack": []}
    line.update(more)
    return line


OPEN = event(4194711, 257, 'openat(AT_FDCWD, "/etc/motd", O_RDONLY)', "3", 3)
READ = event(4194711, 0, 'read(3, "hello\\n", 4096)', "6", 6, answered_by="cache", round_trip_ns=950, home_ns=0)
MISS = event(4194711, 262, 'newfstatat(AT_FDCWD, "/nope", 0x7ffe, 0)', "-1 ENOENT (No such file or directory)", -2,
             round_trip_ns=1_500_000)
SOCKET = event(4194711, 41, "socket(AF_INET, SOCK_STREAM, 0)", "4", 4, tid=4194712)
FORK = event(4194711, 57, "fork()", "4194800", 4194800, answered_by="split")
CHILD = event(4194800, 39, "getpid()", "4194800", 4194800, answered_by="here", round_trip_ns=12_345)
STRANGER = event(9, 39, "getpid()", "9", 9)
GONE = {"event": "gone", "pid": 4194711}

ALL = [OPEN, READ, MISS, SOCKET, FORK, CHILD, STRANGER]
LINES = {
    "open": '[4194711] openat(AT_FDCWD, "/etc/motd", O_RDONLY) = 3 <home 45us>',
    "read": '[4194711] read(3, "hello\\n", 4096) = 6 <cache 950ns>',
    "miss": '[4194711] newfstatat(AT_FDCWD, "/nope", 0x7ffe, 0) = -1 ENOENT (No such file or directory) <home 1.5ms>',
    "socket": "[4194711/4194712] socket(AF_INET, SOCK_STREAM, 0) = 4 <home 45us>",
    "fork": "[4194711] fork() = 4194800 <split 45us>",
    "child": "[4194800] getpid() = 4194800 <here 12us>",
}


def stream(events, end=GONE):
    """Answers a trace request with its reply and these events; the connection stays until the tool leaves."""
    def answer(request, connection):
        lines = [{"ok": True}] + list(events) + ([end] if end else [])
        connection.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        return {"event": "nothing"}
    return answer


class MostraceTest(ToolTest):
    def mostrace(self, *words, **options):
        return self.run_tool("mostrace", *words, **options)

    def trace(self, *words, events=None, end=GONE):
        self.standin.answers["trace"] = stream(ALL if events is None else events, end)
        return self.mostrace(*words, "-p", 4194711)

    def expect_lines(self, result, *names):
        self.expect(result, 0, "")
        self.assertEqual(result.stderr.splitlines(), [LINES[name] for name in names])


class Attached(MostraceTest):
    def test_lines(self):
        self.expect_lines(self.trace(), "open", "read", "miss", "socket", "fork")
        self.assertEqual(self.standin.requests,
                         [{"op": "trace", "pid": 4194711, "on": True, "follow": False, "stacks": False}])

    def test_follow(self):
        """The child is known from its parent's fork; other processes of the family are not shown."""
        end = {"event": "gone", "pid": 4194800}
        result = self.trace("-f", events=ALL + [GONE], end=end)
        self.expect_lines(result, "open", "read", "miss", "socket", "fork", "child")
        self.assertTrue(self.standin.requests[0]["follow"])

    def test_filters(self):
        for expression, names in (
                ("trace=openat", ("open",)), ("openat,read", ("open", "read")), ("trace=file", ("open", "miss")),
                ("trace=%file", ("open", "miss")), ("trace=desc", ("open", "read", "miss")),
                ("trace=network", ("socket",)), ("trace=process", ("fork",)), ("trace=signal", ()), ("trace=memory", ()),
                ("trace=!file", ("read", "socket", "fork")), ("!%desc", ("socket", "fork")), ("t=file,network", ("open", "miss", "socket")),
                ("trace=all", ("open", "read", "miss", "socket", "fork")), ("trace=none", ()), ("trace=!all", ()),
                ("answered=cache", ("read",)), ("answered=!home", ("read", "fork")), ("answered=cache,split", ("read", "fork")),
                ("status=failed", ("miss",)), ("status=!failed", ("open", "read", "socket", "fork"))):
            with self.subTest(expression=expression):
                self.expect_lines(self.trace("-e", expression), *names)
        self.expect_lines(self.trace("-e", "file", "-e", "status=successful"), "open")

    def test_bad_filters(self):
        for expression in ("nosuchcall", "trace=%nosuchclass", "trace=", "answered=nowhere", "status=maybe", "fault=read", "!"):
            with self.subTest(expression=expression):
                self.expect(self.mostrace("-e", expression, "-p", 1), 2, "", "-e: ")

    def test_times_and_parts(self):
        for option, head in (("-t", "01:01:01 "), ("-tt", "01:01:01.000123 "), ("-ttt", "3661.000123 ")):
            self.assertEqual(self.trace(option, events=[OPEN]).stderr, head + LINES["open"] + "\n")
        self.assertEqual(self.trace("-T", events=[OPEN, READ]).stderr,
                         LINES["open"].replace("45us>", "45us = 12us here + 33us home and back>") + "\n" + LINES["read"] + "\n")

    def test_stacks(self):
        one = dict(OPEN, stack=["libc.so.6(__open64+0x12) [0x7f00]", "cat(main+0x5)"])
        self.assertEqual(self.trace("-k", events=[one]).stderr,
                         LINES["open"] + "\n > libc.so.6(__open64+0x12) [0x7f00]\n > cat(main+0x5)\n")
        self.assertTrue(self.standin.requests[0]["stacks"])
        self.assertEqual(self.trace(events=[one]).stderr, LINES["open"] + "\n")

    def test_summary(self):
        result = self.trace("-c")
        self.expect(result, 0, "")
        lines = [line.split() for line in result.stderr.splitlines()]
        self.assertEqual(lines[0], "% time seconds usecs/call calls errors here home cache posted split to-hom syscall".split())
        self.assertEqual(lines[2], ["91.69", "0.001500", "1500", "1", "1", "100%", "newfstatat"])
        self.assertEqual(lines[-1], ["100.00", "0.001636", "327", "5", "1", "60%", "20%", "20%", "total"])

    def test_summary_json(self):
        rows = {row["syscall"]: row for row in json.loads(self.trace("-c", "--json", events=[OPEN, OPEN, MISS]).stderr)}
        self.assertEqual(rows["openat"], {"syscall": "openat", "calls": 2, "errors": 0, "total_ns": 90000,
                                          "average_ns": 45000, "answered_by": {"home": 2}})
        self.assertEqual(rows["newfstatat"]["errors"], 1)

    def test_json(self):
        lines = self.trace("--json", "-e", "read").stderr.splitlines()
        self.assertEqual([json.loads(line) for line in lines], [READ])

    def test_file(self):
        path = os.path.join(self.scratch, "trace")
        self.expect(self.trace("-o", path, events=[OPEN]), 0, "")
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), LINES["open"] + "\n")
        self.expect(self.trace("-o", "/no/such/folder/trace"), 1, "", "/no/such/folder/trace: No such file")
        self.expect(self.trace("-o", "/dev/full"), 1, "", "could not be written")

    def test_odd_events(self):
        odd = [3, [], {}, {"event": "trace"}, {"event": "trace", "pid": 4194711}, dict(OPEN, text=4, result_text=None, round_trip_ns="x"),
               dict(OPEN, text="evil\x1b[2J()"), {"event": "lost", "count": 12}]
        self.standin.answers["trace"] = stream(odd)
        result = self.mostrace("-p", 4194711)
        self.expect(result, 0, "", "mostrace: 12 calls were too many to be shown\n")
        self.assertNotIn("\x1b", result.stderr)
        self.assertIn("openat(?) = 3 <home 0ns>", result.stderr)

    def test_failures(self):
        for code, exit_code in ((errno.ESRCH, 4), (errno.EPERM, 5), (errno.EINVAL, 1)):
            self.standin.answers["trace"] = refusal(code, "this is why")
            self.expect(self.mostrace("-p", 4194711), exit_code, "", "mostrace: this is why\n")
        self.expect(self.mostrace("-p", 4194711, env=self.nowhere()), 3, "", "no mosixd runs here")
        for words in ((), ("-p",), ("-p", "x"), ("-p", "0"), ("-p", 1, "true"), ("-p", 1, "-r", "node2"), ("-z",), ("--nonsense",)):
            with self.subTest(words=words):
                self.expect(self.mostrace(*words), 2, "")

    def test_broken_stream(self):
        self.standin.answers["trace"] = lambda request, connection: b'{"ok":true}\n' + json.dumps(OPEN).encode() + b"\n"
        result = self.mostrace("-p", 4194711)
        self.expect(result, 7, "", LINES["open"])
        self.assertIn("mosixd broke off", result.stderr)

    def test_interrupt_ends_with_the_summary(self):
        self.standin.answers["trace"] = stream([OPEN], end=None)
        path = os.path.join(self.scratch, "trace")
        process = subprocess.Popen(["mostrace", "-p", str(os.getpid()), "-t", "-c", "-o", path], env=self.environment(),
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        self.standin.wait_for(lambda s: s.asked("trace"))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
        self.assertEqual((process.returncode, errors), (0, ""))
        with open(path, encoding="utf-8") as file:
            self.assertIn("total", file.read())


class Commands(MostraceTest):
    def setUp(self):
        super().setUp()
        self.events = [OPEN]
        self.traced = threading.Event()
        self.standin.answers.update(trace=self.start, run=self.watch)

    def start(self, request, connection):
        self.connection = connection
        self.pid = request["pid"]
        return {"ok": True}

    def watch(self, request, _):
        """By now the trace is asked for: what happens at the exec is seen."""
        self.assertEqual(request["pid"], self.pid)
        self.connection.sendall(b"".join(json.dumps(dict(one, pid=self.pid, tid=self.pid)).encode() + b"\n" for one in self.events))
        return {"ok": True, "node": "node2"}

    def test_command(self):
        result = self.mostrace("-r", "node2", "sh", "-c", "echo out; exit 3")
        self.expect(result, 3, "out\n")
        self.assertEqual(result.stderr, LINES["open"].replace("4194711", str(self.pid)) + "\n")
        self.assertEqual([request["op"] for request in self.standin.requests][:2], ["trace", "run"])
        self.assertEqual(self.standin.requests[1]["node"], "node2")

    def test_options_of_the_command_are_its_own(self):
        result = self.mostrace("-r", "node2", "-e", "none", "printf", "%s ", "-c", "-e", "x")
        self.expect(result, 0, "-c -e x ")
        self.assertEqual(result.stderr, "")

    def test_signal(self):
        self.expect(self.mostrace("-r", "node2", "sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM)

    def test_late_events_are_shown(self):
        """A call that is told after the command has ended."""
        done = os.path.join(self.scratch, "done")
        os.mkfifo(done)

        def late():
            with open(done, encoding="ascii"):
                pass  # opened by the command, as its last act
            self.connection.sendall(json.dumps(dict(READ, pid=self.pid, tid=self.pid)).encode() + b"\n")

        thread = threading.Thread(target=late)
        thread.start()
        result = self.mostrace("-r", "node2", "sh", "-c", f"exec true >{done}")
        thread.join(TIMEOUT)
        self.assertIn("read(3", result.stderr)

    def test_missing_command(self):
        self.expect(self.mostrace("-r", "node2", "/no/such"), 127, "", "/no/such: No such file")

    def test_no_daemon_starts_nothing(self):
        path = os.path.join(self.scratch, "ran")
        self.expect(self.mostrace("touch", path, env=self.nowhere()), 3, "", "no mosixd runs here")
        self.assertFalse(os.path.exists(path))

    def test_daemon_that_ends_leaves_the_command_alone(self):
        self.standin.answers["trace"] = lambda request, connection: b'{"ok":true}\n'
        self.standin.answers["run"] = {"ok": True}
        self.expect(self.mostrace("-r", "node2", "sh", "-c", "exit 5"), 5, "", "mosixd broke off")

    def test_command_is_stopped_with_us(self):
        process = subprocess.Popen(["mostrace", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done"],
                                   env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)
        self.addCleanup(end_session, process)
        self.assertEqual(process.stdout.readline(), "up\n")
        process.terminate()
        process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 9)


if __name__ == "__main__":
    unittest.main()
