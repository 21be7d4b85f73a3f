#!/usr/bin/env python3
"""Boots Debian 12's own kernel, 6.1, in an emulator, makes a lab in it, and runs the checks of checks.list there.

  emulated_node.py [--build DIR] [--work DIR] [--limit SECONDS] [NAME...]   the checks, or those named
  emulated_node.py [OPTION]... [--file PROGRAM]... -- COMMAND [ARGUMENT]...
                        one command in a lab of three nodes there, as root; PROGRAM is taken along, as /vm/PROGRAM

A lab's nodes are namespaces of one kernel, so that home and away are both 6.1 in one machine. It is emulated
(qemu's TCG) because that works everywhere; hence no claims about time. A machine is judged by what it says itself: a
verdict for each check on its second serial line, and a last line with their number. What is missing when it ends, or
when it has said nothing for --limit seconds, has failed. The last line is "tally: N passed, N failed, N skipped"; exit
status 0, 1 if anything failed, 77 if all was skipped, because there is no emulator, no kernel or no build without
sanitizers here.
"""
import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import initramfs  # noqa: E402
import kernel_package  # noqa: E402

EMULATOR = 'qemu-system-x86_64'
MODULES = ('overlay', 'veth', 'bridge')
# At the same places below /opt/mosix as in the build folder, so that they find one another.
COMPONENTS = ('cluster/mosixd', 'deputy/mosix-custodian', 'remote/mosix-supervisor', 'remote/sandbox/mosix-init',
              'tools/mosixlab', 'tools/mosrun', 'tools/mosctl', 'tools/mosps', 'tools/mostrace', 'tools/migrate')
PROGRAMS = ('bash', 'sh', 'cat', 'sort', 'uniq', 'wc', 'tr', 'head', 'tail', 'ls', 'mkfifo', 'sleep', 'timeout', 'rm', 'mkdir', 'seq',
            'env', 'id', 'uname', 'hostname', 'stat', 'sha256sum', 'dd', 'diff', 'cmp', 'gzip', 'grep', 'sed',
            'awk', 'ps', 'ip', 'setpriv', 'true', 'tee', 'readlink', 'dmesg', 'date', 'cut', 'chmod', 'find')


class Check:
    """One line of checks.list: in whose lab, name, command."""

    def __init__(self, lab, name, command):
        self.lab, self.name, self.command = lab, name, command


def read_checks(names):
    checks = []
    with open(HERE + '/checks.list') as lines:
        for line in lines:
            if line.strip() and not line.startswith('#'):
                checks.append(Check(*line.split(None, 2)))
    unknown = set(names) - {check.name for check in checks}
    if unknown:
        sys.exit('emulated_node: not in the list: ' + ', '.join(sorted(unknown)))
    return [check for check in checks if not names or check.name in names]


def need_tools(build):
    if shutil.which(EMULATOR) is None:
        raise kernel_package.Unavailable(f'{EMULATOR} is not installed: scripts/setup.sh --vm')
    if shutil.which('busybox') is None:
        raise kernel_package.Unavailable('busybox is not installed: scripts/setup.sh --vm')
    if not os.path.exists(build + '/cluster/mosixd'):
        raise kernel_package.Unavailable(f'no ordinary build in {build}: scripts/build.sh')


