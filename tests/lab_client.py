"""What tests inside a lab say to the mosixd of their node: one JSON object per line over its control socket.

Used by tests/run_matrix.py, tests/faults and bench. The socket is asked directly, and not by a tool, where a
test asks many times a second; the tools have tests of their own.
"""
import json
import os
import socket
import threading
import time


class DaemonError(Exception):
    """The daemon answered "not ok"; `code` is an errno."""

    def __init__(self, reply):
        super().__init__(reply.get('error', 'refused without a reason'))
        self.code = reply.get('code', 0)


def socket_path():
    run_dir = os.environ.get('MOSIX_RUN_DIR')
    if not run_dir:
        run_dir = '/run/mosix' if os.geteuid() == 0 else os.environ.get('XDG_RUNTIME_DIR', '') + '/mosix'
    return run_dir + '/mosixd.sock'


SLOWNESS = int(os.environ.get('MOSIX_TEST_SLOWNESS', '1'))


def ask(request, limit=60.0 * SLOWNESS):
    """The reply to one request; raises DaemonError if it is a refusal, OSError if there is no daemon."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(limit)
        connection.connect(socket_path())
        connection.sendall(json.dumps(request).encode() + b'\n')
        answer = b''
        while not answer.endswith(b'\n'):
            part = connection.recv(65536)
            if not part:
                raise OSError('mosixd closed the connection')
            answer += part
    reply = json.loads(answer)
    if not reply.get('ok'):
        raise DaemonError(reply)
    return reply


def processes():
    """Own processes that are looked after, guests of other nodes left out."""
    return [row for row in ask({'op': 'processes'})['processes'] if not row.get('foreign')]


def migrate(pid, to):
    return ask({'op': 'migrate', 'pid': pid, 'to': to})


def guests_elsewhere():
    """Number of guests on the nodes that are up, asked just now."""
    return sum(node.get('guests', 0) for node in ask({'op': 'nodes'})['nodes'] if node.get('up'))


def wait_until_quiet(limit=10.0 * SLOWNESS):
    """Waits until no process is looked after and no node has a guest. Returns what is left, as text."""
    end = time.monotonic() + limit
    while True:
        left, guests = processes(), guests_elsewhere()
        if not left and not guests:
            return ''
        if time.monotonic() > end:
            return f'{len(left)} processes are still looked after at home, {guests} guests remain: ' + \
                ', '.join(f'{row["pid"]} {row.get("program")} on {row.get("where")}' for row in left)
        time.sleep(0.02)


class Watcher(threading.Thread):
    """Looks every few milliseconds where the processes are, so that a pass at home does not count as away."""

    def __init__(self, interval=0.02):
        super().__init__(daemon=True)
        self.interval = interval
        self.seen = {}      # node -> number of sightings
        self.cpu_away = {}  # pid -> milliseconds
        self.reasons = {}   # why processes were at home -> how often seen
        self.last = []
        self.problem = ''
        self._end = threading.Event()

    def look(self):
        self.last = processes()
        for row in self.last:
            where = row.get('where', '?')
            self.seen[where] = self.seen.get(where, 0) + 1
            self.cpu_away[row['pid']] = max(self.cpu_away.get(row['pid'], 0), row.get('cpu_away_ms', 0))
            if where == 'home' and row.get('reason'):
                self.reasons[row['reason']] = self.reasons.get(row['reason'], 0) + 1

    def run(self):
        while not self._end.wait(self.interval):
            try:
                self.look()
            except (OSError, DaemonError) as error:
                self.problem = str(error)
                return

    def finish(self):
        self._end.set()
        self.join()

    @property
    def away_sightings(self):
        return sum(count for node, count in self.seen.items() if node != 'home')


class Mover(threading.Thread):
    """Moves every process that is looked after to the next place, again and again."""

    PLACES = ('node2', 'home', 'node3')

    def __init__(self, interval=0.2):
        super().__init__(daemon=True)
        self.interval = interval
        self.moved = 0
        self.refused = {}  # reason -> count
        self.next_place = {}
        self.problem = ''
        self._end = threading.Event()

    # What another kind of mover does otherwise.
    def pause(self):
        return self.interval

    def choose(self, rows):
        return rows

    def target(self, row):
        index = self.next_place.get(row['pid'], 1 if row.get('where') == 'node2' else 0)
        self.next_place[row['pid']] = index + 1
        return self.PLACES[index % len(self.PLACES)]

    def _move(self, row):
        try:
            migrate(row['pid'], self.target(row))
            self.moved += 1
        except DaemonError as error:
            if error.code != 3:  # ESRCH: it has ended meanwhile
                reason = str(error)
                self.refused[reason] = self.refused.get(reason, 0) + 1

    def run(self):
        while not self._end.wait(self.pause()):
            try:
                for row in self.choose(processes()):
                    if self._end.is_set():
                        return
                    self._move(row)
            except OSError as error:
                self.problem = str(error)
                return

    def finish(self):
        self._end.set()
        self.join()
