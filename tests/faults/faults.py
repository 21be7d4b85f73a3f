#!/usr/bin/env python3
"""What goes wrong from outside, end to end in a lab: the promise that survives, the message, the exit code.

  faults.py            all cases          faults.py NAME...    only these          faults.py --list

A case holds if the command gives the documented status and one clear line, if the process that may go on goes on,
and if no node has an orphan afterwards. The last line is "tally: N passed, N failed, N skipped".
"""
import json
import subprocess
import sys

from lab_cases import COUNTER, LIMIT, SPINNER, answers, require, run_cases


# ---- what a command is told

def unknown_node(lab):
    status, out, err = lab.run('mosrun', '-r', 'node9', '--require', 'echo', 'ran')
    require(status == 125 and out == '' and 'node9' in err, f'{status} {out!r} {err!r}')
    status, out, err = lab.run('mosrun', '-r', 'node9', '-F', 'echo', 'ran')
    require(status == 0 and out == 'ran\n', f'-F: {status} {out!r} {err!r}')


def unreachable_node(lab):
    lab.on_cable('cut', 'node2')
    status, out, err = lab.run('mosrun', '-r', 'node2', '--require', 'echo', 'ran')
    require(status == 125 and out == '' and 'node2' in err, f'--require: {status} {out!r} {err!r}')
    status, out, err = lab.run('mosrun', '-r', 'node2', 'echo', 'ran')
    require(status == 125 and out == '' and 'node2' in err, f'{status} {out!r} {err!r}')
    status, out, err = lab.run('mosrun', '-F', '-r', 'node2', 'echo', 'ran')
    require(status == 0 and out == 'ran\n' and 'node2' in err, f'-F: {status} {out!r} {err!r}')
    lab.on_cable('mend', 'node2')
    status, out, err = lab.run('mosrun', '-r', 'node2', '--require', 'echo', 'ran')
    require(status == 0 and out == 'ran\n', f'mended: {status} {out!r} {err!r}')


def no_daemon(lab):
    nowhere = ['env', 'MOSIX_RUN_DIR=/nowhere']
    status, out, err = lab.run(*nowhere, 'mosrun', '-r', 'node2', '--require', 'echo', 'ran')
    require(status == 125 and 'mosixd' in err, f'mosrun: {status} {out!r} {err!r}')
    status, out, err = lab.run(*nowhere, 'mosrun', '-h', 'echo', 'ran')
    require(status == 0 and out == 'ran\n', f'mosrun -h: {status} {out!r} {err!r}')
    for tool in (['mosps'], ['mosctl', 'nodes'], ['migrate', '1', 'home']):
        status, out, err = lab.run(*nowhere, *tool)
        require(status == 3 and 'mosixd' in err, f'{tool}: {status} {out!r} {err!r}')


def wrong_key(lab):
    """Whichever side asks, and whoever looks: the keys differ."""
    _, key, _ = lab.run('mosctl', 'key')
    status, _, err = lab.run('sh', '-c', 'echo "$1" >/etc/mosix/cluster.key', 'sh', key.strip(), node='node3')
    require(status == 0, err)
    lab.restart('node3')
    status, out, err = lab.run('mosrun', '-r', 'node3', 'echo', 'ran')
    require(status == 125 and out == '' and 'node3' in err and 'key' in err, f'mosrun: {status} {out!r} {err!r}')
    process, pid = lab.start('mosrun', '-h', *COUNTER)
    require(answers(process, 'one'), 'no answer at home')
    status, _, err = lab.run('migrate', str(pid), 'node3')
    require(status == 1 and 'node3' in err and 'key' in err, f'migrate: {status} {err!r}')
    require(answers(process, 'two'), 'no answer after the refusal')
    status, out, _ = lab.run('mosctl', 'check', '--json')
    finding = next(one for one in json.loads(out)['findings'] if one['feature'] == 'node node3')
    require(not finding['ok'] and 'keys differ' in finding['cure'], f'mosctl check: {finding}')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left()


