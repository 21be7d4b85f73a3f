#!/usr/bin/env python3
"""Runs a program natively, at home under libmosix, away and while it is moved about, and compares.

  run_matrix.py [OPTION]... -- COMMAND [ARGUMENT]...      one program
  run_matrix.py [OPTION]... --list LIST.tsv [NAME]...     those of a list (tests/programs/list.tsv)

All of it happens on node1 of a lab of its own (mosixlab run). Modes:
  native   without mosix: the specification. What follows has to give the same output, errors and status.
  home     mosrun -h: adopted, at home
  away     mosrun --require -r node2: started there, and seen there
  moved    as away, and every 200 ms all of its processes move on: node2, home, node3, ...
  points   as home, moved at each move point (tests/syscalls/move_point.h)

Options: --modes A,B,... (native,home,away,moved)  --limit SECONDS (60, for each run)  --repeat N (1)
         --interval MS (200, of moves)  --keep DIR (logs of runs that fail; ./matrix-logs)  --user
A test whose programs are not installed is skipped. The last line is "tally: N passed, N failed, N skipped".
Exit status: 0, 1 if anything failed, 77 if all was skipped.
"""
import argparse
import ctypes
import difflib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SLOWNESS = int(os.environ.get('MOSIX_TEST_SLOWNESS', '1'))  # under sanitizers: limits are so many times longer
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import lab_client  # noqa: E402

WRAPPERS = {
    'native': [],
    'home': ['mosrun', '-h'],
    'away': ['mosrun', '--require', '-r', 'node2'],
    'moved': ['mosrun', '--require', '-r', 'node2'],
    'points': ['mosrun', '-h'],
}


NEVER_MOVED = 'it was never moved'
SHORTEST_INTERVAL_MS = 25


# Checks of our own programs that cannot hold without a feature (docs/ARCHITECTURE.md says why): left out, and counted
# as skipped, where MOSIX_FEATURES_OFF names it. Without io_uring a program can see and close its channel.
NEED_FEATURE = {('guest_processes', 'closing-everything'): 'io_uring'}


class Program:
    """One line of a list: name, programs it needs, limit in seconds, generator of its input, command."""

    def __init__(self, name, needs, limit, command):
        self.name, self.needs, self.limit, self.command = name, needs, limit * SLOWNESS, command

    def missing(self):
        return [need for need in self.needs if shutil.which(need) is None]


class Outcome:
    """What a run gave."""

    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.err, self.seconds = status, out, err, seconds


def read_list(path, names, limit):
    programs = []
    with open(path) as lines:
        for line in lines:
            if line.strip() and not line.startswith('#'):
                name, needs, own_limit, command = line.rstrip('\n').split('\t')
                if not names or name in names:
                    needs = [need for need in needs.split(',') if need]
                    programs.append(Program(name, needs, float(own_limit) or limit, command))
    unknown = set(names) - {program.name for program in programs}
    if unknown:
        sys.exit('run_matrix: not in the list: ' + ', '.join(sorted(unknown)))
    return programs


def end_descendants():
    """Kills what a run has left behind; orphans come to us, because we are a subreaper."""
    for _ in range(50):
        children = []
        for task in os.listdir('/proc/self/task'):
            with open(f'/proc/self/task/{task}/children') as text:
                children += [int(word) for word in text.read().split()]
        if not children:
            return
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for child in children:
            try:
                os.waitpid(child, 0)
            except ChildProcessError:
                pass


class MovePoints(threading.Thread):
    """Answers move points: moves the process that asks to the next place, then lets it go on."""

    PLACES = ('node2', 'node3', 'home', 'node2', 'home')

    def __init__(self):
        super().__init__(daemon=True)
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A high number, out of the way of programs that expect the lowest free ones.
        self.fd = os.dup2(theirs.fileno(), 200, inheritable=True)
        theirs.close()
        self.moved, self.refused, self.next_place = 0, {}, {}

    def run(self):
        while True:
            message = self.ours.recv(64)
            if not message:
                return
            pid = int(message)
            index = self.next_place.get(pid, 0)
            self.next_place[pid] = index + 1
            try:
                lab_client.migrate(pid, self.PLACES[index % len(self.PLACES)])
                self.moved += 1
            except (lab_client.DaemonError, OSError) as error:
                self.refused[str(error)] = self.refused.get(str(error), 0) + 1
            try:
                self.ours.send(b'.')
            except OSError:
                return

    def finish(self):
        os.close(self.fd)
        self.join(30)
        self.ours.close()


