"""A stand-in for mosixd's sockets, for tests of the tools alone: what a tool sends is recorded, what it gets
back is scripted. Everything lies in a temporary run directory and is gone afterwards."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

TIMEOUT = 30 * int(os.environ.get("MOSIX_TEST_SLOWNESS", "1"))


class Standin:
    """Answers each request by `answers[op]`: a dict (sent as is), a function of (request, connection) that
    returns one, or bytes that are sent raw before the connection is closed. None: no answer, closed."""

    def __init__(self, answers):
        self.answers = answers
        self.requests = []
        self.datagrams = []
        self.changed = threading.Condition()
        self.run_dir = tempfile.mkdtemp(prefix="mosix-tools-")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(os.path.join(self.run_dir, "mosixd.sock"))
        self.listener.listen(64)
        self.adopt = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.adopt.bind(os.path.join(self.run_dir, "adopt.sock"))
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._receive, daemon=True).start()

    def close(self):
        for end in (self.listener, self.adopt):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _receive(self):
        while True:
            try:
                text = self.adopt.recv(4096)
            except OSError:
                return
            if not text:
                return
            with self.changed:
                self.datagrams.append(json.loads(text))
                self.changed.notify_all()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    request = json.loads(line)
                    with self.changed:
                        self.requests.append(request)
                        self.changed.notify_all()
                    answer = self.answers.get(request.get("op"))
                    if callable(answer):
                        answer = answer(request, connection)
                    if isinstance(answer, dict):
                        connection.sendall(json.dumps(answer).encode() + b"\n")
                        continue
                    if isinstance(answer, bytes):
                        connection.sendall(answer)
                    return
            except OSError:
                return

    def wait_for(self, condition):
        """Waits until condition(self) holds; fails the test otherwise."""
        with self.changed:
            if not self.changed.wait_for(lambda: condition(self), TIMEOUT):
                raise AssertionError(f"never came: {self.requests} {self.datagrams}")

    def asked(self, op):
        return [request for request in self.requests if request.get("op") == op]


class ToolTest(unittest.TestCase):
    """A test with a stand-in, and tools run against it."""

    answers = {}

    def setUp(self):
        self.standin = Standin(dict(self.answers))
        self.addCleanup(self.standin.close)
        self.scratch = tempfile.mkdtemp(prefix="mosix-tools-")
        self.addCleanup(shutil.rmtree, self.scratch, True)

    def environment(self, **more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MOSIX_") and k != "LD_PRELOAD"}
        environment.update(MOSIX_LIBEXEC=os.environ.get("MOSIX_LIBEXEC", ""), MOSIX_RUN_DIR=self.standin.run_dir,
                           MOSIX_ETC_DIR=self.scratch, TZ="UTC", LC_ALL="C.UTF-8")
        # Tools of a build with sanitizers run under LD_PRELOAD here, which comes before their runtime.
        environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        environment.update(more)
        return environment

    def run_tool(self, *words, env=None, **options):
        return subprocess.run([str(word) for word in words], env=env or self.environment(), text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=TIMEOUT, **options)

    def nowhere(self, **more):
        """An environment where no mosixd is."""
        return self.environment(MOSIX_RUN_DIR=os.path.join(self.scratch, "nobody"), **more)

    def expect(self, result, code, out=None, err=None):
        """Exit code, and exact output where given; `err` as a substring."""
        self.assertEqual(result.returncode, code, f"\nstdout: {result.stdout}\nstderr: {result.stderr}")
        if out is not None:
            self.assertEqual(result.stdout, out)
        if err is not None:
            self.assertIn(err, result.stderr)


def end_session(process):
    """Ends a process started in a session of its own, with all that it left there."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(TIMEOUT)


def refusal(code, text):
    return {"ok": False, "code": code, "error": text}
