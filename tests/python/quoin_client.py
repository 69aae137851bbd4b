"""A client of quoin's native protocol, written from docs/PROTOCOL.md alone.

Small and blocking; Python's standard library only. It shows that the page is enough, and the
tests use it as a second opinion on the server.
"""

import socket
import struct
import zlib
from dataclasses import dataclass, field
from typing import List, Optional, Union

MAGIC = b"\x91quoin\r\n"
VERSION = 1
FRAME_HEADER = struct.Struct("<IIBB2sQ")
BODY_MAX = 1 << 30

RANGE, PUT, DELETE_RANGE, TXN, COMPACT, PING, STATUS = 1, 2, 3, 4, 5, 0x10, 0x11
ALARM = 0x12
GET, ACTIVATE, DEACTIVATE = range(3)
NO_ALARM, NO_SPACE, CORRUPT = range(3)
WATCH_CREATE, WATCH_CANCEL, WATCH_PROGRESS, WATCH_CLOSE = range(0x20, 0x24)
WATCH_CREATED, WATCH_CANCELLED, WATCH_PROGRESSED, WATCH_CLOSED, WATCH_EVENTS = range(0xA0, 0xA5)
LEASE_GRANT, LEASE_REVOKE, LEASE_KEEP_ALIVE, LEASE_TIME_TO_LIVE, LEASES = range(0x30, 0x35)
REPLY = 0x80
ERROR = 0xFF

SORT_NONE, SORT_ASCEND, SORT_DESCEND = range(3)
BY_KEY, BY_VERSION, BY_CREATE, BY_MOD, BY_VALUE = range(5)
VERSION_OF, CREATE_OF, MOD_OF, VALUE_OF, LEASE_OF = range(5)
EQUAL, GREATER, LESS, NOT_EQUAL = range(4)


class ProtocolError(Exception):
    """The server's bytes break a rule of the page."""


class Refused(Exception):
    """The server refused a request, or with id 0 the connection."""

    def __init__(self, code, message, header):
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.header = header


# ---- values


@dataclass
class Range:
    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0
    sort_order: int = SORT_NONE
    sort_target: int = BY_KEY
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False


@dataclass
class Put:
    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


@dataclass
class DeleteRange:
    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


@dataclass
class Compare:
    key: bytes
    target: int
    result: int
    operand: Union[int, bytes] = 0
    range_end: bytes = b""


@dataclass
class Txn:
    compare: List[Compare] = field(default_factory=list)
    success: list = field(default_factory=list)
    failure: list = field(default_factory=list)


@dataclass
class Compact:
    revision: int
    physical: bool = False


@dataclass
class Ping:
    pass


@dataclass
class Status:
    pass


@dataclass
class WatchCreate:
    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    watch_id: int = 0
    prev_kv: bool = False
    progress_notify: bool = False
    fragment: bool = False
    no_put: bool = False
    no_delete: bool = False


@dataclass
class WatchCancel:
    watch_id: int


@dataclass
class WatchProgress:
    pass


@dataclass
class WatchClose:
    pass


@dataclass
class LeaseGrant:
    ttl: int
    id: int = 0


@dataclass
class LeaseRevoke:
    id: int


@dataclass
class LeaseKeepAlive:
    id: int


@dataclass
class LeaseTimeToLive:
    id: int
    keys: bool = False
    limit: int = 0
    after: bytes = b""


@dataclass
class Leases:
    pass


@dataclass
class Alarm:
    action: int = GET
    member_id: int = 0
    alarm: int = NO_ALARM


@dataclass
class Header:
    cluster_id: int
    member_id: int
    revision: int
    raft_term: int


@dataclass
class Pair:
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


@dataclass
class RangeReply:
    kvs: List[Pair]
    count: int
    more: bool


@dataclass
class PutReply:
    prev_kv: Optional[Pair]


@dataclass
class DeleteRangeReply:
    deleted: int
    prev_kvs: List[Pair]


@dataclass
class TxnReply:
    succeeded: bool
    responses: list


@dataclass
class WatchCreated:
    watch_id: int
    reason: str


@dataclass
class WatchCancelled:
    watch_id: int
    compact_revision: int
    reason: str


