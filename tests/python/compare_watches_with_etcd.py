#!/usr/bin/env python3
"""Watches the same random histories on etcd and on quoin, and compares what each watch is told:
its beginning, every event with its pair and the pair before, and its end.

    compare_watches_with_etcd.py --etcd PATH --quoin PATH [--seed N] [--rounds N] [--port N]

Each round sends random requests to both (as `compare_with_etcd.py` does, answers compared),
begins watches of keys, intervals and everything, from now, from the past, compacted or not, and
from the future, and sends more requests. Before and after these come one put and one delete of
each watch's first key: a watch is read until it has told of those. etcd is watched through its JSON gateway, a connection
each, quoin through `quoin_client`. How events are spread over messages is not compared, but
quoin's must not part a revision. Exits 1 at the first difference, and 2 if etcd itself stops.
"""

import argparse
import http.client
import json
import random
import sys
import tempfile

import quoin_client as q
from compare_with_etcd import (
    Requests,
    ask_etcd,
    ask_quoin,
    etcd_pair,
    quoin_pair,
    start,
    text,
    wait_for,
)


class Different(Exception):
    pass


def same(what, etcd, quoin):
    if etcd != quoin:
        raise Different(f"{what}\n etcd  {etcd}\n quoin {quoin}")


def event(deleted, pair, before):
    """A deletion's pair has a key and a revision alone, on both sides."""
    return ("delete" if deleted else "put", pair, before)


class EtcdWatch:
    """A watch through the JSON gateway: one line of the answer for each message."""

    def __init__(self, port, create):
        self.heard = []
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        filters = ["NOPUT"] * create.no_put + ["NODELETE"] * create.no_delete
        request = {
            "key": text(create.key),
            "range_end": text(create.range_end),
            "start_revision": str(create.start_revision),
            "prev_kv": create.prev_kv,
            "fragment": create.fragment,
            "filters": filters,
        }
        body = json.dumps({"create_request": request})
        self.connection.request("POST", "/v3/watch", body)
        self.answer = self.connection.getresponse()
        first = self.next()
        if not first.get("created"):
            raise Different(f"etcd does not begin with the creation: {first}")
        self.refused = first.get("cancel_reason", "") if first.get("canceled") else None
        self.revision = int(first["header"].get("revision", 0))

    def next(self):
        line = self.answer.readline()
        if not line:
            raise ConnectionError("etcd closed the watch")
        return json.loads(line)["result"]

    def told(self):
        """Events, or the end: (compact revision, reason)."""
        message = self.next()
        if message.get("canceled"):
            return (int(message.get("compact_revision", 0)), message.get("cancel_reason", ""))
        events = []
        for one in message.get("events", []):
            before = etcd_pair(one["prev_kv"]) if one.get("prev_kv") else None
            events.append(event(one.get("type") == "DELETE", etcd_pair(one["kv"]), before))
        return events

    def close(self):
        self.connection.close()


class QuoinWatch:
    """A watch through the native protocol."""

    def __init__(self, port, create):
        self.heard = []
        self.client = q.Client(f"http://127.0.0.1:{port}", timeout=60)
        self.stream = self.client.watch(create)
        header, first = self.client.told(self.stream)
        if not isinstance(first, q.WatchCreated):
            raise Different(f"quoin does not begin with the creation: {first}")
        self.refused = first.reason if first.watch_id == -1 else None
        self.revision = header.revision
        self.last = 0

    def told(self):
        _, message = self.client.told(self.stream)
        if isinstance(message, q.WatchCancelled):
            return (message.compact_revision, message.reason)
        if not isinstance(message, q.WatchEvents):
            raise Different(f"nobody asked for {message}")
        events = []
        for one in message.events:
            before = quoin_pair(one.prev_kv) if one.prev_kv else None
            events.append(event(one.deleted, quoin_pair(one.kv), before))
        if events[0][1][3] <= self.last:
            raise Different(f"revision {self.last} is parted, or told again: {message}")
        self.last = events[-1][1][3]
        return events

    def close(self):
        self.client.close()


def listen(watch, until):
    """What else there is up to a revision, and the end if there is one."""
    while not watch.heard or watch.heard[-1][1][3] < until:
        told = watch.told()
        if isinstance(told, tuple):
            return watch.heard, told
        watch.heard += told
    events = [one for one in watch.heard if one[1][3] <= until]
    watch.heard = watch.heard[len(events) :]
    return events, None


