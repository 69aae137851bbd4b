#!/usr/bin/env bash
# etcdctl in use: etcdctl.sh PROGRAM HOST:PORT. A step that holds says its name.
set -euo pipefail
program=$1 address=$2
export ETCDCTL_ENDPOINTS=http://$address
release=$("$program" version | sed -n 's/^etcdctl version: //p')
work=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$work"' EXIT

ctl() { "$program" "$@"; }

same() {
    [ "$1" = "$2" ] || {
        printf '%s: came:\n%s\ndue:\n%s\n' "$step" "$1" "$2" >&2
        exit 1
    }
}

# Waits until a file's lines, joined by spaces, hold a text.
heard() {
    for _ in $(seq 200); do
        case "$(tr '\n' ' ' <"$1" 2>/dev/null)" in *"$2"*) return 0 ;; esac
        sleep 0.05
    done
    echo "$step: only this came:" >&2
    cat "$1" >&2
    exit 1
}

keys() {
    same "$(ctl put ctl/a 1)" OK
    same "$(ctl get ctl/a)" $'ctl/a\n1'
    same "$(ctl put --prev-kv ctl/a 2)" $'OK\nctl/a\n1'
    for n in 1 2 3; do ctl put "ctl/r/$n" "$n" >/dev/null; done
    same "$(ctl get --prefix ctl/r/ --keys-only --order DESCEND --limit 2 | grep .)" $'ctl/r/3\nctl/r/2'
    same "$(ctl get --prefix ctl/r/ --limit 1 -w fields | grep Count)" '"Count" : 3'
    same "$(ctl get ctl/r/2 ctl/r/9 --print-value-only)" $'2\n3'
    local revision
    revision=$(ctl get ctl/a -w json | sed 's/.*"mod_revision":\([0-9]*\).*/\1/')
    same "$(ctl get ctl/a --rev $((revision - 1)) --print-value-only)" 1
    same "$(ctl put --ignore-value ctl/a)" OK
    same "$(ctl del --prefix ctl/r/)" 3
    same "$(ctl del ctl/none)" 0
    if ctl get --help | grep -q -- --stream; then
        for n in 1 2 3; do ctl put "ctl/s/$n" "$n" >/dev/null; done
        same "$(ctl get --stream --prefix ctl/s/ | tr '\n' ' ')" 'ctl/s/1 1 ctl/s/2 2 ctl/s/3 3 '
    fi
    ctl compaction "$revision" >/dev/null
    same "$(ctl compaction --physical $((revision + 1)))" "compacted revision $((revision + 1))"
    same "$(ctl get ctl/a --rev $((revision - 1)) 2>&1 | grep -o 'required revision has been compacted' | tail -n 1)" 'required revision has been compacted'
}

transactions() {
    same "$(printf 'mod("ctl/t") = "0"\n\nput ctl/t 1\nget ctl/t\n\nget ctl/a\n\n' | ctl txn)" \
        $'SUCCESS\n\nOK\n\nctl/t\n1'
    same "$(printf 'value("ctl/t") > "5"\n\ndel ctl/t\n\nget ctl/t\n\n' | ctl txn)" $'FAILURE\n\nctl/t\n1'
}

watches() {
    "$program" watch --prefix ctl/w/ --prev-kv >"$work/watch" 2>&1 &
    local pid=$! revision
    # Until the watch is there, what is written is not told.
    for _ in $(seq 100); do
        ctl put ctl/w/begin x >/dev/null
        [ ! -s "$work/watch" ] || break
    done
    revision=$(ctl put ctl/w/a 1 -w json | sed 's/.*"revision":\([0-9]*\).*/\1/')
    ctl del ctl/w/a >/dev/null
    heard "$work/watch" 'PUT ctl/w/a 1 DELETE ctl/w/a 1 ctl/w/a  '
    kill $pid
    # History, and a command for each event.
    "$program" watch ctl/w/a --rev "$revision" -- sh -c 'echo $ETCD_WATCH_EVENT_TYPE' >"$work/history" &
    heard "$work/history" '"PUT" "DELETE" '
    kill $!
    # Orders, a line each.
    mkfifo "$work/orders"
    "$program" watch -i <"$work/orders" >"$work/interactive" 2>&1 &
    exec 4>"$work/orders"
    echo "watch ctl/w/a --rev $revision" >&4
    heard "$work/interactive" 'PUT ctl/w/a 1 DELETE ctl/w/a '
    echo "watch ctl/w/i" >&4
    for _ in $(seq 100); do
        ctl put ctl/w/i told >/dev/null
        if grep -q told "$work/interactive"; then break; fi
    done
    heard "$work/interactive" 'ctl/w/i told'
    exec 4>&-
    kill $! 2>/dev/null || true
}

