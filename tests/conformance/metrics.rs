//! `/metrics` is read with a strict reader of Prometheus' text format, has the names that etcd's
//! dashboards and alerts ask for, and counts what was done.

use super::http1::ask;
use super::raw::{self, PUT, RANGE, call, connect, framed, get, put};
use super::{Server, start};
use h2::client::Builder;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

/// Labels and their values, sorted.
type Labels = Vec<(String, String)>;

/// A sample: its labels and its value.
type Sample = (Labels, f64);

/// A family: its type, and the samples of each of its names.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<String, Vec<Sample>>,
}

type Families = BTreeMap<String, Family>;

fn is_name(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// `a="b",c="d"` up to the closing brace, and what stands behind it.
fn read_labels(mut text: &str) -> (Labels, &str) {
    let mut labels = Vec::new();
    loop {
        let (name, rest) = text.split_once("=\"").expect("a label");
        assert!(is_name(name) && !name.contains(':'), "label {name}");
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("the label ends") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("the label ends").1 {
                    'n' => value.push('\n'),
                    c @ ('"' | '\\') => value.push(c),
                    c => panic!("\\{c} is no escape"),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        text = &rest[end + 1..];
        if let Some(rest) = text.strip_prefix('}') {
            labels.sort();
            return (labels, rest);
        }
        text = text.strip_prefix(',').expect("a comma or the end");
    }
}

fn read(text: &str) -> Families {
    assert!(text.ends_with('\n'));
    let mut families = Families::new();
    let mut current: Option<(String, bool)> = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, what) = help.split_once(' ').expect("a text");
            assert!(is_name(name) && !what.is_empty(), "{line}");
            let new = families.insert(name.to_owned(), Family::default());
            assert!(new.is_none(), "{name} stands twice");
            current = Some((name.to_owned(), false));
            continue;
        }
        let (family, typed) = current.as_mut().expect("samples behind a HELP");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(name == family && !*typed, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            families.get_mut(name).expect("it was begun").kind = kind.to_owned();
            *typed = true;
            continue;
        }
        assert!(*typed, "a sample before the type: {line}");
        let end = line.find(['{', ' ']).expect("a value");
        let (name, rest) = line.split_at(end);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest),
            None => (Vec::new(), rest),
        };
        let value = value.strip_prefix(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        let found = families.get_mut(family).expect("it was begun");
        let suffix = name.strip_prefix(family.as_str()).expect("of the family");
        match &*found.kind {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        assert!(found.kind == "gauge" || value >= 0.0, "{line}");
        let samples = found.samples.entry(name.to_owned()).or_default();
        assert!(
            samples.iter().all(|(known, _)| *known != labels),
            "twice: {line}"
        );
        samples.push((labels, value));
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name} has no samples");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

/// The buckets of each series grow with their ends, and the last one has them all.
fn check_histogram(name: &str, family: &Family) {
    let samples = |suffix: &str| &family.samples[&format!("{name}{suffix}")];
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (labels, value) in samples("_bucket") {
        let (end, others): (Vec<_>, Vec<_>) =
            labels.iter().cloned().partition(|(label, _)| label == "le");
        let end = match &*end[0].1 {
            "+Inf" => f64::INFINITY,
            end => end.parse().expect("a number"),
        };
        series.entry(others).or_default().push((end, *value));
    }
    assert_eq!(samples("_sum").len(), series.len(), "{name}");
    for (labels, count) in samples("_count") {
        let buckets = &series[labels];
        assert!(
            buckets.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{name}"
        );
        assert!(
            buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
            "{name}"
        );
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{name}");
    }
}

fn scrape(address: SocketAddr) -> Families {
    let (status, text) = ask(address, "GET", "/metrics", "");
    assert_eq!(status, 200);
    read(&text)
}

/// The value of the series with these labels, among others.
fn value(families: &Families, name: &str, labels: &[(&str, &str)]) -> f64 {
    let mut found = families
        .values()
        .filter_map(|family| family.samples.get(name));
    let samples = found.next().unwrap_or_else(|| panic!("{name} is missing"));
    let mut matching = samples.iter().filter(|(of, _)| {
        let has = |(label, value): &(&str, &str)| {
            let wanted = ((*label).to_owned(), (*value).to_owned());
            of.contains(&wanted)
        };
        labels.iter().all(has)
    });
    let (_, value) = matching
        .next()
        .unwrap_or_else(|| panic!("{name}{labels:?} is missing"));
    *value
}

/// What etcd's own dashboard and alerts ask for of a member that has no peers, and what else is
/// commonly looked at.
const NAMES: &[(&str, &str)] = &[
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_is_leader", "gauge"),
    ("etcd_server_is_learner", "gauge"),
    ("etcd_server_id", "gauge"),
    ("etcd_server_version", "gauge"),
    ("etcd_cluster_version", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_server_slow_apply_total", "counter"),
    ("etcd_server_health_success", "counter"),
    ("etcd_server_health_failures", "counter"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("etcd_mvcc_range_total", "counter"),
    ("etcd_mvcc_put_total", "counter"),
    ("etcd_mvcc_delete_total", "counter"),
    ("etcd_mvcc_txn_total", "counter"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_disk_backend_commit_duration_seconds", "histogram"),
    ("etcd_disk_wal_write_bytes_total", "counter"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("grpc_server_handled_total", "counter"),
    ("etcd_debugging_mvcc_keys_total", "gauge"),
    ("etcd_debugging_mvcc_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_slow_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_watch_stream_total", "gauge"),
    ("etcd_debugging_mvcc_events_total", "counter"),
    ("etcd_debugging_mvcc_current_revision", "gauge"),
    ("etcd_debugging_mvcc_compact_revision", "gauge"),
    ("etcd_debugging_mvcc_total_put_size_in_bytes", "gauge"),
    ("etcd_debugging_lease_granted_total", "counter"),
    ("etcd_debugging_lease_revoked_total", "counter"),
    ("etcd_debugging_lease_renewed_total", "counter"),
    ("etcd_debugging_server_lease_expired_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_start_time_seconds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("os_fd_used", "gauge"),
    ("os_fd_limit", "gauge"),
    ("process_virtual_memory_max_bytes", "gauge"),
    ("process_network_receive_bytes_total", "counter"),
    ("process_network_transmit_bytes_total", "counter"),
    ("grpc_server_msg_received_total", "counter"),
    ("grpc_server_msg_sent_total", "counter"),
    ("etcd_server_client_requests_total", "counter"),
    ("etcd_server_request_duration_seconds", "histogram"),
    ("etcd_server_range_duration_seconds", "histogram"),
    ("etcd_server_apply_duration_seconds", "histogram"),
    ("etcd_server_healthcheck", "gauge"),
    ("etcd_server_healthchecks_total", "counter"),
    ("etcd_server_feature_enabled", "gauge"),
    ("etcd_debugging_server_alarms", "gauge"),
    ("quoin_write_answer_seconds", "histogram"),
    ("quoin_watch_delivery_seconds", "histogram"),
    ("quoin_loop_late_seconds", "histogram"),
    ("quoin_order_turn_seconds", "histogram"),
    ("quoin_thread_cpu_seconds_total", "counter"),
    ("quoin_major_faults_total", "counter"),
];

#[test]
fn every_name_is_there_in_prometheus_format() {
    let (server, _dir) = start();
    let families = scrape(server.address);
    for (name, kind) in NAMES {
        let family = families
            .get(*name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(family.kind, *kind, "{name}");
    }
    assert!(!families.contains_key("grpc_server_handling_seconds"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_with(&dir.path().join("data"), &["--metrics=extensive"]);
    let families = scrape(server.address);
    assert_eq!(families["grpc_server_handling_seconds"].kind, "histogram");
}

#[test]
fn the_page_on_compatibility_lists_every_metric_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_with(&dir.path().join("data"), &["--metrics=extensive"]);
    let mut families = scrape(server.address);
    let page = include_str!("../../docs/compatibility.md");
    let (_, table) = page.split_once("| metrics | | |").expect("the table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let mut of_etcd: BTreeMap<&str, &str> = include_str!("etcd-3.7.3-metrics.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("a name and a type"))
        .collect();
    assert!(of_etcd.len() > 140);
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (grade, remark) = (cells[2], cells[3]);
        let is_served = ["same", "better", "own"].contains(&grade);
        assert!(is_served || ["not yet", "not"].contains(&grade), "{row}");
        assert!(is_served || !remark.is_empty(), "no reason: {row}");
        for name in cells[1].split('`').skip(1).step_by(2) {
            if name.starts_with("--") {
                continue;
            }
            let fits = |family: &str| match name.strip_suffix('*') {
                Some(begin) => family.starts_with(begin),
                None => family == name,
            };
            let served = families.keys().any(|family| fits(family));
            assert_eq!(served, is_served, "{name}: {row}");
            let known = of_etcd.keys().any(|family| fits(family));
            assert_eq!(known, grade != "own", "{name}: {row}");
            for (family, kind) in of_etcd.iter().filter(|(family, _)| fits(family)) {
                if let Some(found) = families.get(*family) {
                    let may_differ = remark.contains("a counter, not a gauge");
                    assert!(
                        found.kind == *kind || may_differ,
                        "{family}: {}",
                        found.kind
                    );
                }
            }
            of_etcd.retain(|family, _| !fits(family));
            families.retain(|family, _| !fits(family));
        }
    }
    let left: Vec<_> = families.keys().collect();
    assert!(left.is_empty(), "not listed: {left:?}");
    assert!(of_etcd.is_empty(), "etcd's, and not listed: {of_etcd:?}");
}

#[test]
fn what_was_done_is_counted() {
    let (server, _dir) = start();
    let before = scrape(server.address);
    raw::run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        for number in 0..20u8 {
            let answer = call(&client, PUT, put(&[b'k', number], b"value")).await;
            assert_eq!(answer.status.as_deref(), Some("0"));
        }
        for _ in 0..5 {
            call(&client, RANGE, get(b"k")).await;
        }
        // No key: refused.
        let answer = call(&client, PUT, framed(&[])).await;
        assert_eq!(answer.status.as_deref(), Some("3"));
    });
    let txn = r#"{"success":[{"requestDeleteRange":{"key":"awA="}},{"requestPut":{"key":"eA=="}},{"requestRange":{"key":"eA=="}}]}"#;
    assert_eq!(ask(server.address, "POST", "/v3/kv/txn", txn).0, 200);
    let lease = ask(
        server.address,
        "POST",
        "/v3/lease/grant",
        r#"{"TTL":60,"ID":7}"#,
    );
    assert_eq!(lease.0, 200);
    let renewed = ask(server.address, "POST", "/v3/lease/keepalive", r#"{"ID":7}"#);
    assert_eq!(renewed.0, 200);
    let revoked = ask(server.address, "POST", "/v3/lease/revoke", r#"{"ID":7}"#);
    assert_eq!(revoked.0, 200);
    assert_eq!(ask(server.address, "GET", "/health", "").0, 200);
    assert_eq!(ask(server.address, "GET", "/livez", "").0, 200);
    let ready = "/readyz/linearizable_read";
    assert_eq!(ask(server.address, "GET", ready, "").0, 200);
    let after = scrape(server.address);
    let grown = |name: &str, labels: &[(&str, &str)]| {
        value(&after, name, labels) - value(&before, name, labels)
    };
    let put = ("grpc_method", "Put");
    let kv = ("grpc_service", "etcdserverpb.KV");
    let unary = ("grpc_type", "unary");
    for (name, labels, expected) in [
        ("grpc_server_started_total", &[put, kv, unary][..], 21.0),
        (
            "grpc_server_handled_total",
            &[put, ("grpc_code", "OK")],
            20.0,
        ),
        (
            "grpc_server_handled_total",
            &[("grpc_method", "Range"), ("grpc_code", "OK")],
            5.0,
        ),
        (
            "grpc_server_handled_total",
            &[("grpc_method", "Txn"), ("grpc_code", "OK")],
            1.0,
        ),
        ("etcd_server_health_success", &[], 1.0),
        ("etcd_server_health_failures", &[], 0.0),
        ("etcd_mvcc_put_total", &[], 21.0),
        ("etcd_mvcc_delete_total", &[], 1.0),
        ("etcd_mvcc_txn_total", &[], 1.0),
        ("etcd_debugging_mvcc_keys_total", &[], 20.0),
        ("etcd_debugging_mvcc_current_revision", &[], 21.0),
        ("etcd_debugging_mvcc_total_put_size_in_bytes", &[], 140.0),
        ("etcd_debugging_lease_granted_total", &[], 1.0),
        ("etcd_debugging_lease_renewed_total", &[], 1.0),
        ("etcd_debugging_lease_revoked_total", &[], 1.0),
    ] {
        assert_eq!(grown(name, labels), expected, "{name}{labels:?}");
    }
    for (name, labels, expected) in [
        (
            "grpc_server_msg_received_total",
            &[put, kv, unary][..],
            21.0,
        ),
        ("grpc_server_msg_sent_total", &[put, kv, unary], 20.0),
        ("grpc_server_msg_sent_total", &[("grpc_method", "Txn")], 1.0),
        (
            "etcd_server_client_requests_total",
            &[("client_api_version", "unknown"), ("type", "unary")],
            29.0,
        ),
        (
            "etcd_server_client_requests_total",
            &[("client_api_version", "unknown"), ("type", "stream")],
            1.0,
        ),
        (
            "etcd_server_request_duration_seconds_count",
            &[("type", "Put"), ("success", "true")],
            20.0,
        ),
        (
            "etcd_server_range_duration_seconds_count",
            &[("success", "true")],
            5.0,
        ),
        (
            "etcd_server_healthchecks_total",
            &[("name", "linearizable_read"), ("status", "success")],
            1.0,
        ),
        (
            "etcd_server_healthchecks_total",
            &[("type", "livez"), ("status", "success")],
            1.0,
        ),
    ] {
        assert_eq!(grown(name, labels), expected, "{name}{labels:?}");
    }
    let failed = [("type", "Put"), ("success", "false")];
    let failed = value(
        &after,
        "etcd_server_request_duration_seconds_count",
        &failed,
    );
    assert_eq!(failed, 1.0);
    for labels in [
        [("name", "serializable_read"), ("type", "livez")],
        [("name", "linearizable_read"), ("type", "readyz")],
    ] {
        assert_eq!(value(&after, "etcd_server_healthcheck", &labels), 1.0);
    }
    assert!(grown("etcd_server_apply_duration_seconds_count", &[]) >= 20.0);
    assert!(grown("process_network_receive_bytes_total", &[]) > 0.0);
    // Of one write for each message of answers, which here come one by one.
    let (of_answers, _) = sums(&before, &after, "quoin_write_answer_seconds");
    assert!(of_answers >= 20.0, "{of_answers}");
    let refused = [put, ("grpc_code", "InvalidArgument")];
    assert_eq!(value(&after, "grpc_server_handled_total", &refused), 1.0);
    assert!(grown("etcd_mvcc_range_total", &[]) >= 6.0);
    assert!(grown("etcd_disk_wal_fsync_duration_seconds_count", &[]) >= 20.0);
    assert!(grown("etcd_disk_wal_write_bytes_total", &[]) >= 140.0);
    assert!(grown("etcd_network_client_grpc_received_bytes_total", &[]) >= 20.0 * 11.0);
    assert!(grown("etcd_network_client_grpc_sent_bytes_total", &[]) >= 25.0);
}

/// How much the count and the sum of a histogram have grown, in all its series.
fn sums(before: &Families, after: &Families, name: &str) -> (f64, f64) {
    let of = |families: &Families, suffix: &str| -> f64 {
        let samples = &families[name].samples[&format!("{name}{suffix}")];
        samples.iter().map(|(_, value)| value).sum()
    };
    let grown = |suffix| of(after, suffix) - of(before, suffix);
    (grown("_count"), grown("_sum"))
}

#[test]
fn alarms_gates_and_the_delivery_of_events_are_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gates = "--feature-gates=InitialCorruptCheck=true";
    let server = Server::start_with(&dir.path().join("data"), &[gates]);
    let before = scrape(server.address);
    let feature = |name: &str| value(&before, "etcd_server_feature_enabled", &[("name", name)]);
    assert_eq!(feature("InitialCorruptCheck"), 1.0);
    assert_eq!(feature("LeaseCheckpoint"), 0.0);
    let no_space = [("alarm_type", "NOSPACE")];
    let raised = |families: &Families| value(families, "etcd_debugging_server_alarms", &no_space);
    assert_eq!(raised(&before), 0.0);

    let mut watch = TcpStream::connect(server.address).expect("it serves");
    let request = r#"{"create_request":{"key":"aw=="}}"#;
    let length = request.len();
    write!(
        watch,
        "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{request}"
    )
    .expect("it is read");
    let mut lines = BufReader::new(watch);
    let mut hear = |what: &str| {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            let length = lines.read_line(&mut line).expect("it is told");
            assert!(length > 0, "it ended");
        }
    };
    hear("created");
    let put = r#"{"key":"aw==","value":"eA=="}"#;
    assert_eq!(ask(server.address, "POST", "/v3/kv/put", put).0, 200);
    hear("events");
    let alarm = r#"{"action":"ACTIVATE","alarm":"NOSPACE","memberID":"7"}"#;
    let answer = ask(server.address, "POST", "/v3/maintenance/alarm", alarm);
    assert_eq!(answer.0, 200);
    let after = scrape(server.address);
    assert_eq!(raised(&after), 1.0);
    let data = [("name", "data_corruption")];
    let data = |families: &Families| value(families, "etcd_server_healthcheck", &data);
    assert_eq!(data(&after), 1.0);
    let corrupt = r#"{"action":"ACTIVATE","alarm":"CORRUPT","memberID":"7"}"#;
    let answer = ask(server.address, "POST", "/v3/maintenance/alarm", corrupt);
    assert_eq!(answer.0, 200);
    assert_eq!(data(&scrape(server.address)), 0.0);
    let (told, seconds) = sums(&before, &after, "quoin_watch_delivery_seconds");
    assert!(told >= 1.0 && seconds > 0.0, "{told} {seconds}");
}

/// A number that `Status` tells, which JSON writes as a text; 0 is left out.
fn told(status: &str, name: &str) -> i64 {
    let Some((_, rest)) = status.split_once(&format!("\"{name}\":\"")) else {
        return 0;
    };
    let (number, _) = rest.split_once('"').expect("the text ends");
    number.parse().expect("a number")
}

#[test]
fn etcds_alert_of_the_quota_comes_before_the_quota_is_met() {
    const QUOTA: i64 = 2_000_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let quota = format!("--quota-backend-bytes={QUOTA}");
    let server = Server::start_with(&dir.path().join("data"), &[&quota]);
    let value = "A".repeat(13_336);
    let (mut percent, mut refused) = (0.0, None);
    for number in 0..1_000 {
        let body = format!(r#"{{"key":"{:0>4}","value":"{value}"}}"#, number);
        let (status, answer) = ask(server.address, "POST", "/v3/kv/put", &body);
        if status != 200 {
            refused = Some(answer);
            break;
        }
        let families = scrape(server.address);
        let of = |name: &str| self::value(&families, name, &[]);
        let total = of("etcd_mvcc_db_total_size_in_bytes");
        assert!(of("etcd_mvcc_db_total_size_in_use_in_bytes") <= total);
        // As the alert does it.
        percent = total / of("etcd_server_quota_backend_bytes") * 100.0;
    }
    let refused = refused.expect("the quota is met");
    assert!(refused.contains("database space exceeded"), "{refused}");
    assert!(percent > 95.0, "the last put was taken at {percent} %");
    let (_, status) = ask(server.address, "POST", "/v3/maintenance/status", "{}");
    let (total, in_use) = (told(&status, "dbSize"), told(&status, "dbSizeInUse"));
    assert!(QUOTA * 95 / 100 < in_use && in_use <= total, "{status}");
    assert_eq!(told(&status, "dbSizeQuota"), QUOTA);
}

#[test]
fn a_quota_that_is_switched_off_is_never_near() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_with(&dir.path().join("data"), &["--quota-backend-bytes=-5"]);
    let families = scrape(server.address);
    // With 0 the alert would divide by it, and fire for ever.
    assert_eq!(
        value(&families, "etcd_server_quota_backend_bytes", &[]),
        -1.0
    );
    let (_, status) = ask(server.address, "POST", "/v3/maintenance/status", "{}");
    assert_eq!(told(&status, "dbSizeQuota"), -1, "{status}");
}
