#!/usr/bin/env python3
"""Sends the same random requests to etcd and to quoin, and compares every answer field by field:
pairs, counts, revisions, errors with their texts.

    compare_with_etcd.py --etcd PATH --quoin PATH [--seed N] [--requests N] [--port N]

etcd is asked through its JSON gateway, quoin through `quoin_client`. Both start empty on local
ports. Exits 1 at the first answers that differ, and 2 if etcd itself stops, which its release
3.7.3 does in some of these runs ("range failed to find revision pair"): after a transaction that
puts a key and deletes it again, and a compaction. The seed repeats the run.

What etcd leaves open is not compared: which of equally ranked pairs comes first, and so which
of them a limit lets through. Transactions that make etcd itself stop are not sent: those that
keep the value of a key they have deleted.
"""

import argparse
import base64
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import time

import quoin_client as q

KEYS = [b"a", b"aa", b"ab", b"b", b"ba", b"c", b"c\0", b"\xff", b"\0"]
ENDS = [b"", b"", b"\0", b"a", b"ab", b"b", b"c", b"d", b"\xff\xff"]
LEASES = [1, 2, 3, -1]
VALUES = [b"", b"x", b"y", b"yy", b"z"]
ORDERS = ["NONE", "ASCEND", "DESCEND"]
# By the numbers of `quoin_client`: etcd's name, and the field of a pair.
SORT_TARGETS = [("KEY", 0), ("VERSION", 4), ("CREATE", 2), ("MOD", 3), ("VALUE", 1)]
COMPARE_TARGETS = {
    q.VERSION_OF: ("VERSION", "version"),
    q.CREATE_OF: ("CREATE", "create_revision"),
    q.MOD_OF: ("MOD", "mod_revision"),
    q.VALUE_OF: ("VALUE", "value"),
    q.LEASE_OF: ("LEASE", "lease"),
}
COMPARE_RESULTS = {
    q.EQUAL: "EQUAL",
    q.GREATER: "GREATER",
    q.LESS: "LESS",
    q.NOT_EQUAL: "NOT_EQUAL",
}


