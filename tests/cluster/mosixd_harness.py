"""What the mosixd tests share: nodes on loopback addresses, each with run and settings folders of its own,
a client for the control socket, and a member of the cluster in Python.

Every node is one mosixd process with 127.0.0.N as its address; the custodian and supervisor are the stand-in
mosixd_standin.py, so that these tests are about mosixd alone. mosixd says through NOTIFY_SOCKET when it is
ready, so nothing here waits by sleeping.
"""
import hashlib
import hmac
import json
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
STAND_IN = os.path.join(HERE, "mosixd_standin.py")
# A wait that takes longer is a failure, never a pause. MOSIX_TEST_SLOWNESS=10 for sanitizers and valgrind.
SLOWNESS = int(os.environ.get("MOSIX_TEST_SLOWNESS", "1"))
LIMIT_S = 30 * SLOWNESS

KEY = "00112233445566778899aabbccddeeff" * 2
PING, PONG, GUEST_OPEN, ACCEPT, REFUSE = 1, 2, 3, 4, 5


def mosixd_path():
    return os.environ["MOSIXD"]


def free_port(addresses):
    """A port that is free on all of the addresses; below the ephemeral range, so that no client takes it."""
    for _ in range(200):
        port = random.randrange(15000, 32000)
        taken = []
        try:
            for address in addresses:
                s = socket.socket()
                taken.append(s)
                s.bind((address, port))
            return port
        except OSError:
            continue
        finally:
            for s in taken:
                s.close()
    raise RuntimeError("no free port")


class Node:
    def __init__(self, cluster, number, settings="", key=KEY, env=None, preexec=None):
        self.cluster, self.number = cluster, number
        self.name, self.address = f"node{number}", f"127.0.0.{number}"
        self.dir = os.path.join(cluster.dir, self.name)
        self.run_dir, self.etc = os.path.join(self.dir, "run"), os.path.join(self.dir, "etc")
        os.makedirs(self.etc)
        os.chmod(self.dir, 0o777)
        self.write("cluster.key", key + "\n", 0o600)
        self.write("mosix.map", f"# the test's nodes\n1 127.0.0.1 {cluster.count}\n")
        basic = f'node_name = "{self.name}"\nlisten = "{self.address}"\nport = {cluster.port}\n'
        if "allow_root_guests" not in settings:
            basic += "allow_root_guests = true\n"
        self.write("mosix.toml", basic + settings)
        self.env = dict(os.environ, MOSIX_RUN_DIR=self.run_dir, MOSIX_ETC_DIR=self.etc, MOSIX_CUSTODIAN=STAND_IN,
                        MOSIX_SUPERVISOR=STAND_IN, STANDIN_DIR=self.dir)
        self.env.pop("MOSIX_FEATURES_OFF", None)
        self.env.update(env or {})
        self.preexec = preexec
        self.process = None
        self.log_path = os.path.join(self.dir, "log")

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.etc, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def start(self):
        notify_path = os.path.join(self.dir, "notify")
        if os.path.exists(notify_path):
            os.unlink(notify_path)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(notify_path)
        os.chmod(notify_path, 0o666)
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen([mosixd_path(), "--foreground"], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=dict(self.env, NOTIFY_SOCKET=notify_path),
                                            preexec_fn=self.preexec)
        deadline = time.monotonic() + LIMIT_S
        notify.settimeout(0.05)
        while True:
            try:
                assert notify.recv(100) == b"READY=1"
                break
            except socket.timeout:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{self.name} did not start:\n{self.log()}")
        notify.close()
        return self

    def log(self):
        try:
            with open(self.log_path) as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def notes(self):
        """What the stand-ins of this node have written down."""
        try:
            with open(os.path.join(self.dir, "notes")) as f:
                return [json.loads(line) for line in f]
        except FileNotFoundError:
            return []

    def wait_log(self, text):
        wait_until(lambda: text in self.log(), f"{text!r} in the log of {self.name}", self.log)

    def connect(self):
        return Control(os.path.join(self.run_dir, "mosixd.sock"))

    def ask(self, **request):
        with self.connect() as control:
            return control.ask(**request)

    def dial(self):
        s = socket.create_connection((self.address, self.cluster.port), timeout=LIMIT_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def end(self, sig=signal.SIGTERM):
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else None
        self.process.send_signal(sig)
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end:\n{self.log()}")


def wait_until(condition, what, explain=lambda: ""):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}\n{explain()}")
        select.select([], [], [], 0.005)


