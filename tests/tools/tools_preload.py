#!/usr/bin/env python3
"""libmosix.so: adopts quietly, and is harmless in whatever program it is loaded into."""

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import threading
import unittest

from standin import TIMEOUT, ToolTest

LIBRARY = os.path.join(os.environ.get("MOSIX_LIBEXEC", "."), "libmosix/preload/libmosix.so")
ANY_LIBC = os.path.join(os.path.dirname(LIBRARY), "$LIB/libmosix.so")
ALLOWED_SYMBOLS = {"environ", "__environ", "__register_atfork", "pthread_atfork"}


class PreloadTest(ToolTest):
    def loaded(self, *words, env=None, library=LIBRARY, **options):
        environment = env or self.environment()
        environment["LD_PRELOAD"] = library
        return self.run_tool("env", *words, env=environment, **options)

    def pids(self):
        return [datagram["pid"] for datagram in self.standin.datagrams]

    def compile(self, name, source, *words, compiler="cc"):
        path = os.path.join(self.scratch, name)
        with open(path + ".c", "w", encoding="ascii") as file:
            file.write(source)
        subprocess.run([compiler, "-O1", "-o", path, path + ".c", *words], check=True, timeout=TIMEOUT)
        return path


class Shape(unittest.TestCase):
    def test_symbols(self):
        text = subprocess.run(["nm", "-D", LIBRARY], check=True, stdout=subprocess.PIPE, text=True).stdout
        symbols = [line.split() for line in text.splitlines()]
        self.assertEqual({words[-1].split("@")[0] for words in symbols} - ALLOWED_SYMBOLS, set())
        self.assertTrue(all(words[-2] in "wv" for words in symbols), text)  # weak, all of them, and none is ours

    def test_needs_libc_alone(self):
        text = subprocess.run(["readelf", "-dW", LIBRARY], check=True, stdout=subprocess.PIPE, text=True).stdout
        self.assertEqual([line.split()[-1] for line in text.splitlines() if "(NEEDED)" in line], ["[libc.so.6]"])
        self.assertNotIn("TEXTREL", text)


class Adoption(PreloadTest):
    def test_a_program_announces_itself(self):
        result = self.loaded("sh", "-c", "echo $$")
        self.expect(result, 0, err="")
        pid = int(result.stdout)
        self.standin.wait_for(lambda s: any(d["pid"] == pid for d in s.datagrams))
        self.assertIn({"event": "adopt", "pid": pid, "forked": False, "locked": False}, self.standin.datagrams)

    def test_a_fork_without_exec_announces_itself(self):
        result = self.loaded(sys.executable, "-c", "import os\np = os.fork()\nif p:\n os.waitpid(p, 0); print(p)")
        child = int(result.stdout)
        self.standin.wait_for(lambda s: any(d["pid"] == child for d in s.datagrams))
        self.assertIn({"event": "adopt", "pid": child, "forked": True, "locked": False}, self.standin.datagrams)

    def test_lock(self):
        for lock, locked in (("1", True), ("0", False), ("11", False), ("", False)):
            pid = int(self.loaded("sh", "-c", "echo $$", env=self.environment(MOSIX_LOCK=lock)).stdout)
            wanted = {"event": "adopt", "pid": pid, "forked": False, "locked": locked}
            self.standin.wait_for(lambda s, wanted=wanted: wanted in s.datagrams)
        # only the process of that number, not its children
        earlier = set(self.pids())
        result = self.loaded("sh", "-c", 'export MOSIX_LOCK=$$; exec sh -c "echo \\$\\$; true; /bin/echo"')
        pid = int(result.stdout.split()[0])
        self.standin.wait_for(lambda s: any(d["pid"] == pid and d["locked"] for d in s.datagrams))
        self.assertFalse(any(d["locked"] for d in self.standin.datagrams if d["pid"] not in earlier | {pid}))

    def test_off(self):
        self.loaded("true", env=self.environment(MOSIX_OFF="1", MOSIX_NODE="node2"))
        pid = int(self.loaded("sh", "-c", "echo $$").stdout)  # datagrams keep their order
        self.standin.wait_for(lambda s: pid in self.pids())
        self.assertEqual(set(self.pids()), {pid})
        self.assertEqual(self.standin.requests, [])

    def test_run_directories(self):
        """Without MOSIX_RUN_DIR, as tools and daemons choose it."""
        home = self.standin.run_dir
        if os.geteuid() == 0:
            self.skipTest("root's is /run/mosix, which is not ours to write")
        os.symlink(home, os.path.join(self.scratch, "mosix"))
        environment = self.environment(XDG_RUNTIME_DIR=self.scratch)
        del environment["MOSIX_RUN_DIR"]
        self.loaded("true", env=environment)
        self.standin.wait_for(lambda s: s.datagrams)


