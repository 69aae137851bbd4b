"""Checks quoin_client.py against the golden vectors of docs/PROTOCOL.md and, if QUOIN_ADDRESS
names a running, empty server, against that.

    python3 tests/python/test_protocol.py
    QUOIN_ADDRESS=127.0.0.1:2379 python3 tests/python/test_protocol.py
"""

import os
import pathlib
import socket
import struct
import unittest
import zlib

import quoin_client as quoin
from quoin_client import (
    Alarm,
    AlarmReply,
    Compact,
    Compare,
    DeleteRange,
    DeleteRangeReply,
    Empty,
    ErrorReply,
    Event,
    Header,
    Hello,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseReply,
    LeaseRevoke,
    Leases,
    LeasesReply,
    LeaseTimeToLive,
    LeaseTimeToLiveReply,
    Pair,
    Ping,
    Put,
    PutReply,
    Range,
    RangeReply,
    Status,
    StatusReply,
    Txn,
    TxnReply,
    WatchCancel,
    WatchCancelled,
    WatchClose,
    WatchClosed,
    WatchCreate,
    WatchCreated,
    WatchEvents,
    WatchProgress,
    WatchProgressed,
)

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "PROTOCOL.md"


def vectors():
    found, name = {}, None
    for line in PAGE.read_text().splitlines():
        if line.startswith("```"):
            name = line.removeprefix("```golden ") if line.startswith("```golden ") else None
            if name:
                found[name] = b""
        elif name:
            found[name] += bytes.fromhex(line.split("#")[0])
    return found


HEADER = Header(0x0123456789ABCDEF, 0xFEDCBA9876543210, 42, 7)
PAIR = Pair(b"foo", b"bar", 2, 5, 3, 0)
RANGE_REPLY = RangeReply([PAIR], 7, True)
LEASE = 0x0102030405060708

REQUESTS = {
    "put": (1, Put(b"foo", b"bar")),
    "range": (
        2,
        Range(
            b"a",
            b"z",
            limit=10,
            revision=3,
            min_mod_revision=2,
            sort_order=quoin.SORT_DESCEND,
            sort_target=quoin.BY_MOD,
            serializable=True,
        ),
    ),
    "delete-range": (3, DeleteRange(b"a", b"b", prev_kv=True)),
    "txn": (
        4,
        Txn(
            compare=[
                Compare(b"foo", quoin.VALUE_OF, quoin.EQUAL, b"bar"),
                Compare(b"x", quoin.MOD_OF, quoin.LESS, 9, range_end=b"\0"),
            ],
            success=[Put(b"foo", b"bar")],
            failure=[Txn(success=[DeleteRange(b"foo")])],
        ),
    ),
    "compact": (5, Compact(4, physical=True)),
    "ping": (6, Ping()),
    "status": (7, Status()),
    "watch-create": (
        8,
        WatchCreate(b"a", b"b", start_revision=3, watch_id=9, prev_kv=True, fragment=True),
    ),
    "watch-cancel": (8, WatchCancel(9)),
    "watch-progress": (8, WatchProgress()),
    "watch-close": (8, WatchClose()),
    "lease-grant": (8, LeaseGrant(60)),
    "lease-revoke": (9, LeaseRevoke(LEASE)),
    "lease-keep-alive": (10, LeaseKeepAlive(LEASE)),
    "lease-time-to-live": (11, LeaseTimeToLive(LEASE, keys=True, limit=2, after=b"a")),
    "leases": (12, Leases()),
    "alarm": (13, Alarm(quoin.DEACTIVATE, 0xFEDCBA9876543210, quoin.NO_SPACE)),
}

