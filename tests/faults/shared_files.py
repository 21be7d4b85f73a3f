#!/usr/bin/env python3
"""Files that processes away have mapped shared and writable: nobody at home sees old contents.

  shared_files.py            all cases          shared_files.py NAME...    only these          shared_files.py --list
"""
import os
import subprocess
import sys

from lab_cases import LIMIT, require, run_cases

# Maps a file of three pages and a bit and closes it, but for the descriptor that Python keeps for itself. "store PAGE
# TEXT" stores, "load PAGE" prints; "child" has a child store what it is told, and ends it.
PROGRAM = ['/usr/bin/python3', '-uc', '''
import mmap, os, signal, sys
with open(sys.argv[1], 'r+b') as file:
    memory = mmap.mmap(file.fileno(), 0)
print('mapped')
def store(page, text):
    at = int(page) * 4096
    memory[at:at + len(text)] = text.encode()
for line in sys.stdin:
    words = line.split()
    answer = ''
    if words[0] == 'store':
        store(*words[1:])
    if words[0] == 'load':
        at = int(words[1]) * 4096
        answer = memory[at:at + 16].rstrip(b'\\0').decode()
    if words[0] == 'child':
        pid = os.fork()
        if pid == 0:
            store(*words[1:])
            os._exit(0)
        os.waitpid(pid, 0)
    if words[0] == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    print(words[0], answer)
''']
SIZE = 3 * 4096 + 100
PATH = f'/dev/shm/mosix-mapped-{os.getpid()}'


