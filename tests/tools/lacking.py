"""Runs a command on a machine that lacks something: lacking.py [NAME=VALUE]... [-NUMBER]... -- COMMAND...

NAME=VALUE is a file below /proc/sys/kernel with that text, -NUMBER a system call that fails with EPERM, as a security
module or a container's filter makes it. Root only: it works in a mount namespace of its own."""

import ctypes
import os
import struct
import subprocess
import sys


def fake_settings(settings):
    libc = ctypes.CDLL(None, use_errno=True)
    private, recursive = 1 << 18, 1 << 14
    if libc.unshare(0x00020000) != 0 or libc.mount(None, b"/", None, private | recursive, None) != 0:
        raise OSError(ctypes.get_errno(), "mount namespace")
    subprocess.run(["mount", "-t", "tmpfs", "none", "/proc/sys/kernel"], check=True)
    for setting in settings:
        name, value = setting.split("=")
        path = os.path.join("/proc/sys/kernel", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(value + "\n")
        os.chmod(path, 0o644)


def deny(numbers):
    load, jump_equal, ret = 0x20, 0x15, 0x06
    rules = [struct.pack("HBBI", load, 0, 0, 0)]
    for number in numbers:
        rules += [struct.pack("HBBI", jump_equal, 0, 1, number), struct.pack("HBBI", ret, 0, 0, 0x00050001)]
    code = b"".join(rules) + struct.pack("HBBI", ret, 0, 0, 0x7fff0000)
    buffer = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


words = sys.argv[1:sys.argv.index("--")]
fake_settings([word for word in words if "=" in word])
deny([int(word[1:]) for word in words if word.startswith("-")])
command = sys.argv[sys.argv.index("--") + 1:]
os.execvp(command[0], command)
