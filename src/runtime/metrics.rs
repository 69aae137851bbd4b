//! `/metrics`: what was counted, in Prometheus' text format, by etcd's names where it has them.
//!
//! What it costs depends on the number of executors, and on nothing that clients can make grow.

#![forbid(unsafe_code)]

use super::server::VERSION;
use super::tally::{CLASSES, CLIENT_VERSIONS, Calls, Count, SeatTally, Tally, Times, end_ns};
use super::{process, seat::Seat};
use crate::etcd::http::{self as pages, Check};
use crate::etcd::{Code, Condition, Method};
use crate::node::front::FrontCounts;
use crate::node::order::OrderCounts;
use std::fmt::Write as _;

/// The content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything, as this seat sees it.
pub fn text(seat: &Seat) -> String {
    seat.show_counts();
    let Some(front) = &seat.front else {
        return String::new();
    };
    let (figures, keys) = {
        let front = front.borrow();
        (front.figures(), front.keys())
    };
    let mut text = pages::metrics(&figures, VERSION);
    let tally = &seat.tally;
    put_store(&mut text, tally, keys);
    put_calls(&mut text, tally);
    put_requests(&mut text, tally);
    put_checks(&mut text, tally, &figures.condition);
    put_threads(&mut text, tally);
    process::put_metrics(&mut text);
    text
}

/// Begins a family: its name, type and what it is. Its samples follow.
fn family(text: &mut String, name: &str, kind: &str, what: &str) {
    // Writing to a string does not fail, here and below.
    let _ = write!(text, "# HELP {name} {what}\n# TYPE {name} {kind}\n");
}

fn counter(text: &mut String, name: &str, what: &str, value: u64) {
    pages::put_metric(text, (name, "counter", what), "", value);
}

fn gauge(text: &mut String, name: &str, what: &str, value: u64) {
    pages::put_metric(text, (name, "gauge", what), "", value);
}