@dataclass
class WatchProgressed:
    watch_ids: List[int]


@dataclass
class WatchClosed:
    pass


@dataclass
class Event:
    kv: Pair
    prev_kv: Optional[Pair]
    deleted: bool


@dataclass
class WatchEvents:
    events: List[Event]
    watch_ids: List[int]
    fragment: bool


@dataclass
class LeaseReply:
    """To a grant, and to a renewal."""

    id: int
    ttl: int


@dataclass
class LeaseTimeToLiveReply:
    id: int
    ttl: int
    granted_ttl: int
    keys: List[bytes]
    more: bool


@dataclass
class LeasesReply:
    ids: List[int]


@dataclass
class AlarmReply:
    """Pairs of a member's id and the kind of the alarm."""

    alarms: list


@dataclass
class Empty:
    """What a compact, revoke or ping reply holds beside its header."""


@dataclass
class StatusReply:
    version: str


@dataclass
class ErrorReply:
    code: int
    message: str


@dataclass
class Hello:
    status: int
    frame_bytes_max: int
    in_flight_max: int
    cluster_id: int
    member_id: int


# ---- writing archives


class Archive:
    """A body under construction; positions count from its start."""

    def __init__(self):
        self.out = bytearray()

    def elements(self, data):
        """Appends bytes; returns the vector that they are."""
        start = len(self.out)
        self.out += data
        return (start, len(data))

    def struct(self, *fields):
        """Appends a struct: vectors as pairs, numbers as (format, number) with a string."""
        for one in fields:
            if isinstance(one[0], str):
                self.out += struct.pack("<" + one[0], one[1])
            else:
                target, count = one
                self.out += struct.pack("<iI", target - len(self.out), count)


def bits(*flags):
    return sum(1 << at for at, flag in enumerate(flags) if flag)


def body_of(request):
    """The kind and the body of a request."""
    archive = Archive()
    if isinstance(request, Range):
        key = archive.elements(request.key)
        end = archive.elements(request.range_end)
        archive.struct(
            key,
            end,
            ("q", request.limit),
            ("q", request.revision),
            ("q", request.min_mod_revision),
            ("q", request.max_mod_revision),
            ("q", request.min_create_revision),
            ("q", request.max_create_revision),
            ("B", request.sort_order),
            ("B", request.sort_target),
            ("B", bits(request.serializable, request.keys_only, request.count_only)),
        )
        kind = RANGE
    elif isinstance(request, Put):
        key = archive.elements(request.key)
        value = archive.elements(request.value)
        options = bits(request.prev_kv, request.ignore_value, request.ignore_lease)
        archive.struct(key, value, ("q", request.lease), ("B", options))
        kind = PUT
    elif isinstance(request, DeleteRange):
        key = archive.elements(request.key)
        end = archive.elements(request.range_end)
        archive.struct(key, end, ("B", bits(request.prev_kv)))
        kind = DELETE_RANGE
    elif isinstance(request, Txn):
        compare = write_compares(archive, request.compare)
        success = write_ops(archive, request.success)
        failure = write_ops(archive, request.failure)
        archive.struct(compare, success, failure)
        kind = TXN
    elif isinstance(request, Compact):
        archive.struct(("q", request.revision), ("B", bits(request.physical)))
        kind = COMPACT
    elif isinstance(request, Ping):
        kind = PING
    elif isinstance(request, Status):
        kind = STATUS
    elif isinstance(request, WatchCreate):
        key = archive.elements(request.key)
        end = archive.elements(request.range_end)
        options = bits(
            request.prev_kv,
            request.progress_notify,
            request.fragment,
            request.no_put,
            request.no_delete,
        )
        numbers = (("q", request.start_revision), ("q", request.watch_id))
        archive.struct(key, end, *numbers, ("B", options))
        kind = WATCH_CREATE
    elif isinstance(request, WatchCancel):
        archive.struct(("q", request.watch_id))
        kind = WATCH_CANCEL
    elif isinstance(request, WatchProgress):
        kind = WATCH_PROGRESS
    elif isinstance(request, WatchClose):
        kind = WATCH_CLOSE
    elif isinstance(request, LeaseGrant):
        archive.struct(("q", request.ttl), ("q", request.id))
        kind = LEASE_GRANT
    elif isinstance(request, LeaseRevoke):
        archive.struct(("q", request.id))
        kind = LEASE_REVOKE
    elif isinstance(request, LeaseKeepAlive):
        archive.struct(("q", request.id))
        kind = LEASE_KEEP_ALIVE
    elif isinstance(request, LeaseTimeToLive):
        after = archive.elements(request.after)
        options = bits(request.keys)
        archive.struct(after, ("q", request.id), ("q", request.limit), ("B", options))
        kind = LEASE_TIME_TO_LIVE
    elif isinstance(request, Leases):
        kind = LEASES
    elif isinstance(request, Alarm):
        archive.struct(("Q", request.member_id), ("B", request.action), ("B", request.alarm))
        kind = ALARM
    else:
        raise TypeError(f"no request: {request!r}")
    return kind, bytes(archive.out)


