"""etcd3gw (the JSON gateway) in use: python_gateway.py HOST:PORT. A step that holds says its name."""

import base64
import sys
import threading

import etcd3gw

host, port = sys.argv[1].rsplit(":", 1)
etcd = etcd3gw.client(host=host, port=int(port), timeout=20)


def same(came, due):
    if came != due:
        raise AssertionError(f"{came!r} came, due was {due!r}")


def keys():
    same(etcd.put("gw/a", "1"), True)
    same(etcd.get("gw/a"), [b"1"])
    [(value, about)] = etcd.get("gw/a", metadata=True)
    same((value, about["key"], about["version"]), (b"1", b"gw/a", "1"))
    same(etcd.create("gw/a", "2"), False)
    same(etcd.replace("gw/a", "1", "2"), True)
    same(etcd.replace("gw/a", "1", "3"), False)
    for n in range(5):
        etcd.put(f"gw/r/{n}", str(n))
    found = [value for value, _ in etcd.get_prefix("gw/r/", sort_order="descend", sort_target="key")]
    same(found, [b"4", b"3", b"2", b"1", b"0"])
    same(etcd.delete_prefix("gw/r/"), True)
    same(etcd.get_prefix("gw/r/"), [])
    same(etcd.delete("gw/none"), False)


def transactions():
    key = base64.b64encode(b"gw/t").decode()
    put = {"request_put": {"key": key, "value": key}}
    answer = etcd.transaction({"compare": [{"key": key, "result": "EQUAL", "target": "VERSION", "version": 0}],
                               "success": [put], "failure": []})
    same(answer["succeeded"], True)
    answer = etcd.transaction({"compare": [{"key": key, "result": "EQUAL", "target": "VALUE", "value": "AAAA"}],
                               "success": [put], "failure": [{"request_range": {"key": key}}]})
    same(answer["responses"][0]["response_range"]["kvs"][0]["value"], key)


def leases():
    lease = etcd.lease(ttl=30)
    etcd.put("gw/l", "1", lease=lease)
    same(lease.keys(), [b"gw/l"])
    same(lease.ttl() > 20, True)
    same(lease.refresh(), 30)
    same(lease.revoke(), True)
    same(etcd.get("gw/l"), [])


def watches():
    etcd.put("gw/w/a", "0")
    events, cancel = etcd.watch_prefix("gw/w/")
    told = []
    try:
        # Until the watch is there, what is written is not told.
        stop = threading.Event()

        def write():
            n = 0
            while not stop.wait(0.05):
                n += 1
                etcd.put("gw/w/a", str(n))
            etcd.delete("gw/w/a")

        writer = threading.Thread(target=write)
        writer.start()
        for event in events:
            told.append((event.get("type", "PUT"), event["kv"].get("value")))
            if len(told) == 5:
                stop.set()
            if told[-1][0] == "DELETE":
                break
        writer.join()
    finally:
        cancel()
    numbers = [int(value) for kind, value in told if kind == "PUT"]
    same(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
    same(len(numbers) >= 5, True)


def locks():
    with etcd.lock("gw/lock", ttl=20) as held:
        same(held.is_acquired(), True)
        same(etcd.lock("gw/lock", ttl=20).acquire(), False)


def member():
    same(etcd.status()["version"].startswith("3.7."), True)
    same(len(etcd.members()), 1)


for step in (keys, transactions, leases, watches, locks, member):
    step()
    print("ok etcd3gw:", step.__name__, flush=True)
