#!/usr/bin/env python3
"""What goes wrong from outside, end to end in a lab: the promise that survives, the message, the exit code.

  faults.py            all cases          faults.py NAME...    only these          faults.py --list

A case holds if the command gives the documented status and one clear line, if the process that may go on goes on,
and if no node has an orphan afterwards. The last line is "tally: N passed, N failed, N skipped".
"""
import json
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
    require(status == 0 and out == 'ran\n' and 'node2' in err, f'{status} {out!r} {err!r}')
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
         process_of_another_user, strangers_at_the_port, failed_move_leaves_it_running,
         away_node_dies_while_it_computes, away_node_dies_in_a_call, kill_at_home, supervisor_dies,
         daemon_ends_in_order, moves_of_a_process_that_calls]

sys.exit(run_cases(CASES))
