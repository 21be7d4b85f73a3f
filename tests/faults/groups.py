#!/usr/bin/env python3
"""Processes that share memory move as one, or stay as one.

  groups.py            all cases          groups.py NAME...    only these          groups.py --list
"""
import subprocess
import sys

from lab_cases import LIMIT, answers, require, run_cases

# A parent and two children that share a page. Each line has every child add to the sum there, and the parent prints it;
# "fork" has the last child fork another; "who" prints the children.
FAMILY = ['/usr/bin/python3', '-uc', '''
import mmap, os, signal, sys
memory = mmap.mmap(-1, 8192)
children = []
def add(to, of):
    value = int.from_bytes(memory[0:8], 'little') + 1
    memory[0:8] = value.to_bytes(8, 'little')
    os.write(of, b'.')
def child():
    come, to = os.pipe()
    of, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        for fd in to, of, *[fd for _, *fds in children for fd in fds]:
            os.close(fd)  # so that they end with their parent
        while os.read(come, 1):
            add(to, go)
        os._exit(0)
    os.close(come), os.close(go)
    children.append((pid, to, of))
child(), child()
for line in sys.stdin:
    if line == 'fork\\n':
        child()
    if line == 'who\\n':
        print('who', *[pid for pid, _, _ in children])
        continue
    for pid, to, of in children:
        os.write(to, b'.')
        if not os.read(of, 1):
            sys.exit('child %d is gone' % pid)
    print(line.strip(), int.from_bytes(memory[0:8], 'little'))
''']


def told(process, text):
    """What the program answers a line, without the line."""
    process.stdin.write(text + '\n')
    process.stdin.flush()
    answer = process.stdout.readline()
    require(answer.startswith(text), f'{text!r} is answered by {answer!r}')
    return answer[len(text):].split()


def family(lab, *mosrun):
    process, pid = lab.start('mosrun', *mosrun, *FAMILY)
    require(told(process, 'one') == ['2'], 'the first sum')
    return process, pid, [int(child) for child in told(process, 'who')]


def all_on(lab, node, pids):
    for pid in pids:
        require(lab.where(pid) == node, f'{pid} is on {lab.where(pid)}, not on {node}')


def end(lab, process, *nodes):
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left(*nodes)


def one_order_moves_all(lab):
    process, pid, children = family(lab, '-r', 'node2', '--require')
    all_on(lab, 'node2', [pid, *children])
    total = 2
    for number, (who, node) in enumerate([(children[0], 'node3'), (pid, 'home'), (children[1], 'node2'), (pid, 'node3'),
                                          (children[0], 'home'), (pid, 'node3')]):
        status, _, err = lab.run('migrate', str(who), node)
        require(status == 0, f'to {node}: {err!r}')
        all_on(lab, node, [pid, *children])
        text = 'fork' if number in (0, 1) else 'again'
        children = [int(child) for child in told(process, 'who')]
        total += len(children) + (text == 'fork')
        require(told(process, text) == [str(total)], 'the sum')
        children = [int(child) for child in told(process, 'who')]
        all_on(lab, node, [pid, *children])
    status, out, _ = lab.run('mosctl', 'why', str(children[0]))
    require(status == 0 and 'shares memory with' in out, out)
    end(lab, process)


def all_at_once(lab):
    """Orders for each of them at the same time, to different places: they do not wait for one another for ever, and in
    the end all are together."""
    process, pid, children = family(lab, '-r', 'node2', '--require')
    total = 2
    for _ in range(5):
        orders = [subprocess.Popen(lab.words('node1', ['migrate', str(who), node]), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
                  for who, node in zip([pid, *children], ['home', 'node2', 'node3'])]
        for order in orders:
            _, err = order.communicate(timeout=LIMIT)
            require(order.returncode == 0 or 'busy' in err or 'shares memory' in err, err)
        total += 2
        require(told(process, 'again') == [str(total)], 'the sum')
        all_on(lab, lab.where(pid), children)
    end(lab, process)


def one_that_stays_keeps_all(lab):
    process, pid, children = family(lab, '-h')
    lab.run('kill', '-STOP', str(children[1]))
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 1 and f'process {children[1]}' in err and 'stopped' in err, f'{status} {err!r}')
    all_on(lab, 'home', [pid, children[0]])
    lab.run('kill', '-CONT', str(children[1]))
    require(told(process, 'two') == ['4'], 'the sum')
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 0, err)
    require(told(process, 'three') == ['6'], 'the sum')
    end(lab, process)


def no_room_for_all(lab):
    lab.restart('node2', 'max_guests = 2')
    process, pid, children = family(lab, '-h')
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 1 and 'full, 2 of 2 guests' in err, f'{status} {err!r}')
    require(told(process, 'two') == ['4'], 'the sum')
    lab.until('node2 has no guest', lambda: lab.guests('node2') == 0)
    status, _, err = lab.run('migrate', str(children[0]), 'node3')
    require(status == 0, err)
    # From there to the node that has no room: all stay where they are.
    status, _, err = lab.run('migrate', str(children[0]), 'node2')
    require(status == 1 and 'full, 2 of 2 guests' in err, f'{status} {err!r}')
    require(told(process, 'three') == ['6'], 'the sum')
    all_on(lab, 'node3', [pid, *children])
    end(lab, process)


def target_dies(lab):
    """Whatever of the move has been done by then: they are together afterwards, and miss nothing."""
    process, pid, children = family(lab, '-r', 'node2', '--require')
    order = subprocess.Popen(lab.words('node1', ['migrate', str(pid), 'node3']), stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
    lab.until('the move is under way', lambda: lab.processes_on('node3', r'mosix-init') or order.poll() is not None)
    lab.on_cable('kill', 'node3')
    order.communicate(timeout=2 * LIMIT)
    if order.returncode != 0:  # otherwise it was too late
        require(told(process, 'two') == ['4'], 'the sum')
        all_on(lab, 'node2', [pid, *children])
        end(lab, process, 'node2')
    else:
        lab.until('all have ended', lambda: all(lab.where(one) == 'gone' for one in [pid, *children]))


def node_dies(lab):
    """None of them goes on from what home has kept: the others have changed the memory since."""
    process, pid, children = family(lab, '-h')
    status, _, err = lab.run('migrate', str(pid), 'node2')
    require(status == 0, err)
    require(answers(process, 'two'), 'no answer from node2')
    lab.on_cable('kill', 'node2')
    lab.until('all have ended', lambda: all(lab.where(one) == 'gone' for one in [pid, *children]))
    require(process.wait(LIMIT) != 0, 'status 0')
    lab.nothing_left('node3')


if __name__ == '__main__':
    sys.exit(run_cases([one_order_moves_all, all_at_once, one_that_stays_keeps_all, no_room_for_all, target_dies,
                        node_dies]))