# Answers each line from a child of its own.
FORKER = ['/usr/bin/python3', '-uc', '''
import os, sys
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        print(line.strip(), flush=True)
        os._exit(7)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 7:
        sys.exit(1)
''']


def full_node(lab):
    """max_guests holds for whoever comes, by whatever way: started there, moved there, executed, forked."""
    lab.restart('node2', 'max_guests = 2')
    spinner, spinning = lab.start('mosrun', '-r', 'node2', '--require', *SPINNER)
    forker, forking = lab.start('mosrun', '-r', 'node2', '--require', *FORKER)
    lab.until_away(spinning)
    lab.until_away(forking)
    require(lab.guests('node2') == 2, f'{lab.guests("node2")} guests')
    status, out, err = lab.run('mosrun', '-r', 'node2', 'echo', 'ran')
    require(status == 125 and out == '' and 'full, 2 of 2 guests' in err, f'{status} {out!r} {err!r}')
    status, out, err = lab.run('mosrun', '-F', '-r', 'node2', 'echo', 'ran')
    require(status == 0 and out == 'ran\n' and 'full, 2 of 2 guests' in err, f'-F: {status} {out!r} {err!r}')
    third, pid = lab.start('mosrun', '-h', *COUNTER)
    require(answers(third, 'one'), 'no answer at home')
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 1 and 'full, 2 of 2 guests' in err, f'migrate: {status} {err!r}')
    require(answers(third, 'two'), 'no answer after the refusal')
    # A fork is neither refused nor one too many: its parent goes home, and forks there.
    require(answers(forker, 'three'), 'no answer from a child')
    require(lab.where(forking) == 'home', f'the parent is on {lab.where(forking)}')
    require('node2 is full, 2 of 2 guests' in lab.why(forking)['reason'], f'{lab.why(forking)}')
    # There is room again.
    status, _, err = lab.run('migrate', str(forking), 'node2')
    require(status == 0, f'back: {err!r}')
    spinner.kill()
    lab.run('kill', '-9', str(spinning))
    lab.until('node2 has one guest', lambda: lab.guests('node2') == 1)
    require(answers(forker, 'four') and lab.where(forking) == 'node2', f'on {lab.where(forking)}')
    for process in (forker, third):
        process.stdin.close()
        require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left()


def full_node_and_a_family(lab):
    """Those of a family that has its supervisor there already are counted as well."""
    lab.restart('node2', 'max_guests = 1')
    script = 'read line; for i in 1 2 3; do /bin/echo $i; done; read line; echo $line'
    shell, pid = lab.start('mosrun', '-r', 'node2', 'bash', '-c', script)
    lab.until_away(pid)
    shell.stdin.write('begin\n')
    shell.stdin.flush()
    require([shell.stdout.readline() for _ in range(3)] == ['1\n', '2\n', '3\n'], 'no answer from its children')
    require(lab.where(pid) == 'home' and 'node2 is full' in lab.why(pid)['reason'], f'{lab.why(pid)}')
    out, err = shell.communicate('end\n', timeout=LIMIT)
    require((shell.returncode, out, err) == (0, 'end\n', ''), f'{shell.returncode} {out!r} {err!r}')
    lab.nothing_left()


def missing_program(lab):
    for options in (['-h'], ['-r', 'node2', '--require']):
        status, _, err = lab.run('mosrun', *options, '/no/such/program')
        require(status == 127 and '/no/such/program' in err, f'{options}: {status} {err!r}')
    status, _, err = lab.run('mosrun', '-r', 'node2', '--require', '/etc/passwd')
    require(status == 126 and '/etc/passwd' in err, f'not executable: {status} {err!r}')