class Mapper:
    """The program, and its file on node1."""

    def __init__(self, lab, *mosrun, path=PATH):
        self.lab, self.path = lab, path
        self.run('head', '-c', str(SIZE), '/dev/zero', into=True)
        self.process, self.pid = lab.start('mosrun', *mosrun, *PROGRAM, path)
        require(self.process.stdout.readline() == 'mapped\n', 'it has not mapped its file')

    def run(self, *words, into=False):
        status, out, err = self.lab.run('sh', '-c', f'"$@" {">" if into else "<"} {self.path}', 'sh', *words)
        require(status == 0, err)
        return out

    def ask(self, text):
        self.process.stdin.write(text + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        require(answer and answer[0] == text.split()[0], f'{text!r} is answered by {answer!r}')
        return ' '.join(answer[1:])

    def contents(self, page):
        """As anybody reads them."""
        return self.run('dd', 'status=none', 'bs=4096', f'skip={page}', 'count=1').rstrip('\0')

    def is_on(self, node):
        where = self.lab.where(self.pid)
        require(where == node, f'it is on {where}, not on {node}')

    def end(self, *nodes):
        self.process.stdin.close()
        require(self.process.wait(LIMIT) == 0, f'status {self.process.returncode}')
        self.lab.nothing_left(*nodes)


def stays_away(lab):
    """To its end, and what it has stored is in the file then."""
    mapper = Mapper(lab, '-r', 'node2', '--require')
    mapper.ask('store 0 one')
    mapper.ask('child 1 two')
    require(mapper.ask('load 1') == 'two', "the child's store is not seen")
    mapper.ask('store 3 last')
    mapper.is_on('node2')
    history = [line['to'] for line in lab.why(mapper.pid)['history']]
    require(history == ['node2'], f'it went to {history}')
    mapper.process.stdin.close()
    require(mapper.process.wait(LIMIT) == 0, 'its status')
    for page, text in enumerate(['one', 'two', '', 'last']):
        require(mapper.contents(page) == text, f'page {page}: {mapper.contents(page)!r}')
    size = mapper.run('stat', '-Lc%s', '/proc/self/fd/0')
    require(int(size) == SIZE, f'{size} bytes')
    lab.nothing_left()


def who_reads_sees_it(lab):
    mapper = Mapper(lab, '-r', 'node2', '--require')
    mapper.ask('store 2 new')
    require(mapper.contents(2) == 'new', f'old contents: {mapper.contents(2)!r}')
    lab.until('it is home', lambda: lab.where(mapper.pid) == 'home')
    why = lab.why(mapper.pid)['history'][0]
    require('somebody opens a file' in why['reason'], why)
    mapper.run('sh', '-c', f'printf written | dd status=none conv=notrunc of={mapper.path} bs=4096 seek=1')
    require(mapper.ask('load 1') == 'written', 'what was written is not seen')
    mapper.end()


def moves_along(lab):
    mapper = Mapper(lab, '-r', 'node2', '--require')
    mapper.ask('store 0 a')
    for number, node in enumerate(['node3', 'home', 'node2', 'home', 'node3', 'node2', 'home']):
        status, _, err = lab.run('migrate', str(mapper.pid), node)
        require(status == 0, f'to {node}: {err}')
        mapper.is_on(node)
        require(mapper.ask('load 0') == 'a' * (number % 2) or number % 2 == 0, 'what it had stored')
        require(mapper.ask('load 3') == (f'at{number - 1}' if number else ''), f'on {node}: {mapper.ask("load 3")!r}')
        mapper.ask(f'store 3 at{number}')
        if node == 'home':
            require(mapper.contents(3) == f'at{number}', f'at home: {mapper.contents(3)!r}')
    mapper.end()


def killed(lab):
    for how in 'itself', 'from outside':
        mapper = Mapper(lab, '-r', 'node2', '--require')
        mapper.ask('store 1 last')
        if how == 'itself':
            mapper.process.stdin.write('kill\n')
            mapper.process.stdin.flush()
        else:
            lab.run('kill', '-KILL', str(mapper.pid))
        require(mapper.contents(1) == 'last', f'killed {how}: {mapper.contents(1)!r}')
        mapper.process.wait(LIMIT)
    lab.nothing_left()


# Its first thread ends when the second has begun, which is the program.
SECOND_THREAD = [*PROGRAM[:2], 'import ctypes, threading\ndef rest():' + PROGRAM[2].replace('\n', '\n    ') +
                 '\n    os._exit(0)\nthreading.Thread(target=rest).start()\nctypes.CDLL(None).syscall(60, 0)\n']


def without_its_first_thread(lab):
    """It shows its memory by the second one alone: what that stores is not lost, whoever looks."""
    lab.run('sh', '-c', f'head -c {SIZE} /dev/zero >{PATH}')
    process, pid = lab.start('mosrun', '-r', 'node2', '--require', *SECOND_THREAD, PATH)
    require(process.stdout.readline() == 'mapped\n', 'it has not mapped its file')
    for text in 'one', 'two', 'three':
        process.stdin.write(f'store 1 {text}\n')
        process.stdin.flush()
        require(process.stdout.readline() == 'store \n', 'no answer')
        _, out, _ = lab.run('dd', 'status=none', f'if={PATH}', 'bs=4096', 'skip=1', 'count=1')
        require(out.rstrip('\0') == text, f'{out!r} and not {text}')
        lab.until('it can leave', lambda: lab.run('migrate', str(pid), 'node2')[0] == 0)
    process.stdin.close()
    require(process.wait(LIMIT) == 0, f'status {process.returncode}')
    lab.nothing_left()


def node_dies(lab):
    """What it has stored is lost with it, as with a machine; the file can be opened all the same."""
    mapper = Mapper(lab, '-r', 'node2', '--require')
    mapper.ask('store 1 lost')
    lab.on_cable('kill', 'node2')
    require(mapper.contents(1) == '', f'{mapper.contents(1)!r}')
    lab.until('it has ended', lambda: lab.where(mapper.pid) == 'gone')
    lab.nothing_left('node3')


def others_have_it_too(lab):
    """Somebody who is not of the family: it comes home for the mapping, and cannot leave."""
    holder, _ = lab.start('sh', '-c', f'exec 3<>{PATH}; echo holds; read line')
    require(holder.stdout.readline() == 'holds\n', 'nobody holds it')
    mapper = Mapper(lab, '-r', 'node2')
    lab.until('it is home', lambda: lab.where(mapper.pid) == 'home')
    require('have open' in lab.why(mapper.pid)['history'][0]['reason'] or
            'has open' in lab.why(mapper.pid)['history'][0]['reason'], lab.why(mapper.pid))

    def refused():  # once it is not busy any more: it tries to go back
        status, _, err = lab.run('migrate', str(mapper.pid), 'node2')
        require(status == 1 and ('shared and writable' in err or 'busy' in err), f'{status} {err}')
        return 'busy' not in err
    lab.until('it is told why', refused)
    holder.stdin.close()
    holder.wait(LIMIT)
    lab.until('it can leave', lambda: lab.run('migrate', str(mapper.pid), 'node2')[0] == 0)
    mapper.ask('store 0 away')
    mapper.is_on('node2')
    mapper.end()


def as_a_user(lab):
    """The lease is the user's own right."""
    lab.run('sh', '-c', f'head -c {SIZE} /dev/zero >{PATH}; chown 65534 {PATH}')
    program = subprocess.Popen(lab.words('node1', ['mosrun', '-r', 'node2', '--require', *PROGRAM, PATH], uid=65534),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lab.started.append(program)
    require(program.stdout.readline() == 'mapped\n', 'it has not mapped its file')
    program.stdin.write('store 1 mine\n')
    program.stdin.flush()
    require(program.stdout.readline() == 'store \n', 'no answer')
    _, out, _ = lab.run('mosps')
    require('node2' in out, out)
    _, out, _ = lab.run('dd', 'status=none', f'if={PATH}', 'bs=4096', 'skip=1', 'count=1')
    require(out.rstrip('\0') == 'mine', f'{out!r}')
    program.stdin.close()
    require(program.wait(LIMIT) == 0, 'its status')
    lab.nothing_left()


if __name__ == '__main__':
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    status = run_cases([stays_away, who_reads_sees_it, moves_along, killed, without_its_first_thread, node_dies, others_have_it_too, as_a_user])
    if os.path.exists(PATH):
        os.unlink(PATH)
    sys.exit(status)