def write_compares(archive, compares):
    vectors = []
    for compare in compares:
        value = compare.operand if compare.target == VALUE_OF else b""
        vectors.append([archive.elements(part) for part in (compare.key, compare.range_end, value)])
    start = len(archive.out)
    for compare, (key, end, value) in zip(compares, vectors):
        operand = 0 if compare.target == VALUE_OF else compare.operand
        archive.struct(
            key, end, value, ("q", operand), ("B", compare.target), ("B", compare.result)
        )
    return (start, len(compares))


def write_ops(archive, ops):
    bodies = [(kind, archive.elements(body)) for kind, body in map(body_of, ops)]
    start = len(archive.out)
    for kind, body in bodies:
        archive.struct(body, ("B", kind))
    return (start, len(ops))


def frame(kind, request_id, body):
    rest = FRAME_HEADER.pack(0, len(body), kind, 0, b"\0\0", request_id)[4:] + body
    return struct.pack("<I", zlib.crc32(rest)) + rest


def request_frame(request, request_id):
    kind, body = body_of(request)
    return frame(kind, request_id, body)


def client_preamble():
    front = MAGIC + struct.pack("<HH", VERSION, 0)
    return front + struct.pack("<I", zlib.crc32(front))


# ---- reading archives


class Reader:
    """The struct at the end of a body, read field by field. Vectors must lie back to back in the
    order in which they are read, which is the one valid arrangement."""

    def __init__(self, body, size):
        if len(body) < size:
            raise ProtocolError("the body is shorter than its struct")
        self.body = body
        self.at = len(body) - size
        self.end = len(body)
        self.next = 0

    def number(self, form):
        size = struct.calcsize("<" + form)
        (number,) = struct.unpack_from("<" + form, self.body, self.at)
        self.at += size
        return number

    def flag(self):
        number = self.number("B")
        if number > 1:
            raise ProtocolError("a flag that is neither 0 nor 1")
        return number == 1

    def vector(self, element_size):
        """Where a vector's elements lie."""
        place = self.at
        offset = self.number("i")
        count = self.number("I")
        start = place + offset
        if start < 0 or start + count * element_size > place:
            raise ProtocolError("a vector outside the body")
        return start, count

    def take(self, start, size):
        if start != self.next:
            raise ProtocolError("not the one valid arrangement")
        self.next += size
        return self.body[start : start + size]

    def bytes(self):
        start, count = self.vector(1)
        return self.take(start, count)

    def numbers(self):
        """A vector of i64."""
        start, count = self.vector(8)
        return list(struct.unpack(f"<{count}q", self.take(start, count * 8)))

    def structs(self, size, read):
        """A vector of structs, each read by `read`, which takes what it points at."""
        start, count = self.vector(size)
        back, result = self.at, []
        for index in range(count):
            self.at = start + index * size
            result.append(read(self))
        self.at = back
        self.take(start, count * size)
        return result

    def close(self):
        if self.at != self.end:
            raise ProtocolError("a struct was not read to its end")

    def closed_by(self, size):
        """The struct itself must begin where the vectors end."""
        if self.next != self.end - size:
            raise ProtocolError("bytes that belong to nothing")


def read_pair(reader):
    key, value = reader.bytes(), reader.bytes()
    return Pair(key, value, *(reader.number("q") for _ in range(4)))