/// One histogram of a family; `labels` end with a comma if there are any.
fn histogram(text: &mut String, name: &str, labels: &str, all: &[&Times]) {
    let mut counts = [0; CLASSES + 1];
    let mut sum_ns = 0u64;
    for times in all {
        let (of_one, sum_of_one) = times.read();
        for (count, more) in counts.iter_mut().zip(of_one) {
            *count += more;
        }
        sum_ns += sum_of_one;
    }
    let mut below = 0;
    for (class, count) in counts.iter().enumerate() {
        below += count;
        let _ = match class {
            CLASSES => writeln!(text, "{name}_bucket{{{labels}le=\"+Inf\"}} {below}"),
            _ => {
                let end = seconds(end_ns(class));
                writeln!(text, "{name}_bucket{{{labels}le=\"{end}\"}} {below}")
            }
        };
    }
    let labels = match labels.trim_end_matches(',') {
        "" => String::new(),
        labels => format!("{{{labels}}}"),
    };
    let sum = seconds(sum_ns);
    let _ = writeln!(
        text,
        "{name}_sum{labels} {sum}\n{name}_count{labels} {below}"
    );
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What the store, its leases and its watches have seen.
fn put_store(text: &mut String, tally: &Tally, keys: u64) {
    let seats = || tally.seats.iter();
    let order = seats()
        .map(|seat| seat.order())
        .max_by_key(|order| order.applied_index)
        .unwrap_or_default();
    let fronts: Vec<FrontCounts> = seats().map(|seat| seat.front()).collect();
    let sum = |of: fn(&FrontCounts) -> u64| fronts.iter().map(of).sum::<u64>();
    let OrderCounts {
        applied, pending, ..
    } = order;
    for (name, what, value) in [
        (
            "etcd_server_leader_changes_seen_total",
            "The number of leader changes seen.",
            order.leader_changes,
        ),
        (
            "etcd_server_proposals_failed_total",
            "Commands that were refused before they reached the log.",
            order.refused,
        ),
        (
            "etcd_server_health_success",
            "The total number of successful health checks.",
            total(tally, |seat| &seat.well),
        ),
        (
            "etcd_server_health_failures",
            "The total number of failed health checks.",
            total(tally, |seat| &seat.unwell),
        ),
        (
            "etcd_server_slow_apply_total",
            "Turns of the order actor that took longer than --warning-apply-duration.",
            total(tally, |seat| &seat.slow_turns),
        ),
        (
            "etcd_mvcc_range_total",
            "Ranges seen by this member.",
            sum(|front| front.reads) + applied.ranges,
        ),
        (
            "etcd_mvcc_put_total",
            "Puts seen by this member.",
            applied.puts,
        ),
        (
            "etcd_mvcc_delete_total",
            "Deletes seen by this member.",
            applied.deletes,
        ),
        (
            "etcd_mvcc_txn_total",
            "Transactions seen by this member.",
            applied.txns,
        ),
        (
            "etcd_debugging_mvcc_events_total",
            "Events told to watches by this member.",
            sum(|front| front.events),
        ),
        (
            "etcd_debugging_lease_granted_total",
            "The number of granted leases.",
            applied.leases_granted,
        ),
        (
            "etcd_debugging_lease_revoked_total",
            "The number of revoked leases.",
            applied.leases_revoked + applied.leases_expired,
        ),
        (
            "etcd_debugging_lease_renewed_total",
            "The number of renewed leases seen by the leader.",
            order.renewals,
        ),
        (
            "etcd_debugging_server_lease_expired_total",
            "The number of expired leases.",
            applied.leases_expired,
        ),
        (
            "quoin_native_requests_total",
            "Requests over the native protocol.",
            sum(|front| front.native),
        ),
    ] {
        counter(text, name, what, value);
    }
    for (name, what, value) in [
        (
            "etcd_server_proposals_pending",
            "The number of pending proposals.",
            pending,
        ),
        (
            "etcd_debugging_mvcc_keys_total",
            "The number of keys.",
            keys,
        ),
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "Bytes of the keys and values of puts outside transactions.",
            applied.put_bytes,
        ),
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "The number of watch streams.",
            sum(|front| front.watch_streams),
        ),
        (
            "etcd_debugging_mvcc_watcher_total",
            "The number of watches.",
            sum(|front| front.watches),
        ),
        (
            "etcd_debugging_mvcc_slow_watcher_total",
            "The number of watches that lag.",
            sum(|front| front.lagging),
        ),
        (
            "quoin_leases",
            "Leases that the leader keeps.",
            order.leases,
        ),
        (
            "quoin_connections",
            "Connections of clients.",
            sum(|front| front.connections),
        ),
        (
            "quoin_requests_waiting",
            "Requests that wait for an answer.",
            sum(|front| front.waiting),
        ),
        (
            "quoin_unsent_bytes",
            "Bytes of answers that clients have not taken.",
            sum(|front| front.unsent_bytes),
        ),
    ] {
        gauge(text, name, what, value);
    }
    for (name, what, times) in [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of the log's synced writes.",
            &tally.log.times,
        ),
        (
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of checkpoints, which no write waits for.",
            &tally.checkpoint.times,
        ),
    ] {
        family(text, name, "histogram", what);
        histogram(text, name, "", &[times]);
    }
    counter(
        text,
        "etcd_disk_wal_write_bytes_total",
        "Bytes of entries written to the log.",
        tally.log.bytes.get(),
    );
    counter(
        text,
        "quoin_checkpoint_bytes_total",
        "Bytes of pages written by checkpoints.",
        tally.checkpoint.bytes.get(),
    );
    for (name, what, count) in [
        (
            "quoin_scrub_pages_total",
            "Pages of the tree file that were read and checked though nobody asked for them.",
            &tally.scrub.pages,
        ),
        (
            "quoin_scrub_damaged_total",
            "Pages of the tree file that were found damaged by such a reading.",
            &tally.scrub.damaged,
        ),
        (
            "quoin_scrub_passes_total",
            "How often such a reading has come to the end of the tree.",
            &tally.scrub.passes,
        ),
    ] {
        counter(text, name, what, count.get());
    }
}

/// What a cell of all seats amounts to.
fn total(tally: &Tally, of: impl Fn(&SeatTally) -> &Count) -> u64 {
    tally.seats.iter().map(|seat| of(seat).get()).sum()
}

