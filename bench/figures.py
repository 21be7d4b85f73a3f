#!/usr/bin/env python3
"""Measures the project's figures in a lab of two nodes. Started by bench/run.sh.

Each figure that is a ratio measures both of its sides in turns, in the same run, on the same nodes, and takes
the middle of each, so that what else the machine does meets both sides alike. A baseline of "-" means that the
figure stands for itself.
"""
import json
import os
import re
import signal
import statistics
import subprocess
import sys

BUILD, QUICK = sys.argv[1], '--quick' in sys.argv
NAMES = [word for word in sys.argv[2:] if not word.startswith('-')]
HOME, AWAY = 'node1', 'node2'
HOME_ADDRESS = '10.77.0.1'
# What one forwarded call without data is on the wire: header and body of a CALL, header and body of a REPLY.
CALL_BYTES, REPLY_BYTES = 48 + 80, 48 + 24


def note(text):
    print('# ' + text, file=sys.stderr, flush=True)


def program(name, node=HOME):
    """Path of one of our programs: away nodes see the build folder in another place."""
    root = BUILD if node == HOME else '/opt/mosix'
    return f'{root}/bench/bench_{name}'


class Lab:
    """A lab of two nodes that is there while the object is used in a `with`. `processors`: all of it, and all that is run in
    it, is bound to these."""

    def __init__(self, processors=None):
        self.name = f'bench-{os.getpid()}'
        self.bound = ['taskset', '-c', processors] if processors else []

    def __enter__(self):
        subprocess.run([*self.bound, 'mosixlab', 'up', '-n', '2', '--name', self.name], check=True, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        subprocess.run(['mosixlab', 'down', '--name', self.name], check=False, stdout=subprocess.DEVNULL)

    def on(self, node, *words):
        return [*self.bound, 'mosixlab', 'exec', '--name', self.name, node, '--', *words]

    def output(self, node, *words):
        return subprocess.run(self.on(node, *words), check=True, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL).stdout

    def number(self, node, *words):
        return float(self.output(node, *words).split()[-1])

    def start(self, node, *words):
        """A program that speaks by lines, once it has said "ready", and its number in the node if it says that."""
        process = subprocess.Popen(self.on(node, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = process.stdout.readline().split()
        if said[:1] != ['ready']:
            raise RuntimeError(f'{words} said {said}')
        return process, int(said[1]) if len(said) > 1 else 0

    def migrate(self, pid, place):
        return json.loads(self.output(HOME, 'migrate', '--json', str(pid), place))

    def private_kilobytes(self, node, pid):
        text = self.output(node, 'cat', f'/proc/{pid}/smaps_rollup')
        return sum(int(kilobytes) for kilobytes in re.findall(r'^Private_\w+:\s+(\d+) kB', text, re.M))

    def pids_of(self, node, name):
        script = 'for p in /proc/[0-9]*; do read -r c <$p/comm && [ "$c" = "$0" ] && echo ${p#/proc/}; done; :'
        # The kernel keeps 15 characters of a program's name.
        return [int(word) for word in self.output(node, 'bash', '-c', script, name[:15]).split()]


def expect(process, word):
    line = process.stdout.readline().strip()
    if line != word:
        raise RuntimeError(f'expected "{word}" and got "{line}"')


def tell(process, line, answer):
    process.stdin.write(line + '\n')
    process.stdin.flush()
    expect(process, answer)


def end(process):
    """Ends a program that speaks by lines, as it wants to be ended; its exit status counts."""
    process.stdin.close()
    if process.stdout.read().strip() != 'intact' or process.wait() != 0:
        raise RuntimeError(f'a program ended with status {process.wait()}')


def in_turns(rounds, *sides):
    """Medians of several measurements, taken in turns."""
    if QUICK:
        rounds = max(1, rounds // 3)
    taken = [[] for _ in sides]
    for _ in range(rounds):
        for values, side in zip(taken, sides):
            values.append(side())
    return [statistics.median(values) for values in taken]


def figure(name, value, unit, baseline=None):
    ratio = '-' if not baseline else f'{value / baseline:.3f}'
    shown = '-' if baseline is None else f'{baseline:.3f}'
    print(f'{name}\t{value:.3f}\t{unit}\t{shown}\t{ratio}', flush=True)


AWAY_RUN = ('mosrun', '--require', '-r', AWAY)
HOME_RUN = ('mosrun', '-h')


def forwarded_call(lab, name, *words):
    count = '2000'
    server, _ = lab.start(HOME, program('tcp'), 'serve', '17001')
    try:
        forwarded, echo = in_turns(
            7,
            lambda: lab.number(HOME, *AWAY_RUN, program('null_calls'), count, *words) / 1000,
            lambda: lab.number(AWAY, program('tcp', AWAY), 'echo', HOME_ADDRESS, '17001', count,
                               str(CALL_BYTES), str(REPLY_BYTES)) / 1000)
    finally:
        server.kill()
        server.wait()
    figure(name, forwarded, 'us', echo)


# On one processor. On several, what a call takes is settled by where the scheduler happens to put the two ends: a bare
# echo takes 8 us or 53 us, a forwarded call too, each from run to run.
def one_processor():
    return str(max(os.sched_getaffinity(0)))


def forward_backstop(lab):
    forwarded_call(lab, 'forward_backstop')


def forward_direct(lab):
    forwarded_call(lab, 'forward_direct', 'direct')


forward_backstop.processors = forward_direct.processors = one_processor


def home_cpu(lab):
    ours, native = in_turns(9, lambda: lab.number(HOME, *HOME_RUN, program('compute'), '40'),
                            lambda: lab.number(HOME, program('compute'), '40'))
    figure('home_cpu', ours, 'ms', native)


def home_syscall(lab):
    ours, native = in_turns(9, lambda: lab.number(HOME, *HOME_RUN, program('null_calls'), '1000000'),
                            lambda: lab.number(HOME, program('null_calls'), '1000000'))
    figure('home_syscall', ours, 'ns', native)


def home_exec(lab):
    ours, native = in_turns(7, lambda: lab.number(HOME, *HOME_RUN, program('spawn_true'), '300') / 1000,
                            lambda: lab.number(HOME, program('spawn_true'), '300') / 1000)
    figure('home_exec', ours, 'ms', native)


def away_cpu(lab):
    away, native = in_turns(9, lambda: lab.number(HOME, *AWAY_RUN, program('compute'), '40'),
                            lambda: lab.number(AWAY, program('compute', AWAY), '40'))
    figure('away_cpu', away, 'ms', native)


def transfer(lab):
    megabytes = 100 if QUICK else 400
    server, _ = lab.start(AWAY, program('tcp', AWAY), 'serve', '17002')
    holder, pid = lab.start(HOME, *HOME_RUN, program('hold_memory'), str(megabytes))
    try:
        def out():
            moved = lab.migrate(pid, AWAY)
            lab.migrate(pid, 'home')
            return moved['bytes'] / 1e6 / (moved['total_ms'] / 1000)

        moved, bare = in_turns(5, out, lambda: lab.number(HOME, program('tcp'), 'stream', '10.77.0.2', '17002',
                                                          str(megabytes)))
        end(holder)
    finally:
        for process in (server, holder):
            process.kill()
            process.wait()
    figure('transfer', moved, 'MB/s', bare)


def freeze_small(lab):
    holder, pid = lab.start(HOME, *HOME_RUN, program('hold_memory'), '1')
    try:
        freezes = []
        for _ in range(7 if QUICK else 21):
            tell(holder, 'touch 1024', 'touched')
            freezes.append(lab.migrate(pid, AWAY)['freeze_ms'])
            lab.migrate(pid, 'home')
        end(holder)
    finally:
        holder.kill()
        holder.wait()
    figure('freeze_small', statistics.median(freezes), 'ms')


def memory_figure(lab, name, measure):
    holder, pid = lab.start(HOME, *HOME_RUN, program('hold_memory'), '8')
    try:
        lab.migrate(pid, AWAY)
        tell(holder, 'check', 'intact')
        figure(name, measure(pid) / 1024, 'MiB')
        end(holder)
    finally:
        holder.kill()
        holder.wait()


def deputy_memory(lab):
    memory_figure(lab, 'deputy_memory', lambda pid: lab.private_kilobytes(HOME, pid))


def of_helper(lab, node, name):
    pids = lab.pids_of(node, name)
    if not pids:
        raise RuntimeError(f'no {name} on {node}')
    return max(lab.private_kilobytes(node, pid) for pid in pids)


def supervisor_memory(lab):
    memory_figure(lab, 'supervisor_memory', lambda pid: of_helper(lab, AWAY, 'mosix-supervisor'))


def custodian_memory(lab):
    memory_figure(lab, 'custodian_memory', lambda pid: of_helper(lab, HOME, 'mosix-custodian'))


def round_trips(lab):
    """A 50 MB program of five threads that verify and change its memory all the time, out and back."""
    wanted = 100 if QUICK else int(os.environ.get('MOSIX_ROUND_TRIPS', '1000'))
    holder, pid = lab.start(HOME, *HOME_RUN, program('hold_memory'), '50', '4')
    done = 0
    try:
        for trip in range(wanted):
            for place in (AWAY, 'home'):
                lab.migrate(pid, place)
            if holder.poll() is not None:
                raise RuntimeError(f'the program ended with status {holder.returncode} in trip {trip + 1}')
            done += 1
            if done % 100 == 0:
                note(f'round_trips: {done}')
        end(holder)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        note(f'round_trips: lost in trip {done + 1}: {error} {getattr(error, "stderr", "")}')
    finally:
        holder.kill()
        holder.wait()
    figure('round_trips', done, 'trips', wanted)


FIGURES = [forward_backstop, forward_direct, home_cpu, home_syscall, home_exec, away_cpu, transfer, freeze_small, deputy_memory,
           supervisor_memory, custodian_memory, round_trips]


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab goes even then
    known = {figure.__name__: figure for figure in FIGURES}
    for name in NAMES:
        if name not in known:
            sys.exit(f'bench: unknown figure {name}; there are {", ".join(known)}')
    failed = False
    for name, measure in known.items():
        if NAMES and name not in NAMES:
            continue
        with Lab(getattr(measure, 'processors', lambda: None)()) as lab:
            try:
                measure(lab)
            except (RuntimeError, subprocess.CalledProcessError, KeyError, ValueError) as error:
                note(f'{name}: {error} {getattr(error, "stderr", "") or ""}')
                failed = True
    return 1 if failed else 0


sys.exit(main())
