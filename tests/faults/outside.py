#!/usr/bin/env python3
"""What a process that is away looks like from outside, and to itself: processor time, and what tools at home meet.

  outside.py            all cases          outside.py NAME...    only these          outside.py --list
"""
import re
import sys

from lab_cases import require, run_cases

PYTHON = '/usr/bin/python3'
# Looks at the clock seldom: each look is a call, and what the deputy needs for it counts as well.
BURNING = '''
import os, resource, sys, time
def burn(until):
    while time.process_time() < until:
        sum(range(100000))
'''
BURN = BURNING + 'burn(0.05)'


def reported(errors):
    """(home, away, rest of the away line) in seconds of what --report has printed."""
    home = re.search(r'^home ([0-9.]+)s', errors, re.M)
    away = re.search(r'^away ([0-9.]+)s (.*)$', errors, re.M)
    require(home and away, f'no report: {errors!r}')
    return float(home[1]), float(away[1]), away[2]


def minutes(text):
    """Of what the shell's `times` prints: 0m1.234s, four of them."""
    return sum(60 * int(m) + float(s) for m, s in re.findall(r'(\d+)m([0-9.]+)s', text))


# ---- processor time

def report_of_short_programs(lab):
    """Ten programs that are gone before anybody looks; what the shell itself counted is the truth."""
    for node in ('node2', 'home'):
        where = ['-r', node, '--require'] if node != 'home' else ['-h']
        status, out, err = lab.run('mosrun', '--report', *where, 'bash', '-c',
                                   'for i in 1 2 3 4 5 6 7 8 9 10; do "$@"; done; times', 'bash', PYTHON, '-c', BURN)
        require(status == 0, err)
        home, away, rest = reported(err)
        inside = minutes(out)
        require(inside >= 0.5, f'{node}: the shell counts {inside} s for ten times 0.05: {out!r}')
        require(abs(home + away - inside) < 0.05 + 0.1 * inside,
                f'{node}: the report has {home} + {away} s, the shell counted {inside}')
        require((away > 0.3) == (node == 'node2'), f'{node}: {home} at home, {away} away')
        if node == 'node2':
            require(rest.startswith('(1 move, last on node2'), rest)


def report_of_one_short_program(lab):
    for _ in range(5):
        status, _, err = lab.run('mosrun', '--report', '-r', 'node2', '--require', PYTHON, '-c', BURN)
        require(status == 0, err)
        home, away, rest = reported(err)
        require(home + away >= 0.04 and away > 0.02 and rest.startswith('(1 move, last on node2'), err)


# Forks children that burn 50 ms each, and prints what it is told of each, and of all by its own account.
FORKS = BURNING + '''
waited = 0
for number in range(8):
    child = os.fork()
    if child == 0:
        burn(0.05)
        os._exit(0)
    if number % 2:
        used = os.wait4(child, 0)[2]
    else:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.waitid(os.P_PID, child, os.WEXITED)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = resource.struct_rusage([a - b for a, b in zip(used, before)])
    waited += used.ru_utime + used.ru_stime
own = resource.getrusage(resource.RUSAGE_CHILDREN)
ticks = os.times()
print(waited, own.ru_utime + own.ru_stime, ticks.children_user + ticks.children_system)
'''


def children_that_only_fork(lab):
    status, out, err = lab.run('mosrun', '--report', '-r', 'node2', '--require', PYTHON, '-c', FORKS)
    require(status == 0, err)
    home, away, _ = reported(err)
    for name, seconds in zip(('wait', 'getrusage', 'times'), map(float, out.split())):
        require(0.36 <= seconds < home + away + 0.1, f'{name}: {seconds} s of 0.4; report {home} + {away}')
    require(away > 0.25, f'{home} at home, {away} away')


# A parent with a child that computes 0.3 s in all, in steps: with each line read from home it makes one more.
STEPS = BURNING + '''
child = os.fork()
if child == 0:
    for step, line in enumerate(sys.stdin):
        burn(0.1 * (step + 1))
        print(line.strip(), os.getpid(), flush=True)
        if step == 2: os._exit(0)
used = os.wait4(child, 0)[2]
own = resource.getrusage(resource.RUSAGE_CHILDREN)
print('used', used.ru_utime + used.ru_stime, own.ru_utime + own.ru_stime, flush=True)
'''


def stepped(lab, *moves):
    """What the parent on node2 is told of a child that makes its three steps, and a move after each of two."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', PYTHON, '-c', STEPS)
    lab.until_away(pid)
    child = 0
    for step in range(3):
        process.stdin.write(f'step{step}\n')
        process.stdin.flush()
        word, number = process.stdout.readline().split()
        require(word == f'step{step}', word)
        child = int(number)
        if step < len(moves):
            status, _, err = lab.run('migrate', str(child), moves[step])
            require(status == 0, err)
    word, waited, own = process.stdout.readline().split()
    require(word == 'used' and process.wait(60) == 0, f'{word} {process.returncode}')
    return float(waited), float(own)


def child_that_moved(lab):
    """Its parent is told of all that it used, wherever that was and wherever it ended."""
    for moves in ((), ('node3',), ('node3', 'home'), ('home', 'node3'), ('home',)):
        for seconds in stepped(lab, *moves):
            require(0.28 <= seconds < 0.8, f'{moves}: {seconds} s of 0.3')
    lab.nothing_left()


def killed_child(lab):
    """kill -9 at home: its figures come from a node that has to be told first."""
    script = STEPS.replace('if step == 2: os._exit(0)', 'time.sleep(0)')
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', PYTHON, '-c', script)
    lab.until_away(pid)
    process.stdin.write('one\n')
    process.stdin.flush()
    child = process.stdout.readline().split()[1]
    status, _, err = lab.run('kill', '-9', child)
    require(status == 0, err)
    word, waited, own = process.stdout.readline().split()
    require(word == 'used' and float(waited) >= 0.09 and float(own) >= 0.09, f'{waited} {own}')


# Prints its own processor time whenever it is asked.
OWN_TIME = BURNING + '''
for line in sys.stdin:
    burn(time.process_time() + 0.1)
    print(line.strip(), time.process_time(), time.thread_time(), flush=True)
'''


def own_time_of_visits(lab):
    """A second visit goes on where the first ended; so does the next program after an exec."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', PYTHON, '-c', OWN_TIME)
    lab.until_away(pid)
    least = 0.0
    for place in ('node2', 'node3', 'node2'):
        if place != 'node2' or least:
            for to in ('home', place):
                status, _, err = lab.run('migrate', str(pid), to)
                require(status == 0, err)
        process.stdin.write('now\n')
        process.stdin.flush()
        _, whole, thread = process.stdout.readline().split()
        require(float(whole) >= least + 0.09 and float(thread) >= least + 0.09,
                f'on {place}: {whole} s, thread {thread} s, after {least}')
        least += 0.1
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')
    status, out, err = lab.run('mosrun', '-r', 'node2', '--require', 'bash', '-c',
                               'i=0; while ((i < 200000)); do ((++i)); done; times; exec bash -c times')
    require(status == 0, err)
    first, second = (minutes(line) for line in out.splitlines()[0::2])
    require(first > 0.1 and second >= first, f'{first} s before exec, {second} after: {out!r}')


CASES = [report_of_short_programs, report_of_one_short_program, children_that_only_fork, child_that_moved, killed_child,
         own_time_of_visits]

sys.exit(run_cases(CASES))