class Placement(PreloadTest):
    def test_a_child_of_a_tree_is_placed(self):
        self.standin.answers["place"] = {"ok": True, "from": "home", "to": "node2"}
        result = self.loaded("sh", "-c", "echo $$", env=self.environment(MOSIX_NODE="node2"))
        self.expect(result, 0, err="")
        self.assertIn({"op": "place", "pid": int(result.stdout), "node": "node2"}, self.standin.requests)

    def test_it_waits_for_the_answer(self):
        """main must not run before the move is over, and the reply may come in pieces."""
        order = []
        release = threading.Event()

        def place(_, connection):
            connection.sendall(b'{"ok"')
            order.append("asked")
            release.wait(TIMEOUT)
            order.append("answered")
            return b":true}\n"

        self.standin.answers["place"] = place
        process = subprocess.Popen(["/bin/echo", "ran"], stdout=subprocess.PIPE, text=True,
                                   env=self.environment(MOSIX_NODE="node2", LD_PRELOAD=LIBRARY))
        self.addCleanup(process.kill)
        self.standin.wait_for(lambda s: s.asked("place"))
        self.assertIsNone(process.poll())
        release.set()
        self.assertEqual(process.communicate(timeout=TIMEOUT)[0], "ran\n")
        self.assertEqual(order, ["asked", "answered"])

    def test_whatever_the_answer_the_program_runs(self):
        for answer in (None, b"", b"\n", b"x" * 100000, {"ok": False, "error": "node2 is full"}):
            with self.subTest(answer=answer and answer[:10] if isinstance(answer, bytes) else answer):
                self.standin.answers["place"] = answer
                self.expect(self.loaded("echo", "ran", env=self.environment(MOSIX_NODE="node2")), 0, "ran\n")
        self.expect(self.loaded("echo", "ran", env=self.nowhere(MOSIX_NODE="node2")), 0, "ran\n")

    def test_a_node_that_is_no_name(self):
        for name in ('x","op":"migrate', "a b", "x" * 400, "\n"):
            self.expect(self.loaded("true", env=self.environment(MOSIX_NODE=name)), 0, "")
        self.standin.wait_for(lambda s: s.datagrams)
        self.assertEqual(self.standin.requests, [])

    def test_a_tree(self):
        """Every program of a shell's pipeline asks for its place by itself."""
        self.standin.answers["place"] = {"ok": True}
        result = self.loaded("sh", "-c", "/bin/echo one | cat | /usr/bin/wc -l", env=self.environment(MOSIX_NODE="node2"))
        self.expect(result, 0, "1\n", "")
        self.assertEqual(len({request["pid"] for request in self.standin.asked("place")}), 4)  # env became sh


PROBE = r"""
#include <errno.h>
#include <stdio.h>
#include <dirent.h>
#include <unistd.h>
int main(void) {
  int code = errno, count = 0;
  DIR* fds = opendir("/proc/self/fd");
  while (fds && readdir(fds)) ++count;
  DIR* tasks = opendir("/proc/self/task");
  int threads = 0;
  while (tasks && readdir(tasks)) ++threads;
  printf("errno %d fds %d threads %d first %d\n", code, count, threads, dup(2));
  return 0;
}
"""


