#!/usr/bin/env python3
"""mosixd's port, as strangers, broken members and good members meet it."""
import os
import select
import socket
import struct
import subprocess
import time
import unittest

import mosixd_harness as harness
from mosixd_harness import Cluster, guest_open, main, message, prove, read_message, sleeper, wait_until

OTHER_KEY = "ff" * 32


def closed_by_peer(s):
    """Whether the other end closes, with nothing more than a greeting said."""
    s.settimeout(harness.LIMIT_S)
    return harness.receive(s, 10_000) is None


class Strangers(unittest.TestCase):
    def test_wrong_key(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            with one.dial() as s:
                self.assertFalse(prove(s, key=OTHER_KEY))
            one.wait_log("refused: the peer has another cluster key")
            with one.dial() as s:
                self.assertTrue(prove(s))

    def test_node_with_another_key_is_named(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2, key=OTHER_KEY).start()
            answer = one.ask(op="migrate", pid=cat.pid, to="node2")
            self.assertEqual(answer["code"], 13)
            self.assertIn("the peer has another cluster key", answer["error"])
            self.assertIn("both nodes need the same key file", answer["error"])
            row = one.ask(op="nodes")["nodes"][1]
            self.assertFalse(row["up"])
            self.assertIn("another cluster key", row["error"])
            cat.stdin.close()

    def test_garbage(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            for garbage in (b"GET / HTTP/1.0\r\nHost: localhost\r\nAccept: */*\r\n\r\n", os.urandom(100), b"\0" * 48,
                            b"MOSIXusr" + b"\xff" * 4000):
                with one.dial() as s:
                    s.sendall(garbage)
                    self.assertTrue(closed_by_peer(s))
            one.wait_log("the peer is not a mosixd")
            one.wait_log("the peer speaks protocol version 4294967295, we speak 4")
            with one.dial() as s:  # short, and gone
                s.sendall(b"MOSIX")
                s.shutdown(socket.SHUT_WR)
                self.assertTrue(closed_by_peer(s))
            self.assertTrue(one.ask(op="status")["ok"])

    def test_other_version(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            with one.dial() as s:
                self.assertFalse(prove(s, version=7))
            one.wait_log("the peer speaks protocol version 7, we speak 4")

    def test_silent_strangers_block_nobody(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            # More than the table holds, so that the oldest must go too, and some that stop half-way.
            silent = [one.dial() for _ in range(300)]
            for s in silent[280:]:
                s.sendall(b"MOSIXusr")
            begin = time.monotonic()
            with one.dial() as s:
                self.assertTrue(prove(s))
                s.sendall(message(harness.PING))
                kind, body = read_message(s)
                self.assertEqual((kind, harness.parse_node_name(body)), (harness.PONG, "node1"))
            self.assertLess(time.monotonic() - begin, 2 * harness.SLOWNESS)
            self.assertTrue(one.ask(op="status")["ok"])
            begin = time.monotonic()
            for s in silent:  # each is cut off at its deadline, none stays
                self.assertTrue(closed_by_peer(s))
                s.close()
            self.assertLess(time.monotonic() - begin, 10 * harness.SLOWNESS)
            self.assertIn("said nothing", one.log())
            self.assertLess(one.log().count("said nothing"), 40)  # the log is not flooded

    def test_strangers_who_only_greet_block_nobody(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            strangers = [one.dial() for _ in range(200)]
            for s in strangers:
                s.sendall(harness.greeting())
            for _ in range(20):
                begin = time.monotonic()
                with one.dial() as s:
                    self.assertTrue(prove(s))
                    s.sendall(message(harness.PING))
                    self.assertEqual(read_message(s)[0], harness.PONG)
                self.assertLess(time.monotonic() - begin, 2 * harness.SLOWNESS)
            for s in strangers:
                s.settimeout(harness.LIMIT_S)
                harness.receive(s, 48)  # the node's own greeting, where its turn came
                self.assertTrue(closed_by_peer(s))
                s.close()

    def test_one_byte_at_a_time_has_a_deadline(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            with one.dial() as s:
                s.sendall(harness.greeting())
                self.assertIsNotNone(harness.receive(s, 48))
                begin, sent = time.monotonic(), 0
                while sent < 31:  # of a proof that would have 32; each byte restarts a limit on silence
                    if select.select([s], [], [], 0.5)[0]:
                        break
                    try:
                        s.sendall(b"x")
                    except (BrokenPipeError, ConnectionResetError):
                        break
                    sent += 1
                self.assertLess(time.monotonic() - begin, 8 * harness.SLOWNESS)
            one.wait_log("took too long to prove itself")

    def test_descriptors_are_given_back(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            count = lambda: len(os.listdir(f"/proc/{one.process.pid}/fd"))
            with one.dial() as s:
                prove(s)
            wait_until(lambda: count() <= 12, "the first connection to be closed")
            before = count()
            for i in range(50):
                with one.dial() as s:
                    if i % 3 == 0:
                        s.sendall(os.urandom(64))
                    elif i % 3 == 1:
                        prove(s, key=OTHER_KEY)
                    else:
                        prove(s)
                        s.sendall(message(harness.PING))
                        read_message(s)
                with one.connect() as control:
                    control.send(op="nodes")
            wait_until(lambda: count() <= before, "descriptors to be given back", lambda: str(count()))


class Members(unittest.TestCase):
    def proven(self, node):
        s = node.dial()
        s.settimeout(harness.LIMIT_S)
        self.assertTrue(prove(s))
        return s

    def test_bad_messages(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            # Over-long by its header: refused without waiting for, or reserving, what it announces.
            for length in (0xffffffff, (2 << 20) + 1):
                with self.proven(one) as s:
                    s.sendall(message(harness.PING, length=length))
                    self.assertTrue(closed_by_peer(s))
            one.wait_log("refused: control message header")
            with self.proven(one) as s:
                s.sendall(message(4711, b"hello"))
                self.assertTrue(closed_by_peer(s))
            one.wait_log("sends message 4711 where a request belongs")
            # Encrypted, of which this version knows nothing.
            with self.proven(one) as s:
                s.sendall(struct.pack("<IHHQ", 0, harness.PING, 3, 0))
                self.assertTrue(closed_by_peer(s))
            for body in (b"", b"\xff\xff\xff\xff", b"\x04\0\0\0ab", harness.counted("f") * 2 + b"\0" * 4,
                         guest_open()[16:] + b"left over"):
                with self.proven(one) as s:
                    s.sendall(message(harness.GUEST_OPEN, body))
                    self.assertTrue(closed_by_peer(s))
            one.wait_log("asks to open a family: message is garbled")
            with self.proven(one) as s:  # cut off in the middle
                s.sendall(message(harness.GUEST_OPEN, b"abc", length=1000))
                s.shutdown(socket.SHUT_WR)
                self.assertTrue(closed_by_peer(s))
            self.assertEqual(one.ask(op="status")["guests"], 0)
            self.assertEqual(one.notes(), [])

    def refused(self, node, **open_fields):
        with self.proven(node) as s:
            s.sendall(guest_open(**open_fields))
            kind, body = read_message(s)
            self.assertEqual(kind, harness.REFUSE)
            return harness.parse_refusal(body)

    def test_names_are_plain(self):
        with Cluster(2) as cluster:
            one = cluster.node(1).start()
            for fields in ({"family": ""}, {"family": "a\nb"}, {"family": "x" * 129}, {"family": "../up"},
                           {"home": "a b"}, {"home": ""}):
                code, reason = self.refused(one, **fields)
                self.assertEqual(code, 22)
                self.assertIn("not plain", reason)

    def test_full_node(self):
        with Cluster(2) as cluster, sleeper() as cat:
            one, two = cluster.node(1).start(), cluster.node(2, settings="max_guests = 1\n").start()
            with self.proven(two) as first:
                first.sendall(guest_open())
                self.assertEqual(read_message(first)[0], harness.ACCEPT)
                code, reason = self.refused(two)
                self.assertEqual(code, 16)
                self.assertIn("full, 1 of 1 guests (max_guests", reason)
                answer = one.ask(op="migrate", pid=cat.pid, to="node2")
                self.assertEqual(answer["code"], 16)
                self.assertIn("node2 refuses: full", answer["error"])
            # The first has gone with its connection: there is room again.
            wait_until(lambda: two.ask(op="status")["guests"] == 0, "room")
            self.assertTrue(one.ask(op="migrate", pid=cat.pid, to="node2")["ok"])
            cat.stdin.close()

    def test_no_guests_at_all(self):
        with Cluster(2) as cluster:
            two = cluster.node(2, settings="max_guests = 0\n").start()
            self.assertEqual(self.refused(two)[0], 16)

    def test_root_guest(self):
        with Cluster(2) as cluster:
            two = cluster.node(2, settings="allow_root_guests = false\n").start()
            code, reason = self.refused(two, uid=0)
            self.assertEqual(code, 1)
            self.assertIn("allow_root_guests", reason)
            with self.proven(two) as s:
                s.sendall(guest_open(uid=1000))
                self.assertEqual(read_message(s)[0], harness.ACCEPT)

    def test_no_supervisor_there(self):
        with Cluster(2) as cluster:
            two = cluster.node(2, env={"MOSIX_SUPERVISOR": "/nonexistent/supervisor"}).start()
            code, reason = self.refused(two)
            self.assertEqual(code, 2)
            self.assertIn("/nonexistent/supervisor", reason)

    def test_what_follows_the_request_is_the_supervisors(self):
        with Cluster(2) as cluster:
            two = cluster.node(2).start()
            pid = 4194303  # the highest there can be: no process of this machine has it as a rule
            with self.proven(two) as s:
                s.sendall(guest_open(uid=1000) + f"{pid}\n".encode())  # at once, before the answer
                kind, body = read_message(s)
                self.assertEqual((kind, harness.parse_node_name(body)), (harness.ACCEPT, "node2"))
                self.assertEqual(harness.receive(s, 5), b"here\n")
                self.assertEqual([r["pid"] for r in two.ask(op="processes")["processes"]], [pid])
                self.assertEqual(two.ask(op="where", pid=pid)["home"], "node9")
            wait_until(lambda: two.ask(op="processes")["processes"] == [], "the guest to have gone")

    def test_many_at_once(self):
        with Cluster(2) as cluster:
            two = cluster.node(2).start()
            # Fewer than the places for proofs: each of these is held half-way until the last has come so far.
            connections = [two.dial() for _ in range(80)]
            for s in connections:
                s.settimeout(harness.LIMIT_S)
                self.assertTrue(prove(s))
            for s in connections:
                s.sendall(message(harness.PING))
            for s in connections:
                self.assertEqual(read_message(s)[0], harness.PONG)
                s.close()


main()