/// The calls of gRPC, by the names that its own library for Prometheus gives them.
fn put_calls(text: &mut String, tally: &Tally) {
    counter(
        text,
        "etcd_network_client_grpc_received_bytes_total",
        "The total number of bytes received from grpc clients.",
        total(tally, |seat| &seat.received_bytes),
    );
    counter(
        text,
        "etcd_network_client_grpc_sent_bytes_total",
        "The total number of bytes sent to grpc clients.",
        total(tally, |seat| &seat.sent_bytes),
    );
    let labels: Vec<String> = Method::ALL
        .iter()
        .map(|method| {
            let (service, name) = method.name();
            let kind = kind_of(service, name);
            format!("grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
        })
        .collect();
    let methods = || Method::ALL.iter().zip(&labels);
    let name = "grpc_server_started_total";
    family(
        text,
        name,
        "counter",
        "Total number of RPCs started on the server.",
    );
    for (method, labels) in methods() {
        let started = total(tally, |seat| &seat.calls(*method).started);
        let _ = writeln!(text, "{name}{{{labels}}} {started}");
    }
    for (name, what, of) in [
        (
            "grpc_server_msg_received_total",
            "Total number of RPC stream messages received on the server.",
            (|calls| &calls.received) as fn(&Calls) -> &Count,
        ),
        (
            "grpc_server_msg_sent_total",
            "Total number of gRPC stream messages sent by the server.",
            |calls| &calls.sent,
        ),
    ] {
        family(text, name, "counter", what);
        for (method, labels) in methods() {
            let messages = total(tally, |seat| of(seat.calls(*method)));
            let _ = writeln!(text, "{name}{{{labels}}} {messages}");
        }
    }
    let name = "grpc_server_handled_total";
    family(
        text,
        name,
        "counter",
        "Total number of RPCs completed on the server, regardless of success or failure.",
    );
    for (method, labels) in methods() {
        for code in Code::ALL {
            let handled = total(tally, |seat| &seat.calls(*method).handled[code as usize]);
            // A code that never was is left out, but for the good one: rates need a beginning.
            if handled > 0 || code == Code::Ok {
                let code = code_name(code);
                let _ = writeln!(text, "{name}{{grpc_code=\"{code}\",{labels}}} {handled}");
            }
        }
    }
    if tally.settings.extensive {
        let name = "grpc_server_handling_seconds";
        family(
            text,
            name,
            "histogram",
            "Histogram of response latency (seconds) of gRPC that had been handled by the server.",
        );
        for (method, labels) in methods() {
            let times: Vec<&Times> = tally
                .seats
                .iter()
                .flat_map(|seat| &seat.calls(*method).times)
                .collect();
            histogram(text, name, &format!("{labels},"), &times);
        }
    }
}

/// What etcd counts of requests besides: whose they are, and how long each kind takes.
fn put_requests(text: &mut String, tally: &Tally) {
    let name = "etcd_server_client_requests_total";
    family(
        text,
        name,
        "counter",
        "The total number of client requests per client version.",
    );
    for (version, of) in CLIENT_VERSIONS.iter().enumerate() {
        for (streams, kind) in ["unary", "stream"].iter().enumerate() {
            let begun = total(tally, |seat| &seat.clients[version][streams]);
            // A version that never was is left out, but for the first: rates need a beginning.
            if begun > 0 || version == 0 {
                let _ = writeln!(
                    text,
                    "{name}{{client_api_version=\"{of}\",type=\"{kind}\"}} {begun}"
                );
            }
        }
    }
    let of = |method: Method, failed: usize| -> Vec<&Times> {
        let seats = tally.seats.iter();
        seats
            .map(|seat| &seat.calls(method).times[failed])
            .collect()
    };
    let has_some = |all: &[&Times]| all.iter().any(|times| times.has_some());
    let name = "etcd_server_request_duration_seconds";
    family(
        text,
        name,
        "histogram",
        "Response latency distribution in seconds for each type.",
    );
    for (method, kind) in REQUESTS {
        for (failed, success) in [true, false].iter().enumerate() {
            let times = of(*method, failed);
            // As above.
            if has_some(&times) || (*method == Method::Put && *success) {
                let labels = format!("success=\"{success}\",type=\"{kind}\",");
                histogram(text, name, &labels, &times);
            }
        }
    }
    let name = "etcd_server_range_duration_seconds";
    family(
        text,
        name,
        "histogram",
        "The latency distributions of Range, from the call to its answer.",
    );
    for (failed, success) in [true, false].iter().enumerate() {
        let times = of(Method::Range, failed);
        if has_some(&times) || *success {
            histogram(text, name, &format!("success=\"{success}\","), &times);
        }
    }
    let name = "etcd_server_apply_duration_seconds";
    family(
        text,
        name,
        "histogram",
        "The latency distributions of turns of application: commands are applied together.",
    );
    let turns: Vec<&Times> = tally.seats.iter().map(|seat| &seat.turns).collect();
    let labels = "version=\"v3\",op=\"Turn\",success=\"true\",";
    histogram(text, name, labels, &turns);
}

/// The calls whose times etcd tells by type, and its names for the types.
const REQUESTS: &[(Method, &str)] = &[
    (Method::Put, "Put"),
    (Method::Range, "Range"),
    (Method::DeleteRange, "DeleteRange"),
    (Method::Txn, "Txn"),
    (Method::Compact, "Compaction"),
    (Method::LeaseGrant, "LeaseGrant"),
    (Method::LeaseRevoke, "LeaseRevoke"),
    (Method::Alarm, "Alarm"),
];

/// The checks of `/livez` and `/readyz`, and etcd's feature gates.
fn put_checks(text: &mut String, tally: &Tally, condition: &Condition) {
    let checks = || {
        let all = Check::ALL.iter().flat_map(|check| {
            let paths = ["readyz", "livez"].iter().enumerate();
            paths.map(move |(path, name)| (*check, path, *name))
        });
        all.filter(|(check, path, _)| *path == 0 || check.is_of_life())
    };
    let name = "etcd_server_healthcheck";
    family(
        text,
        name,
        "gauge",
        "The result of each kind of healthcheck, as it would be now.",
    );
    for (check, _, path) in checks() {
        let well = u8::from(match check {
            Check::DataCorruption => !condition.is_corrupt,
            Check::LinearizableRead => condition.leader != 0,
            // Who answers can read what it has, and votes.
            Check::SerializableRead | Check::NonLearner => true,
        });
        let check = check.name();
        let _ = writeln!(text, "{name}{{name=\"{check}\",type=\"{path}\"}} {well}");
    }
    let name = "etcd_server_healthchecks_total";
    family(
        text,
        name,
        "counter",
        "The total number of each kind of healthcheck.",
    );
    for (check, at, path) in checks() {
        for (failed, status) in ["success", "error"].iter().enumerate() {
            let count = total(tally, |seat| &seat.checks[check as usize][at][failed]);
            let check = check.name();
            let _ = writeln!(
                text,
                "{name}{{name=\"{check}\",status=\"{status}\",type=\"{path}\"}} {count}"
            );
        }
    }
    let name = "etcd_server_feature_enabled";
    family(
        text,
        name,
        "gauge",
        "Whether or not a feature is asked for. 1 is enabled, 0 is not.",
    );
    for (feature, stage, is_on) in &tally.settings.features {
        let is_on = u8::from(*is_on);
        let _ = writeln!(
            text,
            "{name}{{name=\"{feature}\",stage=\"{stage}\"}} {is_on}"
        );
    }
}

/// How gRPC calls the kind of a call.
fn kind_of(service: &str, method: &str) -> &'static str {
    match (service, method) {
        ("etcdserverpb.Watch", _) | (_, "LeaseKeepAlive") => "bidi_stream",
        ("grpc.health.v1.Health", "Watch") | (_, "RangeStream" | "Snapshot" | "Observe") => {
            "server_stream"
        }
        _ => "unary",
    }
}

fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The executors: how punctual their loops are, and how long the order actor's turns take.
fn put_threads(text: &mut String, tally: &Tally) {
    let name = "quoin_loop_late_seconds";
    family(
        text,
        name,
        "histogram",
        "How much later than due an executor's loop came round.",
    );
    for seat in &tally.seats {
        let label = format!("core=\"{}\",", seat.core);
        histogram(text, name, &label, &[&seat.late]);
    }
    let name = "quoin_order_turn_seconds";
    family(
        text,
        name,
        "histogram",
        "How long the order actor's turns took that had something to do.",
    );
    let turns: Vec<&Times> = tally.seats.iter().map(|seat| &seat.turns).collect();
    histogram(text, name, "", &turns);
    for (name, what, of) in [
        (
            "quoin_write_answer_seconds",
            "From a write's arrival to its answer; of one write whenever answers come.",
            (|seat| &seat.answered) as fn(&SeatTally) -> &Times,
        ),
        (
            "quoin_watch_delivery_seconds",
            "From a revision's publication until watches that keep up are told; of one at a time.",
            |seat| &seat.told,
        ),
    ] {
        family(text, name, "histogram", what);
        for seat in &tally.seats {
            let label = format!("core=\"{}\",", seat.core);
            histogram(text, name, &label, &[of(seat)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let times = Times::default();
        times.note(1_000_000);
        times.note(2_000_000);
        times.note(u64::from(u32::MAX) * 10);
        let mut text = String::new();
        histogram(&mut text, "h", "a=\"b\",", &[&times]);
        for line in [
            "h_bucket{a=\"b\",le=\"0.0005\"} 0",
            "h_bucket{a=\"b\",le=\"0.001\"} 1",
            "h_bucket{a=\"b\",le=\"8.192\"} 2",
            "h_bucket{a=\"b\",le=\"+Inf\"} 3",
            "h_count{a=\"b\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn kinds_and_codes_have_grpcs_names() {
        assert_eq!(kind_of("etcdserverpb.KV", "Put"), "unary");
        assert_eq!(kind_of("etcdserverpb.Watch", "Watch"), "bidi_stream");
        assert_eq!(kind_of("etcdserverpb.KV", "RangeStream"), "server_stream");
        assert_eq!(code_name(Code::Ok), "OK");
        assert_eq!(code_name(Code::DeadlineExceeded), "DeadlineExceeded");
    }
}
