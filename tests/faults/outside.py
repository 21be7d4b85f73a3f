#!/usr/bin/env python3
"""What a process that is away looks like from outside, and to itself: processor time, and what tools at home meet.

  outside.py            all cases          outside.py NAME...    only these          outside.py --list
"""
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile

from lab_cases import COUNTER, SPINNER, answers, require, run_cases

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


# Processes that ask for what cannot be had away, and end as soon as they can.
SHARES = '''
import ctypes, os
attach = ctypes.CDLL(None).shmat
for _ in range(40):
    if os.fork() == 0:
        attach(-1, None, 0)
        os._exit(0)
    os.wait()
attach(-1, None, 0)
'''


def what_has_brought_it_home(lab):
    def counted():
        status, out, err = lab.run('mosctl', 'status', '--json')
        require(status == 0, err)
        return json.loads(out)['brought_home'].get('shmat', 0)
    before = counted()
    status, _, err = lab.run('mosrun', '--report', '-r', 'node2', '--require', PYTHON, '-c', SHARES)
    require(status == 0, err)
    require('brought home 41 times: shmat (41)\n' in err, err)
    require(counted() == before + 41, f'{before} before, {counted()} now')
    status, _, err = lab.run('mosrun', '--report', '-r', 'node2', '--require', PYTHON, '-c', BURN)
    require(status == 0 and 'brought' not in err, err)


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


# At a line, a chain of five: each forks the next and ends at once, but for the last, which answers lines.
CHAIN = '''
import os, sys
for line in sys.stdin:
    if line == 'fork\\n': break
    print(line.strip(), flush=True)
told = os.pipe()
first = os.fork()
if first == 0:
    for _ in range(4):
        if os.fork() != 0: os._exit(0)
    os.write(told[1], str(os.getpid()).encode())
    for line in iter(sys.stdin.readline, ''):
        print(line.strip(), flush=True)
    os._exit(0)
os.close(told[1])
os.waitpid(first, 0)
print('last', os.read(told[0], 100).decode(), flush=True)
os.read(told[0], 1)
'''


def chain_of_short_lives(lab):
    """The custodian hears of parents only when they have ended: their last child is a member of the family all the same."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', PYTHON, '-c', CHAIN)
    lab.until_away(pid)
    require(answers(process, 'one'), 'no answer')
    status, custodian, err = lab.run('pgrep', '-f', 'mosix-custodian')
    require(status == 0 and len(custodian.split()) == 1, f'custodian: {custodian!r} {err}')
    lab.run('kill', '-STOP', custodian.strip())
    try:
        process.stdin.write('fork\n')
        process.stdin.flush()
        word, last = process.stdout.readline().split()
        require(word == 'last', word)
    finally:
        lab.run('kill', '-CONT', custodian.strip())
    lab.until(f'{last} is on node2', lambda: lab.where(int(last)) == 'node2')
    for number in range(3):
        require(answers(process, f'line{number}'), f'no answer to line {number}')
    require(lab.where(int(last)) == 'node2', f'{last} is {lab.where(int(last))}')
    status, _, err = lab.run('migrate', last, 'node3')
    require(status == 0 and answers(process, 'moved'), f'no answer after a move: {err}')
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')
    lab.nothing_left()


# At a line, a child whose first thread ends at once; its second answers a line when that has happened.
HEADLESS = '''
import ctypes, os, sys, threading
line = sys.stdin.readline()
child = os.fork()
if child == 0:
    def go_on():
        while ') Z' not in open(f'/proc/self/task/{os.getpid()}/stat').read(): pass
        print('child', os.getpid(), flush=True)
        print(sys.stdin.readline().strip(), flush=True)
        os._exit(7)
    threading.Thread(target=go_on).start()
    ctypes.CDLL(None).syscall(60, 0)  # exit of this thread alone
print('status', os.waitpid(child, 0)[1] >> 8, flush=True)
'''


def child_without_its_first_thread(lab):
    """The custodian hears of a child when its first thread has ended: it lives all the same."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', PYTHON, '-c', HEADLESS)
    lab.until_away(pid)
    status, custodian, err = lab.run('pgrep', '-f', 'mosix-custodian')
    require(status == 0 and len(custodian.split()) == 1, f'custodian: {custodian!r} {err}')
    lab.run('kill', '-STOP', custodian.strip())
    try:
        process.stdin.write('fork\n')
        process.stdin.flush()
        word, child = process.stdout.readline().split()
        require(word == 'child', word)
    finally:
        lab.run('kill', '-CONT', custodian.strip())
    lab.until(f'{child} is on node2', lambda: lab.where(int(child)) == 'node2')
    require(answers(process, 'still there'), 'no answer from the child')
    require(process.stdout.readline().split() == ['status', '7'], 'its status')
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')
    lab.nothing_left()


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


