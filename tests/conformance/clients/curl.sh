#!/usr/bin/env bash
# curl in use: curl.sh HOST:PORT. A step that holds says its name.
set -euo pipefail
address=$1

post() { curl -sS --max-time 20 "http://$address$1" -d "$2"; }
get() { curl -sS --max-time 20 "http://$address$1"; }
work=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$work"' EXIT
code() { curl -sS --max-time 20 -o /dev/null -w '%{http_code}' "$@"; }

# The answer has to hold each of the texts.
holds() {
    local answer=$1 text
    shift
    for text in "$@"; do
        case "${answer//, /,}" in
        *"$text"*) ;;
        *)
            printf '%s: came:\n%s\nwithout:\n%s\n' "$step" "$answer" "$text" >&2
            exit 1
            ;;
        esac
    done
}

keys() {
    holds "$(post /v3/kv/put '{"key": "Y3VybA==", "value": "MQ=="}')" '"cluster_id":"' '"revision":"' '"raft_term":"'
    holds "$(post /v3/kv/range '{"key": "Y3VybA=="}')" '"key":"Y3VybA=="' '"version":"1"' '"value":"MQ=="' '"count":"1"'
    holds "$(post /v3/kv/range '{"key": "YQ==", "rangeEnd": "eg==", "sortOrder": "DESCEND", "sort_target": "MOD", "new": 1}')" '"kvs":[{'
    holds "$(post /v3/kv/txn '{"compare": [{"target": "CREATE", "key": "Y3VybA==", "createRevision": "0"}], "failure": [{"requestDeleteRange": {"key": "Y3VybA==", "prev_kv": true}}]}')" \
        '"responses":[{"response_delete_range":' '"deleted":"1"' '"prev_kvs":[{'
    holds "$(post /v3beta/kv/put '{"key": "Y3VybA=="}')" '"header":{'
    holds "$(post /v3/kv/put '{}')" '"code":3' '"message":"etcdserver: key is not provided"'
    holds "$(code "http://$address/v3/kv/range" -d '{"key": "YQ==", "revision": 99999}')" 400
    holds "$(code "http://$address/v3/kv/range" -d '{')" 400
    holds "$(code "http://$address/v3/none" -d '{}')" 404
}

# A field of an answer.
field() { printf '%s' "$1" | sed -n 's/.*"'"$2"'": *"\([^"]*\)".*/\1/p'; }

transactions() {
    # Both branches, one inside the other, and what each operation answers.
    holds "$(post /v3/kv/txn '{"compare": [{"target": "VALUE", "result": "EQUAL", "key": "dHhu", "value": "MQ=="}], "success": [], "failure": [{"request_put": {"key": "dHhu", "value": "MQ=="}}, {"request_txn": {"compare": [{"target": "VERSION", "key": "dHhu", "version": 0}], "success": [{"request_range": {"key": "dHhu"}}]}}]}')" \
        '"responses":[{"response_put":{"header":{"revision":"' '"response_txn":{' '"succeeded":true' '"kvs":[{"key":"dHhu"'
    holds "$(post /v3/kv/txn '{"compare": [{"target": "VALUE", "key": "dHhu", "value": "MQ=="}], "success": [{"request_delete_range": {"key": "dHhu"}}]}')" \
        '"succeeded":true' '"deleted":"1"'
    # One operation cannot be two: nothing is done.
    holds "$(post /v3/kv/txn '{"success": [{"request_put": {"key": "dHdv"}, "request_range": {"key": "dHdv"}}]}')" '"code":3' 'is already set'
    holds "$(post /v3/kv/txn '{"success": [{"request_put": {"key": "dHdv"}}, {"request_put": {"key": "dHdv"}}]}')" '"code":3' 'duplicate key given in txn request'
    case "$(post /v3/kv/range '{"key": "dHdv"}')" in *kvs*) echo "$step: it was written" >&2 && exit 1 ;; esac
}

# Waits until a file holds a text.
heard() {
    for _ in $(seq 200); do
        if grep -q -- "$2" "$1" 2>/dev/null; then return 0; fi
        sleep 0.05
    done
    printf '%s: only this came:\n' "$step" >&2
    cat "$1" >&2
    exit 1
}