def set_id_program(lab):
    """Never moved; with --require refused, without it run at home as it always runs."""
    status, out, err = lab.run('mosrun', '-r', 'node2', '--require', 'passwd', '--help')
    require(status == 125 and 'set' in err, f'{status} {out!r} {err!r}')
    status, out, err = lab.run('mosrun', '-r', 'node2', 'passwd', '--help')
    require(status == 0 and 'asswd' in out + err, f'{status} {out!r} {err!r}')


def process_that_is_gone(lab):
    status, _, err = lab.run('migrate', '4194000', 'node2')
    require(status == 4 and '4194000' in err, f'{status} {err!r}')
    status, _, err = lab.run('mosctl', 'where', '4194000')
    require(status == 4 and '4194000' in err, f'{status} {err!r}')


def process_of_another_user(lab):
    _, pid = lab.start(*SPINNER)
    status, _, err = lab.run('migrate', str(pid), 'node2', uid=65534)
    require(status == 5, f'{status} {err!r}')


def strangers_at_the_port(lab):
    """Bytes of all kinds to mosixd's port from another node; it goes on serving."""
    script = '''
import os, random, socket
generator = random.Random(5)
for attempt in range(40):
    with socket.create_connection(("10.77.0.2", 7230), 10) as s:
        s.settimeout(10)
        try:
            s.sendall(generator.randbytes(generator.choice((1, 39, 40, 41, 200, 70000))))
            if attempt % 2: s.shutdown(socket.SHUT_WR); s.recv(4096)
        except OSError:
            pass
'''
    status, _, err = lab.run('/usr/bin/python3', '-c', script, node='node3')
    require(status == 0, err)
    status, out, err = lab.run('mosrun', '-r', 'node2', '--require', 'echo', 'ran')
    require(status == 0 and out == 'ran\n', f'{status} {out!r} {err!r}')


# ---- what survives

def failed_move_leaves_it_running(lab):
    process, pid = lab.start('mosrun', '-h', *COUNTER)
    require(answers(process, 'one'), 'no answer at home')
    lab.on_cable('cut', 'node2')
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 1 and 'node2' in err, f'{status} {err!r}')
    require(answers(process, 'two'), 'no answer after the failed move')
    status, _, err = lab.run('migrate', str(pid), 'node3')
    require(status == 0, f'to node3: {err!r}')
    require(answers(process, 'three'), 'no answer from node3')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left('node3')


def away_node_dies_while_it_computes(lab):
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *SPINNER)
    lab.until_away(pid)
    lab.on_cable('kill', 'node2')
    require(process.wait(LIMIT) == 137, f'status {process.returncode} and not that of a killed process')
    lab.nothing_left('node3')


def away_node_dies_in_a_call(lab):
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *COUNTER)
    lab.until_away(pid)
    require(answers(process, 'one'), 'no answer from node2')
    lab.on_cable('kill', 'node2')  # it is in its read
    require(process.wait(LIMIT) == 137, f'status {process.returncode}')
    lab.nothing_left('node3')


def kill_at_home(lab):
    _, pid = lab.start('mosrun', '-r', 'node2', '--require', *SPINNER)
    lab.until_away(pid)
    status, _, err = lab.run('kill', '-9', str(pid))
    require(status == 0, err)
    lab.nothing_left()


def killed_at_home_frees_the_node_soon(lab):
    """kill -9 at home: the away processor is free within 100 ms, seen from the node itself."""
    watcher = """
import os, sys, time
def guests():
    found = []
    for name in os.listdir('/proc'):
        try:
            with open(f'/proc/{name}/cmdline') as file: command = file.read()
        except OSError: continue
        if name.isdigit() and command.startswith('sh\\0-c\\0while'): found.append(name)
    return found
while not guests(): time.sleep(0.01)
print('seen', flush=True)
while guests(): time.sleep(0.002)
print('gone', time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
"""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *SPINNER)
    lab.until_away(pid)
    watching = subprocess.Popen(lab.words('node2', ['/usr/bin/python3', '-c', watcher]), stdout=subprocess.PIPE, text=True)
    lab.started.append(watching)
    require(watching.stdout.readline() == 'seen\n', 'the guest is not seen on its node')
    kill = ('import os, time\nbefore = time.clock_gettime(time.CLOCK_MONOTONIC)\n'
            f'os.kill({pid}, 9)\nprint(before)')
    status, out, err = lab.run('/usr/bin/python3', '-c', kill)
    require(status == 0, err)
    word, gone = watching.stdout.readline().split()
    freed_s = float(gone) - float(out)
    require(word == 'gone' and freed_s < 0.1, f'the node was free after {1000 * freed_s:.0f} ms')
    lab.nothing_left()