class Control:
    """A tool's connection to mosixd."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)  # waits where the queue is full, which it does not with a limit
        self.socket.settimeout(LIMIT_S)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, **request):
        self.send_raw(json.dumps(request).encode() + b"\n")

    def send_raw(self, data):
        self.socket.sendall(data)

    def line(self):
        """The next line as an object, None at the end of the stream."""
        while b"\n" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, **request):
        try:
            self.send(**request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # sent away before we had asked: the answer says why
        return self.line()


class Cluster:
    """Nodes of one test; `with` ends them and removes their folders whatever happens."""

    def __init__(self, count=2):
        self.count = count
        self.dir = tempfile.mkdtemp(prefix="mosixd-test-")
        os.chmod(self.dir, 0o755)
        self.port = free_port([f"127.0.0.{n}" for n in range(1, count + 1)])
        self.nodes = {}

    def node(self, number, **options):
        self.nodes[number] = Node(self, number, **options)
        return self.nodes[number]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        problems = []
        for node in self.nodes.values():
            try:
                node.end()
            except AssertionError as error:
                problems.append(str(error))
            if kind is not None:
                sys.stderr.write(f"--- log of {node.name}\n{node.log()}")
        # Stand-ins end with their links; those that a test left without one are noted by pid.
        for node in self.nodes.values():
            for note in node.notes():
                if note.get("role") and is_stand_in(note["pid"]):
                    os.kill(note["pid"], signal.SIGKILL)
        shutil.rmtree(self.dir)
        if problems and kind is None:
            raise AssertionError("\n".join(problems))


def is_stand_in(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as f:
            return "mosixd_standin.py" in f.read()
    except OSError:
        return False


# A member of the cluster, in Python.


def greeting(version=4):
    return b"MOSIXusr" + struct.pack("<II", version, 0) + os.urandom(32)


def proof(key, role, client, server):
    text = role.ljust(16, b"\0") + client + server
    return hmac.new(bytes.fromhex(key), text, hashlib.sha256).digest()


def receive(s, count):
    data = b""
    while len(data) < count:
        try:
            more = s.recv(count - len(data))
        except ConnectionResetError:
            more = b""
        if not more:
            return None
        data += more
    return data


def prove(s, key=KEY, version=4):
    """True once both sides have proved themselves."""
    mine = greeting(version)
    s.sendall(mine)
    theirs = receive(s, 48)
    if theirs is None:
        return False
    try:
        s.sendall(proof(key, b"client", mine, theirs))
    except (BrokenPipeError, ConnectionResetError):
        return False
    answer = receive(s, 32)
    return answer is not None and answer == proof(key, b"server", mine, theirs)


def message(kind, body=b"", length=None):
    return struct.pack("<IHHQ", len(body) if length is None else length, kind, 0, 0) + body


def read_message(s):
    head = receive(s, 16)
    if head is None:
        return None
    length, kind, _, _ = struct.unpack("<IHHQ", head)
    return kind, receive(s, length)


def counted(text):
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def guest_open(family="f-1", home="node9", uid=1000, program="prog"):
    return message(GUEST_OPEN, counted(family) + counted(home) + struct.pack("<I", uid) + counted(program))


def parse_refusal(body):
    _, code, length = struct.unpack("<iiI", body[:12])
    return code, body[12:12 + length].decode()


def parse_node_name(body):
    (length,) = struct.unpack("<I", body[:4])
    return body[4:4 + length].decode()


def sleeper(**options):
    """A process to be managed, that ends when its standard input does."""
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **options)


def main():
    """TEST_FILE MOSIXD [TEST ...]: runs all tests of the file, or those named."""
    if len(sys.argv) < 2 or not os.access(sys.argv[1], os.X_OK):
        sys.exit(f"usage: {sys.argv[0]} PATH-OF-MOSIXD [TEST ...]")
    os.environ["MOSIXD"] = os.path.abspath(sys.argv[1])
    unittest.main(argv=[sys.argv[0], "-v"] + sys.argv[2:])