LEADERLESS = [*COUNTER[:2], '''
import ctypes, os, sys, threading
def answer():
    for line in sys.stdin:
        print(line.strip(), sum(range(100000)))
    os._exit(7)
threading.Thread(target=answer).start()
ctypes.CDLL(None).syscall(60, 0)
''']


def without_its_first_thread(lab):
    """A process lives on when its first thread has ended, and moves on."""
    process, pid = lab.start('mosrun', '-h', *LEADERLESS)
    require(answers(process, 'at home'), 'no answer at home')
    for place in 'node2', 'node3', 'home', 'node3', 'home':
        status, _, err = lab.run('migrate', str(pid), place)
        require(status == 0 and lab.where(pid) == place, f'it does not move to {place}: {err}')
        require(answers(process, f'on {place}'), f'no answer on {place}')
    process.stdin.close()
    require(process.wait(60) == 7, f'status {process.returncode}')


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


# ---- what home sees

# In a directory and with a descriptor, a name, arguments and an environment of its own; tells its numbers, then waits.
SEEN = '''
import os, sys
os.chdir("/usr/share")
kept = os.open("/etc/hostname", os.O_RDONLY)
print(os.getpid(), os.getppid(), kept, flush=True)
for line in sys.stdin:
    print(line.strip(), os.getcwd(), sorted(os.listdir("/proc/self/fd")), flush=True)
'''


def what_home_sees(lab):
    """ps, top and /proc show the process as it is at home: its name, parent, command, descriptors, directory."""
    process, pid = lab.start('env', 'SIGN=here', 'mosrun', '-r', 'node2', '--require', PYTHON, '-c', SEEN, 'argument')
    number, parent, kept = process.stdout.readline().split()
    require(int(number) == pid and lab.where(pid) == 'node2', f'{number} {lab.where(pid)}')

    def shown(*words):
        status, out, err = lab.run(*words)
        require(status == 0, f'{words}: {err}')
        return out.strip()
    line = shown('ps', '-o', 'pid=,ppid=,stat=,comm=,nlwp=', '-p', str(pid)).split()
    require(line[:2] == [number, parent] and line[2][0] == 'S' and line[3:] == ['python3', '1'], f'ps: {line}')
    top = shown('top', '-b', '-n', '1', '-p', str(pid))
    require(re.search(rf'^ *{pid} .* S .* python3', top, re.M), f'top: {top}')
    command = shown('cat', f'/proc/{pid}/cmdline').split('\0')
    require(command[0] == PYTHON and command[1] == '-c' and command[3] == 'argument', f'cmdline: {command}')
    require(shown('readlink', f'/proc/{pid}/cwd') == '/usr/share', 'cwd')
    require(shown('readlink', f'/proc/{pid}/exe').startswith('/usr/bin/python3'), 'exe')
    require(shown('readlink', f'/proc/{pid}/fd/{kept}') == '/etc/hostname', 'a descriptor')
    require(shown('ls', f'/proc/{pid}/fd').split() == ['0', '1', '2', kept], shown('ls', '-l', f'/proc/{pid}/fd'))
    environment = shown('cat', f'/proc/{pid}/environ').split('\0')
    require('SIGN=here' in environment and 'MOSIX_NODE=node2' in environment and
            any(one.startswith('LD_PRELOAD=') and one.endswith('libmosix.so') for one in environment),
            f'environ: {environment}')
    status = shown('cat', f'/proc/{pid}/status')
    require('TracerPid:\t0' in status, 'a tracer shows')
    process.stdin.write('and\n')
    process.stdin.flush()
    require(process.stdout.readline().split()[:2] == ['and', '/usr/share'], 'the program sees another directory')
    # The guest's own view of its environment: what mosrun adds, and nothing else.
    natively = shown('env').splitlines()
    away = shown('mosrun', '-r', 'node2', '--require', 'env').splitlines()
    added = {one.split('=')[0] for one in set(away) - set(natively)}
    require(added == {'LD_PRELOAD', 'MOSIX_NODE'}, f'env: {added}')
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')