def make_tree(build, kernel, checks, command):
    tree = initramfs.Tree()
    for name in ('bin', 'sbin', 'lib', 'lib64'):
        tree.add_folder('/usr/' + name)
        tree.add_link('/' + name, 'usr/' + name)
    for folder in ('/proc', '/sys', '/dev', '/run', '/tmp', '/var/tmp', '/root', '/etc/mosix', '/modules'):
        tree.add_folder(folder)
    tree.add_program('/usr/bin/busybox', shutil.which('busybox'))
    for name in PROGRAMS:
        source = shutil.which(name, path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')
        if source is None:
            raise kernel_package.Unavailable(f'{name} is not installed here')
        tree.add_program('/usr/bin/' + name, os.path.realpath(source))
    for path in COMPONENTS:
        tree.add_program('/opt/mosix/' + path, f'{build}/{path}')
    preload = build + '/libmosix/preload'
    tree.add_file('/opt/mosix/libmosix/preload/libmosix.so', preload + '/libmosix.so')
    for folder in ('lib/x86_64-linux-gnu', 'lib64'):
        link = f'{preload}/{folder}/libmosix.so'
        tree.add_link(f'/opt/mosix/libmosix/preload/{folder}/libmosix.so', os.readlink(link))
    for name in sorted(os.listdir(build + '/tests/syscalls')):
        if re.fullmatch('guest_[a-z]+', name):
            tree.add_program('/vm/' + name, f'{build}/tests/syscalls/{name}')
    tree.strip(os.path.join(build, 'vm', 'stripped'))
    for number, path in enumerate(kernel.modules(MODULES)):
        tree.add_file(f'/modules/{number:02}-{os.path.basename(path)}', os.path.join(kernel.folder, path))
    tree.add_file('/init', HERE + '/init.sh')
    for name in ('checks.sh', 'stepper.sh', 'pipes.sh'):
        tree.add_file('/vm/' + name, f'{HERE}/{name}')
    tree.add_text('/vm/checks.list', ''.join(f'{one.lab} {one.name} {one.command}' for one in checks))
    if command:
        tree.add_text('/vm/command.sh', '#!/bin/bash\n' + command + '\n', 0o755)
    tree.add_text('/etc/passwd', 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n')
    tree.add_text('/etc/group', 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n')
    tree.add_text('/etc/hosts', '127.0.0.1 localhost\n')
    tree.add_text('/etc/hostname', 'emulated\n')
    tree.add_text('/etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files\n')
    return tree


def emulate(kernel, archive, console, limit, hear):
    """Runs the machine until it ends; `hear` gets each line of its second serial line. False if it was ended because it
    had said nothing for `limit` seconds: how long it takes in all is a matter of what else the computer does."""
    command = [EMULATOR, '-accel', 'tcg', '-cpu', 'max', '-M', 'q35', '-smp', '2', '-m', '768', '-nodefaults',
               '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'file:' + console, '-serial', 'stdio',
               '-kernel', kernel.image, '-initrd', archive, '-append', 'console=ttyS0 quiet panic=-1']
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    heard, ended, in_time = time.monotonic(), threading.Event(), True

    def watch():
        nonlocal in_time
        while not ended.wait(1):
            if time.monotonic() - heard > limit:
                in_time = False
                return machine.kill()

    watcher = threading.Thread(target=watch)
    watcher.start()
    errors = []
    reader = threading.Thread(target=lambda: errors.extend(machine.stderr))
    reader.start()
    for line in machine.stdout:
        heard = time.monotonic()
        hear(line.decode(errors='replace').rstrip())
    status = machine.wait()
    ended.set()
    reader.join()
    watcher.join()
    if status != 0 and in_time:
        print(f'the emulator ended with status {status}: ' + b''.join(errors).decode(errors='replace'))
    return in_time


class Judge:
    """Counts the verdicts; everything that is not a verdict is shown as it comes."""

    def __init__(self, checks):
        self.open = [check.name for check in checks]
        self.passed, self.failed, self.said_done = [], [], False

    def hear(self, line):
        words = line.split()
        if words[:1] == ['vm:'] and words[1] in ('passed', 'failed') and words[2] in self.open:
            self.open.remove(words[2])
            (self.passed if words[1] == 'passed' else self.failed).append(words[2])
        elif words[:2] == ['vm:', 'done']:
            self.said_done = int(words[2]) == len(self.passed) + len(self.failed)
        print(line, flush=True)


def tail(path, count):
    if not os.path.exists(path):
        return ''
    with open(path, errors='replace') as file:
        return ''.join(file.readlines()[-count:])


def parse_options():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('--build', default=os.path.dirname(os.path.dirname(HERE)) + '/build')
    parser.add_argument('--work', help='where kernel, archive and console log lie; BUILD/vm')
    parser.add_argument('--limit', type=float, default=240)
    parser.add_argument('--file', action='append', default=[])
    parser.add_argument('names', nargs='*')
    words, command = sys.argv[1:], ''
    if '--' in words:
        at = words.index('--')
        words, command = words[:at], shlex.join(words[at + 1:])
    options = parser.parse_args(words)
    options.build = os.path.abspath(options.build)
    options.work = os.path.abspath(options.work or options.build + '/vm')
    return options, command


def main():
    options, command = parse_options()
    checks = [] if command else read_checks(options.names)
    begin = time.monotonic()
    try:
        need_tools(options.build)
        kernel = kernel_package.kernel(options.work + '/kernels')
        tree = make_tree(options.build, kernel, checks, command)
        for path in options.file:
            tree.add_program('/vm/' + os.path.basename(path), path)
    except kernel_package.Unavailable as reason:
        print(f'skipped: {reason}\ntally: 0 passed, 0 failed, {len(checks)} skipped')
        sys.exit(77)
    archive, console = options.work + '/initramfs.cpio', options.work + '/console.log'
    tree.write(archive)
    print(f'Linux {kernel.version}, {os.path.getsize(archive) >> 20} MB of files, '
          f'prepared in {time.monotonic() - begin:.1f} s', flush=True)
    judge = Judge(checks)
    in_time = emulate(kernel, archive, console, options.limit, judge.hear)
    print(f'{time.monotonic() - begin:.1f} s in all')
    bad = bool(judge.failed or judge.open or not judge.said_done)
    if bad:
        print('' if in_time else f'the machine was ended: it had said nothing for {options.limit:.0f} s')
        print(f'failed: {" ".join(judge.failed) or "-"}; without a verdict: {" ".join(judge.open) or "-"}')
        print(f'its console ended with (all of it: {console})\n' + tail(console, 60))
    if command:
        sys.exit(0 if judge.said_done else 1)
    failed = len(judge.failed) + len(judge.open)
    print(f'tally: {len(judge.passed)} passed, {failed or int(bad)} failed, 0 skipped')
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