REPLIES = {
    "put-reply": (1, PutReply(None)),
    "put-reply-with-pair": (1, PutReply(PAIR)),
    "range-reply": (2, RANGE_REPLY),
    "delete-range-reply": (3, DeleteRangeReply(1, [])),
    "txn-reply": (4, TxnReply(True, [PutReply(None), RANGE_REPLY])),
    "compact-reply": (5, Empty()),
    "ping-reply": (6, Empty()),
    "status-reply": (7, StatusReply("0.1.0")),
    "watch-created": (8, WatchCreated(9, "")),
    "watch-refused": (8, WatchCreated(-1, "mvcc: watcher range is empty")),
    "watch-cancelled": (8, WatchCancelled(9, 40, "")),
    "watch-progressed": (8, WatchProgressed([0, 9])),
    "watch-closed": (8, WatchClosed()),
    "watch-events": (
        8,
        WatchEvents(
            [
                Event(Pair(b"foo", b"bar", 40, 41, 2, 0), None, False),
                Event(Pair(b"foo", b"", 0, 42, 0, 0), Pair(b"foo", b"bar", 40, 41, 2, 0), True),
            ],
            [0, 9],
            False,
        ),
    ),
    "lease-grant-reply": (8, LeaseReply(LEASE, 60)),
    "lease-revoke-reply": (9, Empty()),
    "lease-keep-alive-reply": (10, LeaseReply(LEASE, 60)),
    "lease-time-to-live-reply": (
        11,
        LeaseTimeToLiveReply(LEASE, 45, 60, [b"foo", b"x"], False),
    ),
    "alarm-reply": (13, AlarmReply([(0xFEDCBA9876543210, quoin.NO_SPACE)])),
    "leases-reply": (12, LeasesReply([LEASE, 1])),
    "error-reply": (2, ErrorReply(9, "etcdserver: mvcc: required revision has been compacted")),
    "connection-error": (0, ErrorReply(0x8004, "bad checksum")),
}