def read_event(reader):
    kv = read_pair(reader)
    before = reader.structs(48, read_pair)
    if len(before) > 1:
        raise ProtocolError("more than one previous pair")
    return Event(kv, before[0] if before else None, reader.flag())


def read_op(reader):
    body = reader.bytes()
    kind = reader.number("B")
    if kind not in (RANGE | REPLY, PUT | REPLY, DELETE_RANGE | REPLY, TXN | REPLY):
        raise ProtocolError(f"no answer inside a transaction: {kind:#x}")
    _, result = read_body(kind, body, with_header=False)
    return result


RESULT_BYTES = {
    RANGE | REPLY: 17,
    PUT | REPLY: 8,
    DELETE_RANGE | REPLY: 16,
    TXN | REPLY: 9,
    COMPACT | REPLY: 0,
    PING | REPLY: 0,
    STATUS | REPLY: 8,
    WATCH_CREATED: 16,
    WATCH_CANCELLED: 24,
    WATCH_PROGRESSED: 8,
    WATCH_CLOSED: 0,
    WATCH_EVENTS: 17,
    LEASE_GRANT | REPLY: 16,
    LEASE_REVOKE | REPLY: 0,
    LEASE_KEEP_ALIVE | REPLY: 16,
    LEASE_TIME_TO_LIVE | REPLY: 33,
    LEASES | REPLY: 8,
    ALARM | REPLY: 8,
    ERROR: 10,
}


def read_body(kind, body, with_header=True):
    """The header (or None) and the result of a reply."""
    if kind not in RESULT_BYTES:
        raise ProtocolError(f"unknown kind {kind:#x}")
    size = RESULT_BYTES[kind] + (32 if with_header else 0)
    reader = Reader(body, size)
    header = None
    if with_header:
        header = Header(*(reader.number(form) for form in "QQqQ"))
    if kind == RANGE | REPLY:
        kvs = reader.structs(48, read_pair)
        result = RangeReply(kvs, reader.number("q"), reader.flag())
    elif kind == PUT | REPLY:
        kvs = reader.structs(48, read_pair)
        if len(kvs) > 1:
            raise ProtocolError("more than one previous pair")
        result = PutReply(kvs[0] if kvs else None)
    elif kind == DELETE_RANGE | REPLY:
        kvs = reader.structs(48, read_pair)
        result = DeleteRangeReply(reader.number("q"), kvs)
    elif kind == TXN | REPLY:
        responses = reader.structs(9, read_op)
        result = TxnReply(reader.flag(), responses)
    elif kind == STATUS | REPLY:
        result = StatusReply(reader.bytes().decode())
    elif kind in (LEASE_GRANT | REPLY, LEASE_KEEP_ALIVE | REPLY):
        result = LeaseReply(reader.number("q"), reader.number("q"))
    elif kind == LEASE_TIME_TO_LIVE | REPLY:
        keys = reader.structs(8, Reader.bytes)
        numbers = [reader.number("q") for _ in range(3)]
        result = LeaseTimeToLiveReply(*numbers, keys, reader.flag())
    elif kind == ALARM | REPLY:
        alarms = reader.structs(9, lambda one: (one.number("Q"), one.number("B")))
        result = AlarmReply(alarms)
    elif kind == LEASES | REPLY:
        result = LeasesReply(reader.numbers())
    elif kind == WATCH_CREATED:
        reason = reader.bytes().decode()
        result = WatchCreated(reader.number("q"), reason)
    elif kind == WATCH_CANCELLED:
        reason = reader.bytes().decode()
        result = WatchCancelled(reader.number("q"), reader.number("q"), reason)
    elif kind == WATCH_PROGRESSED:
        result = WatchProgressed(reader.numbers())
    elif kind == WATCH_CLOSED:
        result = WatchClosed()
    elif kind == WATCH_EVENTS:
        events = reader.structs(57, read_event)
        watch_ids = reader.numbers()
        result = WatchEvents(events, watch_ids, reader.flag())
    elif kind == ERROR:
        message = reader.bytes().decode()
        result = ErrorReply(reader.number("H"), message)
    else:
        result = Empty()
    reader.close()
    reader.closed_by(size)
    return header, result