class Requests:
    """Makes random requests around the revisions that exist."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.current = 1
        self.compacted = 0
        self.fresh_lease = 1000

    def flag(self, chance):
        return self.random.random() < chance

    def key(self):
        return b"" if self.flag(0.02) else self.random.choice(KEYS)

    def end(self):
        return self.random.choice(ENDS)

    def revision(self):
        kind = self.random.random()
        if kind < 0.4:
            return 0
        if kind < 0.45:
            return self.random.randint(-2, -1)
        return max(0, self.current - self.random.randint(-2, 12))

    def filter(self):
        if self.flag(0.85):
            return 0
        return max(1, self.current - self.random.randint(0, 15))

    def range(self):
        return q.Range(
            self.key(),
            self.end(),
            limit=self.random.choice([0, 0, 1, 2, 3, 4, 5, -1, 2**63 - 1]),
            revision=self.revision(),
            min_mod_revision=self.filter(),
            max_mod_revision=self.filter(),
            min_create_revision=self.filter(),
            max_create_revision=self.filter(),
            sort_order=self.random.randint(0, 2),
            sort_target=self.random.choice([0, 0, 1, 2, 3, 4]),
            serializable=self.flag(0.2),
            keys_only=self.flag(0.2),
            count_only=self.flag(0.1),
        )

    def put(self, may_keep=True):
        ignore_value = may_keep and self.flag(0.15)
        value = self.random.choice(VALUES)
        if ignore_value and self.flag(0.8):
            value = b""
        return q.Put(
            self.key(),
            value,
            lease=self.random.choice(LEASES) if self.flag(0.2) else 0,
            prev_kv=self.flag(0.3),
            ignore_value=ignore_value,
            ignore_lease=may_keep and self.flag(0.15),
        )

    def delete_range(self):
        return q.DeleteRange(self.key(), self.end(), prev_kv=self.flag(0.5))

    def compare(self):
        target = self.random.choice(list(COMPARE_TARGETS))
        if target == q.VALUE_OF:
            operand = self.random.choice(VALUES)
        elif target == q.VERSION_OF:
            operand = self.random.randint(0, 3)
        elif target == q.LEASE_OF:
            operand = self.random.randint(-1, 3)
        else:
            operand = self.random.choice([0, max(0, self.current - self.random.randint(0, 15))])
        result = self.random.choice(list(COMPARE_RESULTS))
        return q.Compare(self.key(), target, result, operand, self.end())

    def txn(self, deletes, depth=0):
        compares = [self.compare() for _ in range(self.random.choice([0, 0, 1, 1, 2]))]
        return q.Txn(compares, self.ops(deletes, depth), self.ops(deletes, depth))

    def ops(self, deletes, depth):
        ops = []
        for _ in range(self.random.choice([0, 1, 1, 2, 3])):
            kind = self.random.random()
            if kind < 0.35:
                ops.append(self.range())
            elif kind < 0.65:
                ops.append(self.put(may_keep=not deletes))
            elif kind < 0.85:
                ops.append(self.delete_range() if deletes else self.put())
            elif depth < 3:
                ops.append(self.txn(deletes, depth + 1))
        return ops

    def compact(self):
        around = [self.compacted, self.compacted + 1, self.current, self.current + 1]
        back = [max(0, self.current - 8), max(0, self.current - 5)]
        return q.Compact(self.random.choice(around + back), physical=True)

    def lease(self):
        """None of those that keys hang on expires while the servers are compared."""
        kind = self.random.random()
        if kind < 0.6:
            ttl = self.random.choice([5000, 9_000_000_000, 9_000_000_001])
            return q.LeaseGrant(ttl, self.random.choice(LEASES))
        if kind < 0.68:
            return q.LeaseTimeToLive(self.random.choice([0, *LEASES]), keys=self.flag(0.7))
        if kind < 0.75:
            self.fresh_lease += 1
            return q.LeaseGrant(self.random.randint(-1, 3), self.fresh_lease)
        return q.LeaseRevoke(self.random.choice([0, *LEASES]))

    def any(self):
        kind = self.random.random()
        if kind < 0.12:
            return self.lease()
        if kind < 0.25:
            return self.range()
        if kind < 0.5:
            return self.put()
        if kind < 0.58:
            return self.delete_range()
        if kind < 0.62:
            return self.compact()
        return self.txn(deletes=self.flag(0.6))


# ---- the same request for etcd


def text(data):
    return base64.b64encode(data).decode()


def for_etcd(request):
    """The last parts of the path, and the body."""
    if isinstance(request, q.LeaseGrant):
        return "lease/grant", {"TTL": str(request.ttl), "ID": str(request.id)}
    if isinstance(request, q.LeaseRevoke):
        return "lease/revoke", {"ID": str(request.id)}
    if isinstance(request, q.LeaseTimeToLive):
        return "lease/timetolive", {"ID": str(request.id), "keys": request.keys}
    path, body = kv_for_etcd(request)
    return f"kv/{path}", body


def kv_for_etcd(request):
    body = {}
    for name, value in vars(request).items():
        if isinstance(value, bytes):
            body[name] = text(value)
        elif isinstance(value, bool):
            body[name] = value
        elif isinstance(value, int):
            body[name] = str(value)
    if isinstance(request, q.Range):
        body["sort_order"] = ORDERS[request.sort_order]
        body["sort_target"] = SORT_TARGETS[request.sort_target][0]
        return "range", body
    if isinstance(request, q.Put):
        return "put", body
    if isinstance(request, q.DeleteRange):
        return "deleterange", body
    if isinstance(request, q.Compact):
        return "compaction", body
    return "txn", {
        "compare": [compare_for_etcd(compare) for compare in request.compare],
        "success": [op_for_etcd(op) for op in request.success],
        "failure": [op_for_etcd(op) for op in request.failure],
    }


def op_for_etcd(op):
    path, body = kv_for_etcd(op)
    return {"request_delete_range" if path == "deleterange" else f"request_{path}": body}


def compare_for_etcd(compare):
    target, field = COMPARE_TARGETS[compare.target]
    operand = compare.operand
    return {
        "key": text(compare.key),
        "range_end": text(compare.range_end),
        "target": target,
        "result": COMPARE_RESULTS[compare.result],
        field: text(operand) if isinstance(operand, bytes) else str(operand),
    }


# ---- answers in one form


def etcd_pair(pair):
    data = lambda name: base64.b64decode(pair.get(name, ""))
    number = lambda name: int(pair.get(name, 0))
    numbers = ("create_revision", "mod_revision", "version", "lease")
    return (data("key"), data("value"), *map(number, numbers))


def quoin_pair(pair):
    numbers = (pair.create_revision, pair.mod_revision, pair.version, pair.lease)
    return (bytes(pair.key), bytes(pair.value), *numbers)


def determined(request, pairs):
    """What etcd promises of the pairs of a range. Its 3.7 leaves the lease out of keys without
    values (docs/compatibility.md)."""
    if request.keys_only:
        pairs = [pair[:5] for pair in pairs]
    if request.sort_target == q.BY_KEY:
        return pairs
    if request.sort_target == q.BY_VALUE and request.keys_only:
        return len(pairs)
    field = SORT_TARGETS[request.sort_target][1]
    ranks = [pair[field] for pair in pairs]
    return ranks, sorted(pairs) if request.limit <= 0 else None


def time_to_live(left, granted, keys):
    """Runs take far less than the thousand seconds that are rounded away; etcd gives the keys in
    no order."""
    return left // -1000, granted, sorted(keys)


def etcd_answer(request, answer):
    if isinstance(request, q.Range):
        pairs = [etcd_pair(pair) for pair in answer.get("kvs", [])]
        count = int(answer.get("count", 0))
        return determined(request, pairs), count, answer.get("more", False)
    if isinstance(request, q.Put):
        return etcd_pair(answer["prev_kv"]) if answer.get("prev_kv") else None
    if isinstance(request, q.DeleteRange):
        pairs = [etcd_pair(pair) for pair in answer.get("prev_kvs", [])]
        return int(answer.get("deleted", 0)), pairs
    if isinstance(request, q.Compact):
        return "compacted"
    if isinstance(request, q.LeaseGrant):
        return int(answer["ID"]), int(answer["TTL"])
    if isinstance(request, q.LeaseRevoke):
        return "revoked"
    if isinstance(request, q.LeaseTimeToLive):
        left, granted = int(answer.get("TTL", 0)), int(answer.get("grantedTTL", 0))
        keys = [base64.b64decode(key) for key in answer.get("keys", [])]
        return time_to_live(left, granted, keys)
    succeeded = answer.get("succeeded", False)
    ops = request.success if succeeded else request.failure
    answers = [next(iter(answer.values())) for answer in answer.get("responses", [])]
    assert len(ops) == len(answers)
    return succeeded, [etcd_answer(op, answer) for op, answer in zip(ops, answers)]


def quoin_answer(request, answer):
    if isinstance(request, q.Range):
        pairs = [quoin_pair(pair) for pair in answer.kvs]
        return determined(request, pairs), answer.count, answer.more
    if isinstance(request, q.Put):
        return quoin_pair(answer.prev_kv) if answer.prev_kv else None
    if isinstance(request, q.DeleteRange):
        return answer.deleted, [quoin_pair(pair) for pair in answer.prev_kvs]
    if isinstance(request, q.Compact):
        return "compacted"
    if isinstance(request, q.LeaseGrant):
        return answer.id, answer.ttl
    if isinstance(request, q.LeaseRevoke):
        return "revoked"
    if isinstance(request, q.LeaseTimeToLive):
        return time_to_live(answer.ttl, answer.granted_ttl, answer.keys)
    ops = request.success if answer.succeeded else request.failure
    assert len(ops) == len(answer.responses)
    pairs = zip(ops, answer.responses)
    return answer.succeeded, [quoin_answer(op, answer) for op, answer in pairs]


def ask_etcd(connection, request):
    """(the header's revision, answer), or (None, the error's text)."""
    path, body = for_etcd(request)
    connection.request("POST", f"/v3/{path}", json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    if "code" in answer:
        return None, answer["message"]
    return int(answer["header"]["revision"]), etcd_answer(request, answer)


def ask_quoin(client, request):
    try:
        header, answer = client.call(request)
    except q.Refused as refused:
        return None, refused.message
    return header.revision, quoin_answer(request, answer)


# ---- the servers


def start(binary, folder, port, *flags):
    urls = [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"]
    command = [binary, "--data-dir", f"{folder}/data", "--listen-client-urls", urls[0]]
    command += ["--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1], *flags]
    with open(f"{folder}/log", "w", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def wait_for(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"no server came up on port {port}")


def compare(seed, count, etcd, quoin):
    requests = Requests(seed)
    refused = 0
    for number in range(count):
        request = requests.any()
        try:
            expected = ask_etcd(etcd, request)
        except (http.client.HTTPException, OSError) as error:
            print(f"seed {seed}: etcd stopped at request {number}: {error!r}")
            return 2
        found = ask_quoin(quoin, request)
        if expected != found:
            print(f"seed {seed}, request {number}: {request}\n etcd  {expected}\n quoin {found}")
            return 1
        revision = expected[0]
        refused += revision is None
        requests.current = revision or requests.current
        if isinstance(request, q.Compact) and revision is not None:
            requests.compacted = request.revision
    print(f"seed {seed}: {count} answers are the same, {refused} of them refusals")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--quoin", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--port", type=int, default=23790, help="the first of four")
    options = parser.parse_args()
    port = options.port
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
            etcd = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with q.Client(f"http://127.0.0.1:{port + 2}", timeout=60) as quoin:
                return compare(options.seed, options.requests, etcd, quoin)
        finally:
            for server in servers:
                server.kill()
                server.wait()


if __name__ == "__main__":
    sys.exit(main())