class Harmless(PreloadTest):
    def test_nothing_is_left_behind(self):
        probe = self.compile("probe", PROBE)
        self.standin.answers["place"] = {"ok": True}
        plain = self.run_tool(probe)
        self.assertRegex(plain.stdout, "^errno 0 ")
        for environment in (self.environment(), self.nowhere(), self.environment(MOSIX_NODE="node2"),
                            self.nowhere(MOSIX_NODE="node2")):
            self.assertEqual(self.loaded(probe, env=environment).stdout, plain.stdout)

    def test_closed_standard_descriptors(self):
        self.standin.answers["place"] = {"ok": True}
        out = os.path.join(self.scratch, "out")
        self.loaded("sh", "-c", f"exec <&- >&- 2>&-; exec sh -c 'exec >{out}; ls -l /proc/$$/fd; echo $$'",
                    env=self.environment(MOSIX_NODE="node2"))
        with open(out, encoding="utf-8") as file:
            text = file.read()
        self.assertNotIn("socket", text)
        self.assertEqual(text.count(" -> "), 1, text)

    def test_full_descriptor_table(self):
        """The handler of a forked child gets no socket, and nobody is the wiser."""
        result = self.loaded(sys.executable, "-c", "import os, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
                             "try:\n  while True: os.dup(0)\nexcept OSError: pass\n"
                             "p = os.fork()\nos._exit(7) if p == 0 else print(os.waitpid(p, 0)[1], p)")
        self.expect(result, 0, err="")
        status, child = result.stdout.split()
        self.assertEqual(int(status), 7 << 8)
        pid = int(self.loaded("sh", "-c", "echo $$").stdout)  # datagrams keep their order
        self.standin.wait_for(lambda s: pid in self.pids())
        self.assertNotIn(int(child), self.pids())

    def test_errno_survives_a_fork(self):
        program = self.compile("forks", r"""
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  errno = 77;
  pid_t child = fork();
  if (child == 0) _exit(errno);
  int status;
  waitpid(child, &status, 0);
  return WEXITSTATUS(status) != 77;
}
""")
        for environment in (self.environment(), self.nowhere()):
            self.expect(self.loaded(program, env=environment), 0)

    def test_programs(self):
        for words in (("bash", "-c", "for i in 1 2 3; do (echo $i | cat); done"), (sys.executable, "-c", "print(sum(range(9)))"),
                      ("perl", "-e", "print 42"), ("awk", "BEGIN { print 6 * 7 }"), ("find", "/etc/hostname"), ("tar", "--version")):
            if shutil.which(words[0]) is None:
                continue
            with self.subTest(program=words[0]):
                plain = self.run_tool(*words)
                ours = self.loaded(*words)
                self.assertEqual((ours.returncode, ours.stdout, ours.stderr), (plain.returncode, plain.stdout, plain.stderr))

    def test_under_a_filter_that_kills(self):
        """An inherited seccomp filter may end a process for a call that it does not know: ours is not made."""
        before = len(self.standin.datagrams)
        pid = os.fork()
        if pid == 0:
            try:
                kill_unknown_calls()
                environment = self.environment(LD_PRELOAD=LIBRARY)
                os.execve("/bin/true", ["true"], environment)
            finally:
                os._exit(99)
        _, status = os.waitpid(pid, 0)
        self.assertEqual(status, 0, "killed" if os.WIFSIGNALED(status) else "")
        self.assertEqual(len(self.standin.datagrams), before)

    def test_away_is_left_alone(self):
        """Where the query is answered with 1, as the supervisor does, nothing more is done."""
        tracer = self.compile("answers", ANSWERING_TRACER)
        self.expect(self.run_tool(tracer, shutil.which("env"), "LD_PRELOAD=" + LIBRARY, "/bin/echo", "ran",
                                  env=self.environment(MOSIX_NODE="node2")), 0, "ran\n", "")
        self.assertEqual(self.standin.requests, [])