class Comparison:
    def __init__(self, seed, etcd_port, quoin_port):
        self.random = random.Random(seed)
        self.requests = Requests(seed)
        self.ports = (etcd_port, quoin_port)
        self.etcd = http.client.HTTPConnection("127.0.0.1", etcd_port, timeout=60)
        self.quoin = q.Client(f"http://127.0.0.1:{quoin_port}", timeout=60)
        self.events = 0
        self.ends = 0
        self.compared = 0

    def ask(self, request):
        expected = ask_etcd(self.etcd, request)
        same(request, expected, ask_quoin(self.quoin, request))
        revision = expected[0]
        self.requests.current = revision or self.requests.current
        if isinstance(request, q.Compact) and revision is not None:
            self.requests.compacted = request.revision
        return revision

    def create(self):
        kind = self.random.random()
        current = self.requests.current
        if kind < 0.3:
            begin = 0
        elif kind < 0.4:
            begin = current + self.random.randint(1, 4)
        elif kind < 0.45:
            begin = -1
        else:
            begin = max(1, current - self.random.randint(0, 40))
        filters = self.random.random()
        return q.WatchCreate(
            self.requests.key(),
            self.random.choice([b"", b"\0", self.requests.end()]),
            start_revision=begin,
            prev_kv=self.random.random() < 0.6,
            fragment=self.random.random() < 0.3,
            no_put=filters < 0.15,
            no_delete=filters > 0.85,
        )

    def round(self, number):
        for _ in range(self.random.randint(5, 60)):
            self.ask(self.requests.any())
        watches = []
        try:
            for _ in range(self.random.randint(1, 8)):
                create = self.create()
                etcd = EtcdWatch(self.ports[0], create)
                watches.append((create, etcd, None))
                quoin = QuoinWatch(self.ports[1], create)
                watches[-1] = (create, etcd, quoin)
                what = f"round {number}, the beginning of {create}"
                same(what, etcd.refused, quoin.refused)
                if etcd.refused is None:
                    same(what, etcd.revision, quoin.revision)
            # First the past: a compaction that comes while etcd still reads it (it begins to
            # every 100 ms) ends the watch there, and not here, where it was told long ago.
            live = [watch for watch in watches if watch[1].refused is None]
            live = [watch for watch in live if self.compare(number, *watch)]
            for _ in range(self.random.randint(0, 40)):
                self.ask(self.requests.any())
            for watch in live:
                self.compare(number, *watch)
        finally:
            for _, etcd, quoin in watches:
                etcd.close()
                if quoin:
                    quoin.close()

    def compare(self, number, create, etcd, quoin):
        key = create.key or b"\0"
        put = self.ask(q.Put(key, b"the last one"))
        delete = self.ask(q.DeleteRange(key))
        until = put if create.no_delete else delete
        # One that begins later is told when its time has come.
        while until < create.start_revision:
            put = self.ask(q.Put(key, b"later"))
            delete = self.ask(q.DeleteRange(key))
            until = put if create.no_delete else delete
        expected, found = listen(etcd, until), listen(quoin, until)
        same(f"round {number}, what is told of {create} up to {until}", expected, found)
        self.compared += 1
        self.events += len(found[0])
        self.ends += found[1] is not None
        return found[1] is None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--quoin", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--port", type=int, default=23790, help="the first of four")
    options = parser.parse_args()
    port, seed = options.port, options.seed
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        peer = f"http://127.0.0.1:{port + 1}"
        cluster = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        servers = [
            start(options.etcd, one, port, *cluster, "--unsafe-no-fsync", "--log-level", "error"),
            start(options.quoin, other, port + 2),
        ]
        try:
            wait_for(port)
            wait_for(port + 2)
            comparison = Comparison(seed, port, port + 2)
            for number in range(options.rounds):
                comparison.round(number)
        except Different as different:
            print(f"seed {seed}, {different}")
            return 1
        except (http.client.HTTPException, OSError) as error:
            stopped = [server.poll() is not None for server in servers]
            print(f"seed {seed}: {error!r}; stopped: etcd {stopped[0]}, quoin {stopped[1]}")
            return 2 if stopped[0] and not stopped[1] else 1
        finally:
            for server in servers:
                server.kill()
                server.wait()
    counts = (comparison.compared, comparison.events, comparison.ends)
    told = "{} parts of watches, {} events, {} ends".format(*counts)
    print(f"seed {seed}: {options.rounds} rounds, {told} are the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