def read_frame(data):
    """(kind, id, body, length of the frame) from the front of `data`; None if incomplete."""
    if len(data) < FRAME_HEADER.size:
        return None
    crc, length, kind, flags, zero, request_id = FRAME_HEADER.unpack_from(data)
    if length > BODY_MAX:
        raise ProtocolError("the frame is too long")
    total = FRAME_HEADER.size + length
    if len(data) < total:
        return None
    if zlib.crc32(data[4:total]) != crc:
        raise ProtocolError("bad checksum")
    if flags != 0 or zero != b"\0\0":
        raise ProtocolError("reserved bits are set")
    return kind, request_id, bytes(data[FRAME_HEADER.size : total]), total


def read_server_preamble(data):
    """The hello; None if incomplete."""
    if len(data) < 48:
        return None
    magic, version, status, flags, zero, frame_max, in_flight, cluster, member, zero2, crc = (
        struct.unpack("<8sHHHHIIQQII", data[:48])
    )
    if magic != MAGIC:
        raise ProtocolError("bad magic")
    if zlib.crc32(data[:44]) != crc:
        raise ProtocolError("bad checksum")
    if version != VERSION:
        raise ProtocolError(f"the server speaks version {version}")
    if flags or zero or zero2:
        raise ProtocolError("reserved bits are set")
    return Hello(status, frame_max, in_flight, cluster, member)


# ---- the client


class Client:
    """One connection. `call` sends one request and waits; `pipeline` sends many at once."""

    def __init__(self, address, timeout=10.0):
        host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = bytearray()
        self.last_id = 0
        self.socket.sendall(client_preamble())
        while (hello := read_server_preamble(self.input)) is None:
            self._receive()
        del self.input[:48]
        if hello.status != 0:
            raise ProtocolError(f"the server refuses to serve: status {hello.status}")
        self.hello = hello

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _receive(self):
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self.input += chunk

    def _reply(self):
        while (found := read_frame(self.input)) is None:
            self._receive()
        kind, request_id, body, total = found
        del self.input[:total]
        header, result = read_body(kind, body)
        if isinstance(result, ErrorReply):
            result = Refused(result.code, result.message, header)
            if request_id == 0:
                raise result
        return kind, request_id, header, result

    def pipeline(self, requests):
        """Sends all, then reads all replies: (header, result) each, in the order of the requests;
        a refused request's result is a `Refused`. In chunks that the server takes at once."""
        answers = []
        chunk = max(1, min(self.hello.in_flight_max, 256))
        for start in range(0, len(requests), chunk):
            part = requests[start : start + chunk]
            ids, out = {}, bytearray()
            for index, request in enumerate(part):
                self.last_id += 1
                kind, body = body_of(request)
                data = frame(kind, self.last_id, body)
                if len(data) > self.hello.frame_bytes_max:
                    raise ValueError("the request is longer than the server takes")
                ids[self.last_id] = (index, kind)
                out += data
            self.socket.sendall(out)
            got = [None] * len(part)
            while ids:
                kind, request_id, header, result = self._reply()
                if request_id not in ids:
                    raise ProtocolError(f"a reply to nothing: {request_id}")
                index, asked = ids.pop(request_id)
                if kind != ERROR and kind != asked | REPLY:
                    raise ProtocolError("a reply of another kind than was asked for")
                got[index] = (header, result)
            answers += got
        return answers

    def call(self, request):
        """(header, result) of one request; raises `Refused`."""
        ((header, result),) = self.pipeline([request])
        if isinstance(result, Refused):
            raise result
        return header, result

    def watch(self, *requests):
        """Opens a watch stream and asks these of it; its frames come from `told`, and while it is
        open the connection serves it alone. Returns the stream's id."""
        self.last_id += 1
        self.ask(self.last_id, *requests)
        return self.last_id

    def ask(self, stream, *requests):
        """Asks something more of a watch stream."""
        self.socket.sendall(b"".join(request_frame(request, stream) for request in requests))

    def told(self, stream):
        """The next frame of a watch stream: (header, result)."""
        _, request_id, header, result = self._reply()
        if request_id != stream:
            raise ProtocolError(f"a frame of no stream: {request_id}")
        if isinstance(result, Refused):
            raise result
        return header, result
