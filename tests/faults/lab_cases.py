"""Cases that run in a lab of three nodes of their own, so that a node that was killed disturbs nobody. Used by
tests/faults/faults.py and tests/faults/outside.py; run_cases() is the main of such a script.

A case is a function of one Lab; it raises Failure, by require(), where something is not as promised.
"""
import inspect
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

SLOWNESS = int(os.environ.get('MOSIX_TEST_SLOWNESS', '1'))
LIMIT = 60 * SLOWNESS  # seconds for any one command; a hang is a failure


class Failure(Exception):
    pass


def require(condition, text):
    if not condition:
        raise Failure(text)


class Lab:
    def __init__(self, options=()):
        self.options = options
        self.name = f'faults-{os.getpid()}'
        self.started = []
        self.logs = tempfile.mkdtemp(prefix='mosix-faults-')

    def __enter__(self):
        subprocess.run(['mosixlab', 'up', '-n', '3', '--name', self.name, '--keep-logs', self.logs, *self.options], check=True,
                       stdout=subprocess.DEVNULL, timeout=LIMIT)
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.kill()
            process.wait()
        subprocess.run(['mosixlab', 'down', '--name', self.name], check=False, stdout=subprocess.DEVNULL,
                       timeout=LIMIT)

    def words(self, node, words, uid=None):
        return ['mosixlab', 'exec', '--name', self.name, *(['--uid', str(uid)] if uid else []), node, '--', *words]

    def run(self, *words, node='node1', uid=None):
        """(exit status, output, errors) of a command on a node."""
        done = subprocess.run(self.words(node, words, uid), capture_output=True, text=True, timeout=LIMIT,
                              stdin=subprocess.DEVNULL, check=False)
        return done.returncode, done.stdout, done.stderr

    def start(self, *words):
        """A shell command in the background on node1 that prints its own pid first; (process, pid)."""
        process = subprocess.Popen(self.words('node1', ['sh', '-c', 'echo $$; exec "$@"', 'sh', *words]),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process, int(process.stdout.readline())

    def on_cable(self, verb, node):
        subprocess.run(['mosixlab', verb, '--name', self.name, node], check=True, timeout=LIMIT,
                       stdout=subprocess.DEVNULL)

    def where(self, pid):
        status, out, _ = self.run('mosctl', 'where', str(pid))
        return out.strip() if status == 0 else 'gone'

    def until(self, what, condition, limit=30 * SLOWNESS):
        end = time.monotonic() + limit
        while not condition():
            require(time.monotonic() < end, f'after {limit} s it was still not so that {what}')
            time.sleep(0.05)

    def until_away(self, pid, node='node2'):
        self.until(f'{pid} is on {node}', lambda: self.where(pid) == node)

    def processes_on(self, node, pattern):
        """Command lines on a node that match; those of zombies are empty and do not count."""
        _, out, _ = self.run('sh', '-c', 'for p in /proc/[0-9]*/cmdline; do tr "\\0" " " <$p; echo; done 2>/dev/null',
                             node=node)
        return [line for line in out.splitlines() if re.search(pattern, line) and 'tr ' not in line]

    def nothing_left(self, *nodes, limit=30):
        """No custodian at home; on the nodes that still live no supervisor, no sandbox, and so no guest."""
        self.until('no custodian is left on node1', lambda: not self.processes_on('node1', r'mosix-custodian'), limit)
        for node in nodes or ('node2', 'node3'):
            self.until(f'nobody is left on {node}',
                       lambda n=node: not self.processes_on(n, r'mosix-(supervisor|init)'), limit)

    def restart(self, node, setting=''):
        """A mosixd started afresh, with one line more in its settings."""
        status, out, err = self.run('sh', '-c', """
            echo "$1" >>/etc/mosix/mosix.toml
            read -r old </run/mosix/mosixd.pid
            program=$(readlink /proc/$old/exe)
            kill -TERM $old
            while kill -0 $old 2>/dev/null; do sleep 0.02; done
            exec $program""", 'sh', setting, node=node)
        require(status == 0, f'mosixd of {node}: {out} {err}')

    def guests(self, node):
        """How many guests the node says it has."""
        _, out, _ = self.run('mosctl', 'nodes', '--json')
        return next(row['guests'] for row in json.loads(out)['nodes'] if row['name'] == node)

    def why(self, pid):
        status, out, err = self.run('mosctl', 'why', '--json', str(pid))
        require(status == 0, err)
        return json.loads(out)


# A program that answers line by line, and one that computes for ever.
COUNTER = ['/usr/bin/python3', '-uc', '''
import sys
for line in sys.stdin:
    total = sum(range(100000))
    print(line.strip(), total)
''']
SPINNER = ['sh', '-c', 'while :; do :; done']


def answers(process, text):
    """Whether the program answers a line; it has said nothing before that was not read."""
    try:
        process.stdin.write(text + '\n')
        process.stdin.flush()
    except BrokenPipeError:
        return False
    ready, _, _ = select.select([process.stdout], [], [], LIMIT)
    return bool(ready) and process.stdout.readline().startswith(text)


def run_cases(cases):
    """SCRIPT: all cases; SCRIPT NAME...: only these; SCRIPT --list. The last line is the tally."""
    script = os.path.relpath(sys.argv[0])
    names = sys.argv[1:]
    if names == ['--list']:
        print('\n'.join(case.__name__ for case in cases))
        return 0
    unknown = set(names) - {case.__name__ for case in cases}
    if unknown:
        sys.exit(f'{script}: no case {", ".join(sorted(unknown))}')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the labs go even then
    passed = failed = 0
    for case in cases:
        if names and case.__name__ not in names:
            continue
        start = time.monotonic()
        with Lab(getattr(case, 'lab_options', ())) as lab:
            try:
                case(lab)
                passed += 1
                print(f'passed {case.__name__} {time.monotonic() - start:.1f} s', flush=True)
            except (Failure, subprocess.TimeoutExpired) as error:
                failed += 1
                line = inspect.trace()[-1].lineno
                print(f'FAILED {case.__name__} (line {line}): {error}\n  logs of the nodes: {lab.logs}\n'
                      f'  again: {script} {case.__name__}', flush=True)
            else:
                subprocess.run(['rm', '-rf', lab.logs], check=False)
    print(f'tally: {passed} passed, {failed} failed, 0 skipped')
    return 1 if failed else 0