def supervisor_dies(lab):
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *SPINNER)
    lab.until_away(pid)
    status, _, err = lab.run('sh', '-c', 'for p in /proc/[0-9]*; do read -r c <$p/comm && '
                             '[ "$c" = mosix-superviso ] && kill -9 ${p#/proc/}; done; :', node='node2')
    require(status == 0, err)
    require(process.wait(LIMIT) == 137, f'status {process.returncode}')
    status, out, err = lab.run('mosrun', '-r', 'node2', '--require', 'echo', 'ran')
    require(status == 0 and out == 'ran\n', f'the node serves no more: {status} {err!r}')
    lab.nothing_left()


def cut_off_while_it_computes(lab):
    """Nobody answers any more: after the silence (limits.h) home ends the process, and the node its guest."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *SPINNER)
    lab.until_away(pid)
    lab.on_cable('cut', 'node2')
    require(process.wait(LIMIT) == 137, f'status {process.returncode}')
    lab.nothing_left(limit=LIMIT)


def cut_off_in_a_call(lab):
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *COUNTER)
    lab.until_away(pid)
    require(answers(process, 'one'), 'no answer from node2')
    lab.on_cable('cut', 'node2')  # it is in its read
    require(process.wait(LIMIT) == 137, f'status {process.returncode}')
    lab.nothing_left(limit=LIMIT)


def cut_for_a_while(lab):
    """A cable that is put in again in time: nothing has happened."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *COUNTER)
    lab.until_away(pid)
    require(answers(process, 'one'), 'no answer from node2')
    lab.on_cable('cut', 'node2')
    process.stdin.write('two\n')
    process.stdin.flush()
    status, _, err = lab.run('mosrun', '-r', 'node2', 'true')  # fails when its limit is over
    require(status == 125 and 'node2' in err, f'{status} {err!r}')
    lab.on_cable('mend', 'node2')
    require(process.stdout.readline().startswith('two'), 'no answer after the cable was mended')
    require(lab.where(pid) == 'node2', f'on {lab.where(pid)}')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left()


# Holds 40 MB that no two pages of have in common, which takes some seconds over the slow links of these labs.
BIG = ['/usr/bin/python3', '-uc', '''
import random, sys
memory = random.Random(1).randbytes(40 << 20)
for line in sys.stdin:
    print(line.strip(), hash(memory) != 0)
''']