watches() {
    curl -sSN --max-time 30 "http://$address/v3/watch" -d '{"create_request": {"key": "dw==", "range_end": "eA==", "prev_kv": true}}' >"$work/watch" &
    local pid=$! written
    heard "$work/watch" '"created":true'
    written=$(field "$(post /v3/kv/put '{"key": "dy8x", "value": "MQ=="}')" revision)
    post /v3/kv/deleterange '{"key": "dy8x"}' >/dev/null
    heard "$work/watch" '"type":"DELETE"'
    kill $pid
    holds "$(cat "$work/watch")" '{"result":{"header":{' '"events":[{"kv":{"key":"dy8x"' '"prev_kv":{"key":"dy8x"'
    # History.
    curl -sSN --max-time 30 "http://$address/v3/watch" -d '{"create_request": {"key": "dy8x", "start_revision": "'"$written"'", "filters": ["NOPUT"]}}' >"$work/history" &
    heard "$work/history" '"type":"DELETE"'
    kill $!
    if grep -q '"value":"MQ=="' "$work/history"; then echo "$step: a put came through the filter" >&2 && exit 1; fi
}

locks() {
    local key
    post /v3/lease/grant '{"ID": 77, "TTL": 60}' >/dev/null
    post /v3/lease/grant '{"ID": 78, "TTL": 60}' >/dev/null
    key=$(field "$(post /v3/lock/lock '{"name": "bG9jaw==", "lease": 77}')" key)
    curl -sS --max-time 30 "http://$address/v3/lock/lock" -d '{"name": "bG9jaw==", "lease": 78}' >"$work/lock" &
    sleep 0.3
    holds "<$(cat "$work/lock")>" '<>'
    holds "$(post /v3/lock/unlock '{"key": "'"$key"'"}')" '"header":{'
    heard "$work/lock" '"key":'
    holds "$(post /v3/election/campaign '{"name": "ZQ==", "lease": 77, "value": "bWU="}')" '"leader":{"name":"ZQ=="' '"lease":"77"'
    holds "$(post /v3/election/leader '{"name": "ZQ=="}')" '"value":"bWU="'
    post /v3/lease/revoke '{"ID": 77}' >/dev/null
    holds "$(post /v3/election/leader '{"name": "ZQ=="}')" 'election: no leader'
}

backup() {
    post /v3/maintenance/snapshot '{}' >"$work/backup"
    holds "$(head -n 1 "$work/backup" | cut -c 1-200)" '{"result":{'
    holds "$(tail -n 1 "$work/backup" | grep -o '"version":.*')" '3.7'
    sed -n 's/.*"blob":"\([^"]*\)".*/\1/p' "$work/backup" | while read -r blob; do printf '%s' "$blob" | base64 -d; done >"$work/file"
    # The checksum stands at the end.
    holds "$(head -c -32 "$work/file" | sha256sum)" "$(tail -c 32 "$work/file" | od -An -tx1 | tr -d ' \n')"
}

leases() {
    holds "$(post /v3/lease/grant '{"ID": 4242, "TTL": 60}')" '"ID":"4242"' '"TTL":"60"'
    post /v3/kv/put '{"key": "bGVhc2Vk", "lease": "4242"}' >/dev/null
    holds "$(post /v3/lease/keepalive '{"ID": 4242}')" '{"result":{' '"TTL":"60"'
    holds "$(post /v3/lease/timetolive '{"ID": "4242", "keys": true}')" '"grantedTTL":"60"' '"keys":["bGVhc2Vk"]'
    holds "$(post /v3/kv/lease/leases '{}')" '"leases":[{"ID":"4242"}]'
    post /v3/lease/revoke '{"ID": "4242"}' >/dev/null
    holds "$(post /v3/lease/revoke '{"ID": "4242"}')" '"code":5' 'requested lease not found'
}

member() {
    holds "$(post /v3/cluster/member/list '{}')" '"members":[{"ID":"' '"clientURLs":["http://'
    holds "$(post /v3/maintenance/status '{}')" '"version":"3.7' '"leader":"' '"dbSize":"'
    holds "$(post /v3/maintenance/alarm '{"action": "GET"}')" '"header":{'
    holds "$(post /v3/auth/status '{}')" '"authRevision":"1"'
}

probes() {
    holds "$(get /health)" '"health":"true"'
    holds "$(get '/livez?verbose')" '[+]serializable_read ok' 'ok'
    holds "$(get '/readyz?verbose')" '[+]linearizable_read ok' '[+]data_corruption ok'
    holds "$(code "http://$address/readyz/non_learner")" 200
    holds "$(get /version)" '"etcdserver":"3.7' '"etcdcluster":"3.7.0"'
    holds "$(get /metrics)" 'etcd_server_has_leader 1' 'etcd_mvcc_db_total_size_in_bytes' 'process_resident_memory_bytes'
    holds "$(code -X POST "http://$address/health")" 405
}

for step in keys transactions leases watches locks member backup probes; do
    $step
    echo "ok curl: $step"
done