leases() {
    local lease
    lease=$(ctl lease grant 60 | cut -d ' ' -f 2)
    ctl put --lease "$lease" ctl/l 1 >/dev/null
    same "$(ctl lease timetolive --keys "$lease" | grep -o 'attached keys(.*')" 'attached keys([ctl/l])'
    same "$(ctl lease keep-alive --once "$lease")" "lease $lease keepalived with TTL(60)"
    same "$(ctl lease list | grep -c "$lease")" 1
    same "$(ctl lease revoke "$lease")" "lease $lease revoked"
    same "$(ctl get ctl/l)" ''
    same "$(ctl lease timetolive "$lease")" "lease $lease already expired"
    # One that would be over by the end.
    lease=$(ctl lease grant 3 | cut -d ' ' -f 2)
    ctl put --lease "$lease" ctl/kept 1 >/dev/null
    "$program" lease keep-alive "$lease" >"$work/kept" &
    sleep 4.5
    same "$(ctl get ctl/kept --print-value-only)" 1
    heard "$work/kept" "lease $lease keepalived with TTL(3) lease $lease keepalived with TTL(3) "
    kill $!
    ctl lease revoke "$lease" >/dev/null
}

locks() {
    "$program" lock ctl/lock -- sh -c "echo held; sleep 0.5; echo let go" >"$work/lock" &
    heard "$work/lock" "held"
    ctl lock ctl/lock -- sh -c "echo mine" >>"$work/lock"
    same "$(tr '\n' ' ' <"$work/lock")" 'held let go mine '
    "$program" elect ctl/election one >"$work/elect" &
    heard "$work/elect" " one "
    same "$(timeout 1 "$program" elect -l ctl/election | tail -n 1)" one
    kill %% 2>/dev/null
}

member() {
    same "$(ctl member list | wc -l)" 1
    same "$(ctl endpoint health 2>&1 | grep -c 'is healthy')" 1
    same "$(ctl alarm list)" ''
    same "$(ctl endpoint status -w fields | grep -c '"Version" : "3.7')" 1
    ctl endpoint hashkv >/dev/null
    ctl defrag >/dev/null
    same "$(ctl move-leader 5 2>&1 | grep -o 'bad leader transferee' | tail -n 1)" 'bad leader transferee'
    if ctl downgrade --help 2>/dev/null | grep -q validate; then
        same "$(ctl downgrade validate 3.6.0)" 'Downgrade validate success, cluster version 3.7'
        same "$(ctl downgrade validate 3.5.0 2>&1 | grep -o 'invalid downgrade target version' | tail -n 1)" 'invalid downgrade target version'
    fi
    # 3.4 has no `auth status`.
    case $release in 3.4.*) return ;; esac
    same "$(ctl auth status | head -n 1)" 'Authentication Status: false'
}

# etcdctl takes alarms back, and raises none.
post() {
    local host=${address%:*} port=${address##*:}
    exec 5<>"/dev/tcp/$host/$port"
    printf 'POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' "$1" "$address" "${#2}" "$2" >&5
    cat <&5 >/dev/null
    exec 5>&-
}

alarms() {
    local id raised
    id=$(printf '%u' "0x$(ctl member list | cut -d , -f 1)")
    raised="memberID:$id alarm:NOSPACE"
    post /v3/maintenance/alarm '{"action": "ACTIVATE", "memberID": "'"$id"'", "alarm": "NOSPACE"}'
    # One space or two, by the build.
    same "$(ctl alarm list | tr -s ' ' | sed 's/ *$//')" "$raised"
    same "$(ctl put ctl/full 1 2>&1 | grep -o 'database space exceeded' | tail -n 1)" 'database space exceeded'
    same "$(ctl alarm disarm | tr -s ' ' | sed 's/ *$//')" "$raised"
    same "$(ctl alarm list)" ''
    same "$(ctl put ctl/full 1)" OK
}

mirror() {
    for n in 1 2 3; do ctl put "ctl/m/$n" "$n" >/dev/null; done
    "$program" make-mirror --prefix ctl/m/ --dest-prefix ctl/copy/ --dest-insecure-transport "$address" >/dev/null 2>&1 &
    for _ in $(seq 200); do
        [ "$(ctl get --prefix ctl/copy/ --keys-only | grep -c .)" -lt 3 ] || break
        sleep 0.05
    done
    ctl put ctl/m/4 4 >/dev/null
    for _ in $(seq 200); do
        [ "$(ctl get ctl/copy/4 --print-value-only)" != 4 ] || break
        sleep 0.05
    done
    kill $!
    same "$(ctl get --prefix ctl/copy/ --print-value-only | tr '\n' ' ')" '1 2 3 4 '
}

for step in keys transactions watches leases locks member alarms mirror; do
    $step
    echo "ok etcdctl $release: $step"
done