def in_mid_move(lab, pid, target, then):
    """Orders a move, waits until the target has begun to take the process in, and does `then`. migrate's outcome."""
    order = subprocess.Popen(lab.words('node1', ['migrate', str(pid), target]), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    lab.started.append(order)
    lab.until('the move is under way', lambda: lab.processes_on(target, r'mosix-init'))
    then(target)
    _, err = order.communicate(timeout=2 * LIMIT)
    return order.returncode, err


def node_dies_in_mid_move(lab):
    process, pid = lab.start('mosrun', '-h', *BIG)
    require(answers(process, 'one'), 'no answer at home')
    status, err = in_mid_move(lab, pid, 'node2', lambda node: lab.on_cable('kill', node))
    require(status == 1 and 'node2' in err, f'{status} {err!r}')
    require(answers(process, 'two') and lab.where(pid) == 'home', 'it does not go on at home')
    status, _, err = lab.run('migrate', str(pid), 'node3')
    require(status == 0, f'to node3: {err!r}')
    require(answers(process, 'three'), 'no answer from node3')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left('node3')


def node_cut_off_in_mid_move(lab):
    """The process stands still until the silence is over, and goes on at home; the node forgets what it had of it."""
    process, pid = lab.start('mosrun', '-h', *BIG)
    require(answers(process, 'one'), 'no answer at home')
    status, err = in_mid_move(lab, pid, 'node2', lambda node: lab.on_cable('cut', node))
    require(status == 1 and 'node2' in err, f'{status} {err!r}')
    require(answers(process, 'two') and lab.where(pid) == 'home', 'it does not go on at home')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left(limit=LIMIT)


def target_dies_between_away_nodes(lab):
    """From node2 to node3, which dies: it goes on on node2."""
    process, pid = lab.start('mosrun', '-h', *BIG)
    require(answers(process, 'one'), 'no answer at home')
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 0, err)
    status, err = in_mid_move(lab, pid, 'node3', lambda node: lab.on_cable('kill', node))
    require(status == 1 and 'node3' in err, f'{status} {err!r}')
    require(answers(process, 'two') and lab.where(pid) == 'node2', f'on {lab.where(pid)}')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left('node2')


for slow in (node_dies_in_mid_move, node_cut_off_in_mid_move, target_dies_between_away_nodes):
    slow.lab_options = ('--rate', '60mbit')


def home_dies(lab):
    """The home node is gone with all its processes: no guest survives elsewhere."""
    for node in ('node2', 'node3'):
        _, pid = lab.start('mosrun', '-r', node, '--require', *SPINNER)
        lab.until_away(pid, node)
    status, _, err = lab.run('sh', '-c', 'for p in /proc/[0-9]*; do read -r c <$p/comm && '
                             '[ "$c" = mosix-custodian -o "$c" = sh -a ${p#/proc/} != $$ ] && kill -9 ${p#/proc/}; done; :')
    require(status == 0, err)
    lab.nothing_left()


def daemon_ends_in_order(lab):
    """SIGTERM to an away mosixd: its guests go home and run on."""
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *COUNTER)
    lab.until_away(pid)
    require(answers(process, 'one'), 'no answer from node2')
    status, _, err = lab.run('sh', '-c', 'for p in /proc/[0-9]*; do read -r c <$p/comm && '
                             '[ "$c" = mosixd ] && kill -TERM ${p#/proc/}; done; :', node='node2')
    require(status == 0, err)
    lab.until('it is home', lambda: lab.where(pid) == 'home')
    require(answers(process, 'two'), 'no answer at home')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')


def moves_of_a_process_that_calls(lab):
    """Refusals and successes in any order, and it is still there in the end."""
    process, pid = lab.start('mosrun', '-h', *COUNTER)
    for place in ('node2', 'node9', 'node3', 'node3', 'home', 'home', 'node2', 'home'):
        lab.run('migrate', str(pid), place)
        require(answers(process, place), f'no answer after the move to {place}')
    status, out, err = lab.run('mosctl', 'why', '--json', str(pid))
    require(status == 0 and json.loads(out)['history'], f'{status} {out!r} {err!r}')
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left()


CASES = [unknown_node, unreachable_node, no_daemon, missing_program, set_id_program, process_that_is_gone,
         wrong_key, full_node, full_node_and_a_family,
         process_of_another_user, strangers_at_the_port, failed_move_leaves_it_running,
         away_node_dies_while_it_computes, away_node_dies_in_a_call, kill_at_home, killed_at_home_frees_the_node_soon,
         supervisor_dies, cut_off_while_it_computes, cut_off_in_a_call, cut_for_a_while, node_dies_in_mid_move,
         node_cut_off_in_mid_move, target_dies_between_away_nodes, home_dies,
         daemon_ends_in_order, moves_of_a_process_that_calls]

sys.exit(run_cases(CASES))
