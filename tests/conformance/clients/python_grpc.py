"""etcd-sdk-python (gRPC) in use: python_grpc.py HOST:PORT. A step that holds says its name."""

import sys
import threading
import time

import grpc
import pyetcd

host, port = sys.argv[1].rsplit(":", 1)
etcd = pyetcd.client(host=host, port=int(port), timeout=20)


def same(came, due):
    if came != due:
        raise AssertionError(f"{came!r} came, due was {due!r}")


def keys():
    etcd.put("py/a", "1")
    value, about = etcd.get("py/a")
    same((value, about.version, about.create_revision), (b"1", 1, about.mod_revision))
    same(etcd.put("py/a", "2", prev_kv=True).prev_kv.value, b"1")
    same(etcd.put_if_not_exists("py/a", "3"), False)
    same(etcd.replace("py/a", "2", "3"), True)
    for n in range(20):
        etcd.put(f"py/r/{n:02}", str(n))
    found = [about.key for _, about in etcd.get_prefix("py/r/", sort_order="descend", limit=3)]
    same(found, [b"py/r/19", b"py/r/18", b"py/r/17"])
    same(len(list(etcd.get_range("py/r/05", "py/r/10"))), 5)
    same(etcd.get_prefix_response("py/r/", keys_only=True).count, 20)
    old = etcd.get_response("py/a", revision=about.mod_revision)
    same(old.kvs[0].value, b"1")
    same(etcd.delete_prefix("py/r/").deleted, 20)
    same(etcd.delete("py/none"), False)
    etcd.compact(about.mod_revision + 1)
    try:
        etcd.get("py/a", revision=1)
    except pyetcd.RevisionCompactedError if hasattr(pyetcd, "RevisionCompactedError") else Exception as error:
        same("compacted" in str(error) or "compacted" in type(error).__name__.lower(), True)
    else:
        raise AssertionError("a compacted revision was read")


def transactions():
    etcd.put("py/t", "1")
    compare = [etcd.transactions.value("py/t") == "1", etcd.transactions.version("py/t") > 0,
               etcd.transactions.create("py/none") == 0]
    done, answers = etcd.transaction(
        compare=compare,
        success=[etcd.transactions.put("py/t", "2"), etcd.transactions.get("py/t"),
                 etcd.transactions.txn([etcd.transactions.mod("py/t") > 1], [etcd.transactions.delete("py/u")], [])],
        failure=[etcd.transactions.get("py/t")])
    same((done, answers[1][0][0]), (True, b"2"))
    done, answers = etcd.transaction(compare=compare, success=[], failure=[etcd.transactions.get("py/t")])
    same((done, answers[0][0][0]), (False, b"2"))


def watches():
    events, cancel = etcd.watch_prefix("py/w/", prev_kv=True)

    def write():
        etcd.put("py/w/a", "1")
        etcd.put("py/w/a", "2")
        etcd.delete("py/w/a")

    writer = threading.Thread(target=write)
    writer.start()
    heard = [next(events) for _ in range(3)]
    writer.join()
    same([type(event).__name__ for event in heard], ["PutEvent", "PutEvent", "DeleteEvent"])
    same([event.prev_value for event in heard], [b"", b"1", b"2"])
    cancel()
    history, cancel = etcd.watch("py/w/a", start_revision=heard[0].mod_revision)
    same([next(history).mod_revision for _ in range(3)], [event.mod_revision for event in heard])
    cancel()


def leases():
    lease = etcd.lease(30)
    etcd.put("py/l", "1", lease=lease)
    same(lease.granted_ttl, 30)
    same(list(lease.keys), [b"py/l"])
    same(lease.remaining_ttl > 20, True)
    same(lease.refresh()[0].TTL, 30)
    lease.revoke()
    same(etcd.get("py/l")[0], None)
    same(lease.remaining_ttl, -1)
    short = etcd.lease(1)
    etcd.put("py/l", "2", lease=short)
    events, cancel = etcd.watch("py/l")
    same(type(next(events)).__name__, "DeleteEvent")
    cancel()


def locks():
    held = etcd.lock("py/lock", ttl=20)
    same(held.acquire(), True)
    wanted = etcd.lock("py/lock", ttl=20)
    same(wanted.acquire(timeout=0), False)
    freed = threading.Timer(0.2, held.release)
    freed.start()
    began = time.monotonic()
    same(wanted.acquire(timeout=15), True)
    same(time.monotonic() - began < 10, True)
    wanted.release()


def member():
    status = etcd.status()
    same(status.version.startswith("3.7."), True)
    same(len(list(etcd.members)), 1)
    same(list(etcd.list_alarms()), [])
    etcd.create_alarm()
    same([alarm.alarm_type for alarm in etcd.list_alarms()], [1])
    try:
        etcd.put("py/full", "x")
    except Exception as error:
        same("space exceeded" in str(error), True)
    else:
        raise AssertionError("written in spite of the alarm")
    etcd.disarm_alarm()
    etcd.put("py/full", "x")
    etcd.defragment()


def field(number, value):
    """A field of a protobuf message."""
    length, left = b"", len(value)
    while left >= 0x80:
        length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + value


def compression():
    """What a client compresses is read, up to what is too much; and answers are taken."""
    gzip = grpc.Compression.Gzip
    with grpc.insecure_channel(f"{host}:{port}", compression=gzip) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        put(field(1, b"py/z") + field(2, b"z" * 100_000), timeout=20)
        same(etcd.get("py/z")[0], b"z" * 100_000)
        got = channel.unary_unary("/etcdserverpb.KV/Range")(field(1, b"py/z"), timeout=20)
        same(got.count(b"z" * 100_000), 1)
        try:
            put(field(1, b"py/z") + field(2, b"z" * (3 << 20)), timeout=20)
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        else:
            raise AssertionError("3 MiB were taken")


def deadlines():
    """A call ends when its time is over."""
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        observe = channel.unary_stream("/v3electionpb.Election/Observe")
        try:
            next(observe(field(1, b"py/nobody"), timeout=0.3))
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            raise AssertionError("somebody leads")


for step in (keys, transactions, watches, leases, locks, member, compression, deadlines):
    step()
    print("ok etcd-sdk-python:", step.__name__, flush=True)
