#!/usr/bin/env bash
# curl in use: curl.sh HOST:PORT. A step that holds says its name.
set -euo pipefail
address=$1

post() { curl -sS --max-time 20 "http://$address$1" -d "$2"; }
get() { curl -sS --max-time 20 "http://$address$1"; }
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

for step in keys leases member probes; do
    $step
    echo "ok curl: $step"
done
