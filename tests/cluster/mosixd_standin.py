#!/usr/bin/env python3
"""Stands in for mosix-custodian and mosix-supervisor in the tests of mosixd: speaks their side of the links
and of the connection between them, moves nothing. With --home it is a supervisor, else a custodian.

$STANDIN_DIR/mode, read at each order, makes a custodian misbehave: "die" kills itself, "quit" ends cleanly
without reading its first order, "fail" answers with an error, "hang" does not answer. What it was given is
written to $STANDIN_DIR/notes.
"""
import json
import os
import signal
import socket
import sys

FOLDER = os.environ["STANDIN_DIR"]
os.umask(0)  # stand-ins of several users write to one file of notes
ARGUMENTS = dict(zip(sys.argv[1::2], sys.argv[2::2]))


def note(**what):
    what.update(pid=os.getpid(), uid=os.getuid(), gid=os.getgid(), groups=os.getgroups(), arguments=ARGUMENTS,
                session=os.getsid(0), descriptors=sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
                features_off=os.environ.get("MOSIX_FEATURES_OFF", ""), pending=signal_mask())
    fd = os.open(os.path.join(FOLDER, "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, json.dumps(what).encode() + b"\n")
    os.close(fd)


def signal_mask():
    return sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, []))


def mode():
    try:
        with open(os.path.join(FOLDER, "mode")) as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


class Link:
    def __init__(self, fd):
        self.socket = socket.socket(fileno=fd)

    def send(self, **message):
        self.socket.send(json.dumps(message).encode())

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.socket, 65536, 1)
        return (json.loads(data) if data else None), (fds[0] if fds else None)


class Custodian:
    def __init__(self):
        self.link = Link(3)
        self.connections = {}  # node -> connection to its supervisor
        self.where = {}

    def run(self):
        if mode() == "quit":
            os.unlink(os.path.join(FOLDER, "mode"))
            sys.exit(0)
        while True:
            order, _ = self.link.receive()
            if order is None:
                sys.exit(0)
            if mode() == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if mode() == "hang":
                continue
            getattr(self, order["op"])(order)

    def reply(self, order, **fields):
        self.link.send(event="reply", id=order["id"], **fields)

    def connect(self, node):
        """The error, or None: then the supervisor there has answered over the connection."""
        if node in self.connections:
            return None
        self.link.send(event="dial", id=77, node=node, family=ARGUMENTS["--family"], program="prog")
        dialed, fd = self.link.receive()
        assert dialed["op"] == "dialed" and dialed["id"] == 77, dialed
        if not dialed["ok"]:
            assert fd is None
            return dialed
        self.connections[node] = socket.socket(fileno=fd)
        return None

    def bring(self, order, node):
        error = self.connect(node)
        if error is None and mode() == "fail":
            error = {"code": 71, "error": "the stand-in was told to fail"}
        if error is not None:
            self.reply(order, ok=False, code=error["code"], error=error["error"])
            return False
        pid = order["pid"]
        connection = self.connections[node]
        connection.sendall(b"%d\n" % pid)
        if connection.recv(100) != b"here\n":
            self.reply(order, ok=False, code=103, error="the supervisor has gone")
            return False
        return True

    def watch_exec(self, order):
        if self.bring(order, order["node"]):
            self.tell(order["pid"], "home", "waits for its exec")
            self.reply(order, ok=True, pid=order["pid"], node=order["node"], got=order)

    def migrate(self, order):
        pid, to = order["pid"], order["to"]
        before = self.where.get(pid, "home")
        if to == "home":
            for connection in self.connections.values():
                connection.sendall(b"-%d\n" % pid)
        elif not self.bring(order, to):
            return
        self.tell(pid, to, "asked for")
        self.reply(order, ok=True, pid=pid, **{"from": before}, to=to, freeze_ms=1.5, total_ms=2.5, bytes=4096)

    def tell(self, pid, where, reason):
        self.where[pid] = where
        self.link.send(event="process", pid=pid, program="prog", where=where, moves=len(self.where), reason=reason,
                       cpu_away_us=12000, calls=34)

    def trace(self, order):
        note(trace=order)
        if order["on"]:
            for pid in self.where:
                self.link.send(event="trace", pid=pid, tid=pid, text="getpid()", result_text=str(pid))

    def all_home(self, order):
        for pid in self.where:
            self.tell(pid, "home", "mosixd is ending")
        self.reply(order, ok=True)
        sys.exit(0)


def supervise():
    connection, link = socket.socket(fileno=3), Link(4)
    guests = set()
    import select
    sources = [connection, link.socket]
    while True:
        for ready in select.select(sources, [], [])[0]:
            if ready is link.socket:
                order, _ = link.receive()
                if order is None:  # mosixd was killed: guests do not notice
                    sources.remove(link.socket)
                    continue
                note(order=order)
                for pid in guests:
                    link.send(event="gone", pid=pid)
                sys.exit(0)
            data = connection.recv(4096)
            if not data:
                sys.exit(0)
            for line in data.split():
                pid = int(line)
                if pid < 0:
                    guests.discard(-pid)
                    link.send(event="gone", pid=-pid)
                else:
                    guests.add(pid)
                    link.send(event="guest", pid=pid, home=ARGUMENTS["--home"], program="prog",
                              uid=int(ARGUMENTS["--uid"]))
                    connection.sendall(b"here\n")


if "--home" in ARGUMENTS:
    note(role="supervisor")
    supervise()
else:
    note(role="custodian")
    Custodian().run()