class OtherLibraries(PreloadTest):
    """Programs of another word size or C library: quiet, not an error line."""

    def test_32_bit(self):
        loader = "/lib/ld-linux.so.2"
        if not os.path.exists(loader):
            self.skipTest("no 32-bit loader (libc6-i386)")
        if not os.path.exists(os.path.join(os.path.dirname(LIBRARY), "lib32/libmosix.so")):
            self.skipTest("this compiler makes no 32-bit library")
        program = os.path.join(self.scratch, "small")
        source = ".globl _start\n_start: movl $1, %eax\nmovl $7, %ebx\nint $0x80\n"
        subprocess.run(["as", "--32", "-o", program + ".o"], input=source, text=True, check=True)
        libc = next(path for path in ("/lib32/libc.so.6", "/lib/i386-linux-gnu/libc.so.6", "/usr/lib/libc.so.6") if os.path.exists(path))
        subprocess.run(["ld", "-m", "elf_i386", "-pie", "-dynamic-linker", loader, "-o", program, program + ".o", libc], check=True)
        self.expect(self.loaded(program, library=ANY_LIBC), 7, "")
        self.assertEqual(self.loaded(program, library=ANY_LIBC).stderr, "")
        self.assertIn("$LIB", self.run_tool("mosrun", "sh", "-c", "echo $LD_PRELOAD").stdout)

    def test_musl(self):
        if shutil.which("musl-gcc") is None:
            self.skipTest("no musl-gcc (musl-tools)")
        program = self.compile("musl", "#include <stdio.h>\n#include <unistd.h>\n#include <sys/wait.h>\n"
                               "int main(void) { pid_t p = fork(); if (!p) _exit(0); wait(0); printf(\"%d\\n\", p); return 5; }\n",
                               compiler="musl-gcc")
        result = self.loaded(program)
        self.expect(result, 5)
        self.assertEqual(result.stderr, "")
        child = int(result.stdout)
        self.standin.wait_for(lambda s: any(d["pid"] == child and d["forked"] for d in s.datagrams))
        self.assertEqual(self.loaded(program, library=ANY_LIBC).stderr, "")

    def test_static(self):
        program = self.compile("static", "int main(void) { return 6; }\n", "-static")
        self.expect(self.loaded(program), 6, "", "")


def kill_unknown_calls():
    """seccomp: numbers from 1000 on end the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    load, jump_ge, ret = 0x20, 0x35, 0x06
    code = b"".join(struct.pack("HBBI", *words) for words in (
        (load, 0, 0, 0), (jump_ge, 0, 1, 1000), (ret, 0, 0, 0x80000000), (ret, 0, 0, 0x7fff0000)))
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) != 0:
        os._exit(98)


# Runs a program and answers its query as a supervisor would: result 1. Checks that it was asked.
ANSWERING_TRACER = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
int main(int argc, char** argv) {
  (void)argc;
  pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    execv(argv[1], argv + 1);
    _exit(99);
  }
  int status, entering = 1, asked = 0, inside = 0;
  waitpid(child, &status, 0);
  ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
  for (;;) {
    if (ptrace(PTRACE_SYSCALL, child, 0, 0) != 0) return 98;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) break;
    if (WIFSIGNALED(status)) return 97;
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, child, 0, &regs);
    if (entering && regs.orig_rax == 0x0d4f5358) inside = 1;
    if (!entering && inside) {
      regs.rax = 1;
      ptrace(PTRACE_SETREGS, child, 0, &regs);
      inside = 0, ++asked;
    } else if (entering && asked > 0 && (regs.orig_rax == 41 /* socket */)) {
      return 96;
    }
    entering = !entering;
  }
  return asked == 1 ? WEXITSTATUS(status) : 95;
}
"""


if __name__ == "__main__":
    unittest.main()