class Matrix:
    def __init__(self, options):
        self.options = options
        self.counts = {'passed': 0, 'failed': 0, 'skipped': 0}
        self.base = tempfile.mkdtemp(prefix='mosix-matrix-')
        os.chmod(self.base, 0o755)

    # ---- one run

    def command_of(self, program, mode):
        wrapper = WRAPPERS[mode]
        if isinstance(program.command, list):
            return wrapper + program.command
        text = program.command
        if '@RUN@' in text:
            return ['bash', '-c', text.replace('@RUN@', ' '.join(wrapper))]
        return wrapper + ['bash', '-c', text]

    def environment(self, work):
        environment = {key: value for key, value in os.environ.items() if key != 'MOSIX_MATRIX_INSIDE'}
        environment.update(LC_ALL='C', HOME=work, TMPDIR=work + '/tmp', PROGRAMS=HERE + '/programs',
                           TERM='xterm', TZ='UTC')
        return environment

    def run_once(self, program, mode):
        """One run. One that ended before its first move says nothing about moves: again, with moves sooner."""
        interval = self.options.interval
        while True:
            outcome, complaint = self.run_at(program, mode, interval)
            if mode != 'moved' or not complaint.startswith(NEVER_MOVED) or interval < SHORTEST_INTERVAL_MS:
                return outcome, complaint
            interval /= 2

    def run_at(self, program, mode, interval):
        """Runs in a fresh folder that has the same name in every mode. Returns (outcome, complaint)."""
        work = os.path.join(self.base, 'work')
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work + '/tmp')
        environment = self.environment(work)
        helpers, fds = [], ()
        if mode != 'native':
            helpers.append(lab_client.Watcher())
        if mode == 'moved':
            environment['MOSIX_TEST_LAST'] = '2'
            helpers.append(lab_client.Mover(interval / 1000))
        if mode == 'points':
            points = MovePoints()
            helpers.append(points)
            environment['MOSIX_TEST_MOVE_FD'] = str(points.fd)
            fds = (points.fd,)
        start, timed_out = time.monotonic(), False
        with open(self.base + '/out', 'w+b') as out, open(self.base + '/err', 'w+b') as err:
            process = subprocess.Popen(self.command_of(program, mode), cwd=work, env=environment, pass_fds=fds,
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
            for helper in helpers:
                helper.start()
            try:
                status = process.wait(program.limit)
            except subprocess.TimeoutExpired:
                timed_out = True
                self.describe_hang(process.pid)
                os.killpg(process.pid, signal.SIGKILL)
                status = process.wait()
            seconds = time.monotonic() - start
            end_descendants()
            for helper in helpers:
                helper.finish()
            out.seek(0)
            err.seek(0)
            outcome = Outcome(status, out.read(), err.read(), seconds)
        complaint = f'no end within {program.limit:.0f} s' if timed_out else ''
        if mode != 'native':
            complaint = complaint or self.placement_complaint(mode, helpers)
            outcome.note = self.note_of(helpers)
            left = lab_client.wait_until_quiet()
            complaint = complaint or left
        return outcome, complaint

    def describe_hang(self, leader):
        """What every process below the one that hangs was doing, for the log."""
        self.hang = subprocess.run(['ps', '-e', '-L', '-o', 'pid,lwp,ppid,stat,wchan:24,args'], text=True,
                                   capture_output=True, check=False).stdout + f'(leader {leader})\n'
        try:
            self.hang += '\n'.join(str(row) for row in lab_client.processes())
        except (OSError, lab_client.DaemonError) as error:
            self.hang += f'mosixd does not answer: {error}'

    def placement_complaint(self, mode, helpers):
        watcher = helpers[0]
        if watcher.problem:
            return 'mosixd: ' + watcher.problem
        if mode == 'away' and watcher.seen.get('node2', 0) == 0:
            return 'it was never seen on node2'
        if mode == 'home' and watcher.away_sightings:
            return 'it was asked to stay at home and was seen away'
        if mode in ('moved', 'points') and helpers[1].moved == 0:
            return f'{NEVER_MOVED}; refused: {helpers[1].refused}'
        return ''

    def note_of(self, helpers):
        watcher = helpers[0]
        parts = [f'seen {watcher.seen}']
        if any(watcher.cpu_away.values()):
            parts.append(f'{sum(watcher.cpu_away.values())} ms of CPU away')
        if watcher.reasons:
            parts.append(f'at home because {watcher.reasons}')
        if len(helpers) > 1:
            parts.append(f'{helpers[1].moved} moves')
            if helpers[1].refused:
                parts.append(f'refused {helpers[1].refused}')
        return ', '.join(parts)

    # ---- judging

    def differences(self, expected, got):
        parts = []
        if expected.status != got.status:
            parts.append(f'exit status {got.status} and not {expected.status}')
        for what in ('out', 'err'):
            left, right = getattr(expected, what), getattr(got, what)
            if left != right:
                lines = difflib.unified_diff(left.decode(errors='replace').splitlines(),
                                             right.decode(errors='replace').splitlines(), 'native', 'here',
                                             lineterm='', n=2)
                parts.append(f'std{what} differs:\n    ' + '\n    '.join(list(lines)[:40]))
        return '\n  '.join(parts)

    def keep(self, program, mode, outcome, text):
        folder = os.path.join(self.options.keep, f'{program.name}-{mode}')
        os.makedirs(folder, exist_ok=True)
        for name, data in (('out', outcome.out), ('err', outcome.err), ('why', (text + '\n').encode()),
                           ('hang', getattr(self, 'hang', '').encode())):
            with open(os.path.join(folder, name), 'wb') as file:
                file.write(data)
        return folder

    def repeat_command(self, program, mode):
        words = ['tests/run_matrix.py', '--modes', mode]
        if self.options.user:
            words.append('--user')
        words += ['--', *program.command] if isinstance(program.command, list) else \
            ['--list', os.path.relpath(self.options.list, os.path.dirname(HERE)), program.name]
        return shlex.join(words)

    def judge(self, program, mode, native):
        self.hang = ''
        outcome, complaint = self.run_once(program, mode)
        text = '\n  '.join(part for part in (complaint, self.differences(native, outcome)) if part)
        line = f'{program.name:16} {mode:7} {outcome.seconds:6.2f} s (native {native.seconds:.2f}) {outcome.note}'
        if text:
            self.counts['failed'] += 1
            folder = self.keep(program, mode, outcome, text)
            print(f'FAILED {line}\n  {text}\n  logs: {folder}\n  again: {self.repeat_command(program, mode)}')
        else:
            self.counts['passed'] += 1
            print(f'passed {line}')
        sys.stdout.flush()

    def leave_out_what_needs_a_feature(self, program):
        off = os.environ.get('MOSIX_FEATURES_OFF', '').split(',')
        for (name, check), feature in NEED_FEATURE.items():
            if program.name == name and len(program.command) == 1 and ('all' in off or feature in off):
                print(f'skipped {name} {check}: not without {feature}')
                names = subprocess.run(program.command + ['--list'], text=True, capture_output=True, check=True).stdout
                program.command = program.command + [one for one in names.split() if one != check]
                self.counts['skipped'] += 1

    def run(self, programs):
        modes = self.options.modes
        for program in programs:
            self.leave_out_what_needs_a_feature(program)
            missing = program.missing()
            if missing:
                print(f'skipped {program.name}: not installed: {", ".join(missing)}')
                self.counts['skipped'] += len(modes)
                continue
            self.hang = ''
            native, complaint = self.run_once(program, 'native')
            if complaint:
                print(f'FAILED {program.name} natively: {complaint}')
                self.keep(program, 'native', native, complaint)
                self.counts['failed'] += len(modes)
                continue
            if 'native' in modes:
                self.counts['passed'] += 1
                print(f'passed {program.name:16} native  {native.seconds:6.2f} s, status {native.status}')
                sys.stdout.flush()
            for mode in modes:
                if mode != 'native':
                    for _ in range(self.options.repeat):
                        self.judge(program, mode, native)
        shutil.rmtree(self.base, ignore_errors=True)
        counts = self.counts
        print(f'tally: {counts["passed"]} passed, {counts["failed"]} failed, {counts["skipped"]} skipped')
        if counts['failed']:
            return 1
        return 77 if counts['skipped'] and not counts['passed'] else 0


def parse_options():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('--modes', default='native,home,away,moved')
    parser.add_argument('--limit', type=float, default=60)
    parser.add_argument('--interval', type=float, default=200)
    parser.add_argument('--repeat', type=int, default=1)
    parser.add_argument('--keep', default='matrix-logs')
    parser.add_argument('--list')
    parser.add_argument('--name')
    parser.add_argument('--user', action='store_true')
    parser.add_argument('words', nargs='*')
    words = sys.argv[1:]
    command = []
    if '--' in words:
        at = words.index('--')
        words, command = words[:at], words[at + 1:]
    options = parser.parse_args(words)
    options.modes = options.modes.split(',')
    options.keep = os.path.abspath(options.keep)
    wrong = [mode for mode in options.modes if mode not in WRAPPERS]
    if wrong or bool(command) == bool(options.list):
        parser.error('unknown mode ' + ', '.join(wrong) if wrong else 'give either --list or a command')
    return options, command


def run_in_lab(options):
    """Starts this program again on node1 of a lab; the nodes' logs stay only if something failed."""
    if shutil.which('mosixlab') is None:
        sys.exit('run_matrix: mosixlab is not in PATH; run it by `meson test` or `meson devenv`')
    logs = os.path.join(options.keep, f'nodes-{os.getpid()}')
    words = ['mosixlab', 'run', '-n', '3', '--keep-logs', logs] + (['--user'] if options.user else [])
    words += ['--', sys.executable, os.path.abspath(__file__), *sys.argv[1:]]
    status = subprocess.call(words, env=dict(os.environ, MOSIX_MATRIX_INSIDE='1'))
    if status in (0, 77):
        shutil.rmtree(logs, ignore_errors=True)
    else:
        print(f'logs of the nodes: {logs}')
    return status


def main():
    options, command = parse_options()
    if 'MOSIX_MATRIX_INSIDE' not in os.environ:
        sys.exit(run_in_lab(options))
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if options.list:
        programs = read_list(options.list, options.words, options.limit)
    else:
        command[0] = shutil.which(command[0]) or command[0]
        if os.sep in command[0]:
            command[0] = os.path.abspath(command[0])
        programs = [Program(options.name or os.path.basename(command[0]), [], options.limit, command)]
    sys.exit(Matrix(options).run(programs))


if __name__ == '__main__':
    main()