# A program that asks for what cannot be had away: as often as a line says. (Such a call fails, and leaves nothing behind.)
ASKER = (PYTHON, '-uc', """
import ctypes, sys
attach = ctypes.CDLL(None).shmat
for line in sys.stdin:
    for _ in range(int(line.split()[1])):
        attach(-1, None, 0)
    print(line.strip())
""")


def it_goes_back(lab):
    """For one call a process comes home and goes back; for call after call it stays, and says so."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *ASKER)
    lab.until_away(pid)
    require(answers(process, 'once 1'), 'no answer')
    lab.until('it has been at home', lambda: lab.why(pid)['moves'] >= 2)
    lab.until_away(pid)
    require('moved back after shmat' in lab.why(pid)['reason'], lab.why(pid)['reason'])
    require(answers(process, 'none 0') and lab.where(pid) == 'node2', 'it does not go on there')

    def asks_again():
        require(answers(process, 'again 1'), 'no answer')
        return 'left at home' in lab.why(pid)['reason']
    lab.until('it is left at home', asks_again)
    require(lab.where(pid) == 'home', lab.where(pid))
    status, _, err = lab.run('migrate', str(pid), 'node3')
    require(status == 0 and lab.where(pid) == 'node3', f'by an order it goes: {err}')
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')
    lab.nothing_left()


def computing_is_asleep_at_home(lab):
    """Its processor time is the away node's: at home it shows none, and mosps has it."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *SPINNER)
    lab.until_away(pid)

    def away_ms():
        _, out, _ = lab.run('mosps', '--json')
        return next(row['cpu_away_ms'] for row in json.loads(out) if row['pid'] == pid)
    lab.until('mosps counts its time', lambda: away_ms() > 1000)
    _, out, _ = lab.run('ps', '-o', 'stat=,cputimes=', '-p', str(pid))
    state, seconds = out.split()
    require(state[0] == 'S' and int(seconds) == 0, f'ps: {out}')
    process.kill()


def debugger_at_home(lab):
    """gdb and strace meet the deputy. The program notices nothing, and a traced process is not moved."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *COUNTER)
    lab.until_away(pid)
    require(answers(process, 'one'), 'no answer')
    status, out, err = lab.run('gdb', '-nx', '-batch', '-p', str(pid), '-ex', 'info threads')
    require(status == 0 and '* 1 ' in out, f'gdb: {status} {out} {err}')
    require(answers(process, 'two') and lab.where(pid) == 'node2', 'it has suffered from gdb')
    strace = subprocess.Popen(lab.words('node1', ['strace', '-o', '/dev/null', '-p', str(pid)]),
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lab.started.append(strace)
    require('attached' in strace.stderr.readline(), 'strace is not attached')
    require(answers(process, 'three'), 'no answer under strace')
    status, _, err = lab.run('migrate', str(pid), 'home')
    require(status == 1 and 'trace' in err, f'migrate of a traced process: {status} {err!r}')
    require(answers(process, 'four') and lab.where(pid) == 'node2', 'it has suffered from the refusal')
    strace.terminate()
    strace.wait(60)
    status, _, err = lab.run('migrate', str(pid), 'home')
    require(status == 0, f'after strace: {err!r}')
    status, out, err = lab.run('gdb', '-nx', '-batch', '-p', str(pid), '-ex', 'info threads')
    require(status == 0 and answers(process, 'five'), f'gdb at home: {out} {err}')
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 0 and answers(process, 'six'), f'away again: {err!r}')
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')
    lab.nothing_left()


MAPPER = (PYTHON, '-uc', """
import mmap, os, sys
file = os.memfd_create('shared')
os.truncate(file, 8192)
for line in sys.stdin:
    shared = mmap.mmap(file, 8192)  # others may look into it unseen: made at home
    shared[:5] = b'there'
    print(line.strip(), shared[:5].decode())