class Vectors(unittest.TestCase):
    def setUp(self):
        self.page = vectors()

    def test_every_vector_is_used(self):
        used = {"client-preamble", "server-preamble", *REQUESTS, *REPLIES}
        self.assertEqual(set(self.page), used)

    def test_requests(self):
        for name, (request_id, request) in REQUESTS.items():
            with self.subTest(name):
                self.assertEqual(quoin.request_frame(request, request_id), self.page[name])

    def test_replies(self):
        for name, (request_id, result) in REPLIES.items():
            with self.subTest(name):
                kind, found, body, total = quoin.read_frame(self.page[name])
                self.assertEqual((found, total), (request_id, len(self.page[name])))
                self.assertEqual(quoin.read_body(kind, body), (HEADER, result))

    def test_preambles(self):
        self.assertEqual(quoin.client_preamble(), self.page["client-preamble"])
        hello = Hello(0, 2 << 20, 1024, HEADER.cluster_id, HEADER.member_id)
        self.assertEqual(quoin.read_server_preamble(self.page["server-preamble"]), hello)

    def test_the_checksum_is_the_one_described(self):
        self.assertEqual(zlib.crc32(b"123456789"), 0xCBF43926)

    def test_changed_replies_are_noticed(self):
        for name in REPLIES:
            data = self.page[name]
            for bit in range(len(data) * 8):
                changed = bytearray(data)
                changed[bit // 8] ^= 1 << bit % 8
                try:
                    found = quoin.read_frame(bytes(changed))
                except quoin.ProtocolError:
                    continue
                self.assertIsNone(found, f"{name}, bit {bit}")


ADDRESS = os.environ.get("QUOIN_ADDRESS")


@unittest.skipUnless(ADDRESS, "QUOIN_ADDRESS names no server")
class LiveServer(unittest.TestCase):
    """Keys start with `py/`, so that other clients may use the server at the same time."""

    def setUp(self):
        self.client = quoin.Client(ADDRESS)
        self.client.call(DeleteRange(b"py/", b"py0"))

    def tearDown(self):
        self.client.close()

    def refused(self, request):
        with self.assertRaises(quoin.Refused) as caught:
            self.client.call(request)
        return caught.exception.message

    def test_leases(self):
        _, granted = self.client.call(LeaseGrant(500))
        self.assertGreater(granted.id, 0)
        self.assertEqual(granted.ttl, 500)
        for key in (b"py/2", b"py/1", b"py/3"):
            self.client.call(Put(key, lease=granted.id))
        _, left = self.client.call(LeaseTimeToLive(granted.id, keys=True, limit=2))
        self.assertEqual((left.granted_ttl, left.keys), (500, [b"py/1", b"py/2"]))
        self.assertTrue(left.more and 490 <= left.ttl <= 500)
        _, kept = self.client.call(LeaseKeepAlive(granted.id))
        self.assertEqual(kept, granted)
        self.assertIn(granted.id, self.client.call(Leases())[1].ids)
        self.client.call(LeaseRevoke(granted.id))
        self.assertEqual(self.client.call(Range(b"py/", b"py0"))[1].count, 0)
        self.assertEqual(self.client.call(LeaseKeepAlive(granted.id))[1].ttl, 0)
        _, left = self.client.call(LeaseTimeToLive(granted.id))
        self.assertEqual((left.ttl, left.granted_ttl), (-1, 0))
        message = "etcdserver: requested lease not found"
        self.assertEqual(self.refused(LeaseRevoke(granted.id)), message)

    def test_watch(self):
        first, _ = self.client.call(Put(b"py/w", b"1"))
        with quoin.Client(ADDRESS) as watcher:
            past = WatchCreate(b"py/", b"py0", start_revision=first.revision, prev_kv=True)
            stream = watcher.watch(past, WatchCreate(b"py/", b"py", watch_id=7))
            self.assertEqual(watcher.told(stream)[1], WatchCreated(0, ""))
            told = [watcher.told(stream)[1] for _ in range(2)]
            self.assertIn(WatchCreated(-1, "mvcc: watcher range is empty"), told)
            (events,) = (one for one in told if isinstance(one, WatchEvents))
            pair = Pair(b"py/w", b"1", first.revision, first.revision, 1, 0)
            self.assertEqual(events, WatchEvents([Event(pair, None, False)], [0], False))
            gone, _ = self.client.call(DeleteRange(b"py/w"))
            deleted = Event(Pair(b"py/w", b"", 0, gone.revision, 0, 0), pair, True)
            header, events = watcher.told(stream)
            self.assertEqual(events, WatchEvents([deleted], [0], False))
            self.assertEqual(header.revision, gone.revision)
            watcher.ask(stream, WatchProgress())
            header, progress = watcher.told(stream)
            self.assertEqual(progress, WatchProgressed([]))
            self.assertGreaterEqual(header.revision, gone.revision)
            watcher.ask(stream, WatchCancel(5), WatchCancel(0), WatchClose())
            self.assertEqual(watcher.told(stream)[1], WatchCancelled(0, 0, ""))
            self.assertEqual(watcher.told(stream)[1], WatchClosed())

    def test_alarms(self):
        member = self.client.hello.member_id
        raised = AlarmReply([(member, quoin.NO_SPACE)])
        self.assertEqual(self.client.call(Alarm())[1], AlarmReply([]))
        activate = Alarm(quoin.ACTIVATE, member, quoin.NO_SPACE)
        self.assertEqual(self.client.call(activate)[1], raised)
        self.assertEqual(self.client.call(Alarm())[1], raised)
        message = "etcdserver: mvcc: database space exceeded"
        self.assertEqual(self.refused(Put(b"py/full")), message)
        self.client.call(DeleteRange(b"py/", b"py0"))
        deactivate = Alarm(quoin.DEACTIVATE, member, quoin.NO_SPACE)
        self.assertEqual(self.client.call(deactivate)[1], raised)
        self.assertEqual(self.client.call(deactivate)[1], AlarmReply([]))
        self.client.call(Put(b"py/room"))

    def test_put_and_range(self):
        first, plain = self.client.call(Put(b"py/a", b"1"))
        self.assertEqual(plain, PutReply(None))
        second, replaced = self.client.call(Put(b"py/a", b"2", prev_kv=True))
        self.assertEqual(second.revision, first.revision + 1)
        self.assertEqual(replaced.prev_kv.value, b"1")
        header, found = self.client.call(Range(b"py/a"))
        pair = Pair(b"py/a", b"2", first.revision, second.revision, 2, 0)
        self.assertEqual(found, RangeReply([pair], 1, False))
        self.assertEqual(header.cluster_id, self.client.hello.cluster_id)
        _, old = self.client.call(Range(b"py/a", revision=first.revision))
        self.assertEqual(old.kvs[0].value, b"1")
        self.client.call(Put(b"py/b"))
        _, part = self.client.call(Range(b"py/", b"py0", limit=1, keys_only=True))
        self.assertEqual((len(part.kvs), part.count, part.more), (1, 2, True))
        self.assertEqual(part.kvs[0].value, b"")
        _, count = self.client.call(Range(b"py/", b"py0", count_only=True))
        self.assertEqual(count, RangeReply([], 2, False))
        by_value = Range(b"py/", b"py0", sort_order=quoin.SORT_DESCEND, sort_target=quoin.BY_VALUE)
        _, sorted_ = self.client.call(by_value)
        self.assertEqual([pair.value for pair in sorted_.kvs], [b"2", b""])

    def test_delete(self):
        self.client.call(Put(b"py/a", b"1"))
        _, deleted = self.client.call(DeleteRange(b"py/a", prev_kv=True))
        self.assertEqual((deleted.deleted, deleted.prev_kvs[0].value), (1, b"1"))
        _, again = self.client.call(DeleteRange(b"py/a"))
        self.assertEqual(again, DeleteRangeReply(0, []))

    def test_txn(self):
        txn = Txn(
            compare=[Compare(b"py/t", quoin.VERSION_OF, quoin.EQUAL, 0)],
            success=[Put(b"py/t", b"new"), Range(b"py/t")],
            failure=[Txn(success=[DeleteRange(b"py/t", prev_kv=True)])],
        )
        header, first = self.client.call(txn)
        self.assertTrue(first.succeeded)
        pair = Pair(b"py/t", b"new", header.revision, header.revision, 1, 0)
        self.assertEqual(first.responses[1], RangeReply([pair], 1, False))
        _, second = self.client.call(txn)
        self.assertFalse(second.succeeded)
        (nested,) = second.responses
        self.assertEqual(nested.responses[0].prev_kvs, [pair])

    def test_compact(self):
        header, _ = self.client.call(Put(b"py/c", b"1"))
        self.client.call(Put(b"py/c", b"2"))
        self.client.call(Compact(header.revision + 1, physical=True))
        gone = "etcdserver: mvcc: required revision has been compacted"
        self.assertEqual(self.refused(Range(b"py/c", revision=header.revision)), gone)

    def test_refusals(self):
        self.assertEqual(self.refused(Put(b"")), "etcdserver: key is not provided")
        future = "etcdserver: mvcc: required revision is a future revision"
        self.assertEqual(self.refused(Range(b"py/a", revision=1 << 60)), future)
        lease = "etcdserver: requested lease not found"
        self.assertEqual(self.refused(Put(b"py/a", lease=99)), lease)
        twice = Txn(success=[Put(b"py/a"), Put(b"py/a")])
        duplicate = "etcdserver: duplicate key given in txn request"
        self.assertEqual(self.refused(twice), duplicate)

    def test_ping_status_and_a_long_pipeline(self):
        header, _ = self.client.call(Ping())
        self.assertEqual(header.member_id, self.client.hello.member_id)
        _, status = self.client.call(Status())
        self.assertRegex(status.version, r"^\d+\.\d+\.\d+")
        puts = [Put(b"py/p%04d" % number, b"x" * 100) for number in range(1000)]
        answers = self.client.pipeline(puts)
        revisions = sorted(header.revision for header, _ in answers)
        self.assertEqual(len(set(revisions)), 1000)
        _, count = self.client.call(Range(b"py/p", b"py/q", count_only=True))
        self.assertEqual(count.count, 1000)

    def test_broken_bytes_end_only_their_own_connection(self):
        frame = bytearray(quoin.request_frame(Put(b"py/evil", b"1"), 1))
        frame[-1] ^= 0x80
        self.assertEqual(self.closing_error(frame).code, 0x8004)
        rest = struct.pack("<IBB2sQ", 0x7FFFFFFF, quoin.PUT, 0, b"\0\0", 1)
        long = struct.pack("<I", zlib.crc32(rest)) + rest
        self.assertEqual(self.closing_error(long).code, 0x8005)
        self.assertEqual(self.closing_error(quoin.frame(0x7E, 1, b"")).code, 0x8006)
        self.assertEqual(self.closing_error(quoin.frame(quoin.PUT, 1, b"short")).code, 0x8009)
        kind, body = quoin.body_of(Put(b"py/evil"))
        self.assertEqual(self.closing_error(quoin.frame(kind, 1, b"\0" + body)).code, 0x800A)
        self.client.call(Ping())
        _, evil = self.client.call(Range(b"py/evil", count_only=True))
        self.assertEqual(evil.count, 0)

    def closing_error(self, data):
        """What the server says to these bytes before it closes."""
        with quoin.Client(ADDRESS) as client:
            client.socket.sendall(data)
            try:
                _, _, _, result = client._reply()
            except quoin.Refused as refused:
                result = refused
            self.assertIsInstance(result, quoin.Refused)
            # Either way of closing will do; what counts is that nothing more is served.
            try:
                self.assertEqual(client.socket.recv(1), b"")
            except ConnectionResetError:
                pass
            return result

    def test_other_protocols_get_an_answer_in_their_own_words(self):
        host, _, port = ADDRESS.removeprefix("http://").rstrip("/").rpartition(":")
        with socket.create_connection((host, int(port)), 10) as other:
            other.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            self.assertTrue(other.recv(64).startswith(b"HTTP/1.1 "))


if __name__ == "__main__":
    unittest.main()