""")


def coming_home_waits_for_a_debugger(lab):
    """A call that can only be made at home is made there when the process can come, and not refused meanwhile."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *MAPPER)
    lab.until_away(pid)
    strace = subprocess.Popen(lab.words('node1', ['strace', '-o', '/dev/null', '-p', str(pid)]),
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lab.started.append(strace)
    require('attached' in strace.stderr.readline(), 'strace is not attached')
    process.stdin.write('one\n')
    process.stdin.flush()
    ready, _, _ = select.select([process.stdout, process.stderr], [], [], 8)
    require(not ready, f'it went on without its call: {ready and ready[0].readline()}')
    require(lab.where(pid) == 'node2', lab.where(pid))
    strace.terminate()
    strace.wait(60)
    require(process.stdout.readline().split() == ['one', 'there'], 'no answer after the debugger has gone')
    require(lab.where(pid) == 'home', lab.where(pid))
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')


def built(name, *commands):
    folder = tempfile.mkdtemp(prefix='mosix-outside-')
    os.chmod(folder, 0o755)
    path = os.path.join(folder, name)
    for command in commands:
        subprocess.run([word.replace('OUT', path) for word in command[:-1]], input=command[-1], text=True, check=True)
    return path


def names_that_are_cut(lab):
    """The kernel keeps 15 bytes of a program's name: here the last of them is half a letter."""
    folder = tempfile.mkdtemp(prefix='mosix-outside-')
    os.chmod(folder, 0o755)
    path = folder + '/' + 'ä' * 8
    shutil.copy('/usr/bin/env', path)
    for words in (['-h'], ['-r', 'node2', '--require']):
        status, out, err = lab.run('mosrun', *words, path, path, 'sh', '-c', f'"{path}" echo one; echo two')
        require((status, out, err) == (0, 'one\ntwo\n', ''), f'{words}: {status} {out!r} {err!r}')
    shutil.rmtree(folder)


def other_kinds_of_programs(lab):
    """i386, musl and static programs in a tree that lives away: their own output, and not a word of ours."""
    hello = '#include <stdio.h>\n#include <unistd.h>\nint main(void) { puts("KIND"); fflush(stdout); return 7; }\n'
    i386 = ('.globl _start\n_start: movl $4, %eax\nmovl $1, %ebx\nmovl $text, %ecx\nmovl $5, %edx\nint $0x80\n'
            'movl $1, %eax\nmovl $7, %ebx\nint $0x80\n.data\ntext: .ascii "i386\\n"\n')
    programs = {
        'i386': built('i386', ['as', '--32', '-o', 'OUT.o', i386], ['ld', '-m', 'elf_i386', '-o', 'OUT', 'OUT.o', '']),
        'musl': built('musl', ['musl-gcc', '-x', 'c', '-o', 'OUT', '-', hello.replace('KIND', 'musl')]),
        'muslstatic': built('muslstatic', ['musl-gcc', '-static', '-x', 'c', '-o', 'OUT', '-',
                                           hello.replace('KIND', 'muslstatic')]),
        'static': built('static', ['gcc', '-static', '-x', 'c', '-o', 'OUT', '-', hello.replace('KIND', 'static')]),
    }
    for name, path in programs.items():
        for words in (['-h'], ['-r', 'node2']):
            status, out, err = lab.run('mosrun', *words, 'sh', '-c', '"$1"; echo $?', 'sh', path)
            require((status, out, err) == (0, f'{name}\n7\n', ''), f'{name} {words}: {status} {out!r} {err!r}')
        for words in (['-h'], ['-r', 'node2']):
            status, out, err = lab.run('mosrun', *words, path)
            told = err.count('\n') if name == 'i386' and words != ['-h'] else 0
            require((status, out) == (7, f'{name}\n') and err.count('\n') == told,
                    f'{name} {words}: {status} {out!r} {err!r}')
    status, out, err = lab.run('mosrun', '-r', 'node2', programs['i386'])
    require('32-bit' in err and err.count('\n') == 1, f'what mosrun says of i386: {err!r}')
    status, out, err = lab.run('mosrun', '-r', 'node2', '--require', programs['i386'])
    require(status == 125 and out == '' and '32-bit' in err, f'--require: {status} {out!r} {err!r}')
    for path in programs.values():
        shutil.rmtree(os.path.dirname(path))
    lab.nothing_left()


# ---- mostrace, on programs that we did not write

def trace_of_a_command(lab):
    """Every line has what the program passed, what it got, who answered, and what of the time was home's."""
    status, out, err = lab.run('sh', '-c', 'mostrace -r node2 --json -o /run/trace cat /etc/hostname; echo status $?; '
                               'cat /run/trace')
    require(status == 0, err)
    head, *lines = out.splitlines()
    events = [json.loads(line) for line in lines if line.startswith('{')]
    require('status 0' in out and len(events) > 10, f'{out!r} {err!r}')
    opened = next(one for one in events if one['text'].startswith('openat(AT_FDCWD, "/etc/hostname"'))
    require(opened['number'] == 257 and opened['args'][0] & 0xffffffff == 0xffffff9c and opened['args'][1] > 4096 and
            opened['result'] >= 3 and opened['result_text'] == str(opened['result']), f'{opened}')
    for one in events:
        require(0 <= one['home_ns'] <= one['round_trip_ns'], f'{one}')
        if one['answered_by'] == 'home':
            require(one['home_ns'] > 0, f'home answered in no time: {one}')
    read = next(one for one in events if one['text'].startswith(f'read({opened["result"]}, "node1'))
    require(read['number'] == 0 and read['args'][0] == opened['result'] and read['args'][2] >= read['result'] == 6, f'{read}')


def trace_options(lab):
    script = 'cat /etc/hostname /nonexistent; /bin/true; exit 3'
    status, out, err = lab.run('sh', '-c', 'mostrace -r node2 -f -e openat -o /run/trace sh -c "$1"; echo $?; cat /run/trace',
                               'sh', script)
    name, code, *lines = out.splitlines()
    require((name, code) == ('node1', '3') and all('] openat(' in line for line in lines), f'{out}')
    require(err == "cat: /nonexistent: No such file or directory\n", f'{err}')
    require(any('"/nonexistent", O_RDONLY) = -1 ENOENT' in line for line in lines), f'no child in {err}')
    status, out, err = lab.run('mostrace', '-r', 'node2', '-e', 'openat', 'sh', '-c', script)
    require('/nonexistent", O_RDONLY' not in err, f'a child without -f: {err}')
    status, out, err = lab.run('mostrace', '-r', 'node2', '-c', 'cat', '/etc/hostname')
    require(re.search(r'^ *\d+\.\d+ .* openat$', err, re.M) and re.search(r' total$', err, re.M), f'-c: {err}')
    status, out, err = lab.run('mostrace', '-r', 'node2', '-k', '-e', 'read', 'cat', '/etc/hostname')
    require(re.search(r'^ > .*libc.*read', err, re.M), f'-k: {err}')
    status, out, err = lab.run('mostrace', '-r', 'node2', '-T', '-e', 'write', 'cat', '/etc/hostname')
    require(re.search(r'write\(1, "node1\\n", 6\) = 6 <home [0-9.]+[um]s = [0-9.]+[um]s here \+ [0-9.]+[um]s home and back>',
                      err), f'-T: {err}')


def trace_of_a_running_process(lab):
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *COUNTER)
    lab.until_away(pid)
    require(answers(process, 'one'), 'no answer')
    tracer = subprocess.Popen(lab.words('node1', ['mostrace', '-e', 'read,write', '-p', str(pid)]),
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lab.started.append(tracer)
    # It says nothing before the first call: lines are given until it has seen one. The write that ends an answer may
    # still be in progress when it begins, and is then the first that it shows.
    seen = []
    for number in range(100):
        require(answers(process, f'line{number}'), 'no answer under mostrace')
        while select.select([tracer.stderr], [], [], 0.05)[0] and (line := tracer.stderr.readline()):
            seen.append(line)
        if any(re.match(rf'\[{pid}\] (read|write)\([01], "line', line) for line in seen):
            break
    else:
        require(False, f'{seen}')
    require(all(re.match(rf'\[{pid}\] (read|write)\([01], ', line) for line in seen), f'{seen}')
    process.stdin.close()
    require(process.wait(60) == 0, f'status {process.returncode}')
    _, rest = tracer.communicate(timeout=60)
    require(tracer.returncode == 0, f'{tracer.returncode} {rest}')


CASES = [what_home_sees, what_has_brought_it_home, it_goes_back, computing_is_asleep_at_home, debugger_at_home,
         coming_home_waits_for_a_debugger, names_that_are_cut, other_kinds_of_programs, trace_of_a_command,
         trace_options, trace_of_a_running_process,
         report_of_short_programs, report_of_one_short_program, children_that_only_fork, chain_of_short_lives,
         child_without_its_first_thread, without_its_first_thread, child_that_moved, killed_child,
         own_time_of_visits]

sys.exit(run_cases(CASES))
