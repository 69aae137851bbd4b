//! The endpoints over HTTP/1.1: which there are, and what they say.
#![forbid(unsafe_code)]

use super::json::schema::{PATHS, Path, REFUSED};
use super::json::{put_text, quoted, to_message};
use super::member::{CLUSTER_VERSION, Condition, ETCD_VERSION, STORAGE_VERSION};
use super::status::{Code, Status};
use std::fmt::Write as _;

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub enum Route {
    /// A call through the JSON gateway.
    Call(&'static Path),
    /// A call of etcd's gateway that is refused: its name.
    Refused(&'static str),
    /// `/health`.
    Health,
    /// `/readyz`, or `/livez` if so, or one check of theirs.
    Checks(&'static [Check], bool),
    /// `/version`.
    Version,
    /// `/metrics`.
    Metrics,
    /// `OPTIONS`: what may be asked from other sites; whether it asks about metrics or health.
    Preflight(bool),
    /// A path of the gateway that is none.
    NoCall,
    /// The gateway itself, whose paths are behind a slash.
    Gateway,
    /// A path of the gateway, not asked with POST.
    CallWithoutPost,
    /// Any other path.
    Nothing,
    /// A path that is there, asked in a way that is not served.
    WrongMethod,
}

/// What `/livez` and `/readyz` look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No damaged data is known.
    DataCorruption,
    /// This member's state can be read.
    SerializableRead,
    /// The newest state can be read.
    LinearizableRead,
    /// The member votes.
    NonLearner,
}

impl Check {
    const LIVE: &'static [Check] = &[Check::SerializableRead];
    const READY: &'static [Check] = &Check::ALL;

    /// Every check.
    pub const ALL: [Check; 4] = [
        Check::DataCorruption,
        Check::SerializableRead,
        Check::LinearizableRead,
        Check::NonLearner,
    ];

    /// Whether `/livez` makes this check; `/readyz` makes each.
    pub fn is_of_life(self) -> bool {
        Check::LIVE.contains(&self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

/// Finds what a method and a path ask for.
pub fn route(method: &str, path: &str) -> Route {
    if method == "OPTIONS" {
        let watched = ["/health", "/metrics"].contains(&path) || checks(path).is_some();
        return Route::Preflight(watched);
    }
    let behind = path
        .strip_prefix("/v3")
        .map(|rest| rest.strip_prefix("beta").unwrap_or(rest));
    if path == "/v3" {
        return Route::Gateway;
    }
    if let Some(call) = behind.filter(|rest| rest.starts_with('/')) {
        if let Some((_, name)) = REFUSED.iter().find(|(known, _)| *known == call) {
            return match method {
                "POST" => Route::Refused(name),
                _ => Route::CallWithoutPost,
            };
        }
        return match PATHS.iter().find(|(known, ..)| *known == call) {
            Some(found) if method == "POST" => Route::Call(found),
            Some(_) => Route::CallWithoutPost,
            None => Route::NoCall,
        };
    }
    let found = match path {
        "/health" => Route::Health,
        "/version" => Route::Version,
        "/metrics" => Route::Metrics,
        path => match checks(path) {
            Some(checks) => Route::Checks(checks, path.starts_with("/livez")),
            None => return Route::Nothing,
        },
    };
    match method {
        "GET" => found,
        _ => Route::WrongMethod,
    }
}

fn checks(path: &str) -> Option<&'static [Check]> {
    for (prefix, all) in [("/livez", Check::LIVE), ("/readyz", Check::READY)] {
        match path.strip_prefix(prefix) {
            Some("") => return Some(all),
            Some(rest) => {
                let name = rest.strip_prefix('/')?;
                let at = all.iter().position(|check| check.name() == name)?;
                return Some(&all[at..=at]);
            }
            None => {}
        }
    }
    None
}

/// The values of a name in a query, as they stand there.
pub fn query<'q>(query: Option<&'q str>, name: &'q str) -> impl Iterator<Item = &'q str> {
    let pairs = query.unwrap_or("").split('&');
    pairs.filter_map(move |pair| match pair.split_once('=') {
        Some((key, value)) if key == name => Some(value),
        None if pair == name => Some(""),
        _ => None,
    })
}

/// What `/health` says: how it is, or why it is not well.
pub fn health(reason: Option<&str>) -> String {
    let well = reason.is_none();
    // etcd ends what it says of a failure, and nothing else, with the line.
    let end = if well { "" } else { "\n" };
    let reason = quoted(reason.unwrap_or(""));
    format!("{{\"health\":\"{well}\",\"reason\":{reason}}}{end}")
}

/// What `/livez` and `/readyz` say of their checks, and whether all is well.
pub fn checked(results: &[(Check, Result<(), String>)], verbose: bool) -> (bool, String) {
    let mut text = String::new();
    let mut well = true;
    for (check, result) in results {
        // Writing to a string does not fail, here and below.
        let _ = match result {
            Ok(()) => writeln!(text, "[+]{} ok", check.name()),
            Err(reason) => {
                well = false;
                writeln!(text, "[-]{} failed: {reason}", check.name())
            }
        };
    }
    match (well, verbose) {
        (true, false) => (true, "ok\n".to_owned()),
        (true, true) => (true, text + "ok\n"),
        (false, _) => (false, text + "\n"),
    }
}

/// What `/version` says.
pub fn version(product: &str) -> String {
    format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{CLUSTER_VERSION}\",\
         \"storage\":\"{STORAGE_VERSION}\",\"quoin\":\"{product}\"}}"
    )
}

/// A refusal as the gateway says it.
pub fn refusal(status: &Status) -> String {
    let message = quoted(&status.message);
    format!("{{\"code\":{},\"message\":{message}}}", status.code as u8)
}

/// The same where answers stand on lines.
pub fn refused_line(status: &Status) -> String {
    format!("{{\"error\":{}}}\n", refusal(status))
}

/// The HTTP status that stands for a code of gRPC.
pub fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Canceled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

/// The message of a call, in protobuf's bytes, out of its text. However long the text may be, the
/// message is held against the same bound as over gRPC.
pub fn message(path: &Path, text: &[u8], bytes_max: usize) -> Result<Vec<u8>, Status> {
    let (_, _, fields, _) = path;
    let message =
        to_message(fields, text).map_err(|what| Status::new(Code::InvalidArgument, what))?;
    match message.len() {
        length if length > bytes_max => Err(Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({length} vs. {bytes_max})"),
        )),
        _ => Ok(message),
    }
}

/// Where a path leads that is not written in the shortest way, as Go's server has it: without
/// empty parts, `.` and `..`; `None` if nothing is to be mended.
pub fn shorter(path: &str) -> Option<String> {
    let mended = path.contains("//") || path.split('/').any(|part| part == "." || part == "..");
    if !mended || !path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut shorter = String::with_capacity(path.len());
    for part in &parts {
        shorter.push('/');
        shorter.push_str(part);
    }
    if path.ends_with('/') || parts.is_empty() {
        shorter.push('/');
    }
    Some(shorter)
}

/// The answer to a call, as text; a stream's answers stand in a `result`, each on a line.
pub fn answer(path: &Path, message: &[u8]) -> Result<String, Status> {
    let (_, method, _, fields) = path;
    let mut text = String::with_capacity(message.len() * 3 / 2);
    let lines = method.is_stream() || method.gives_many();
    if lines {
        text.push_str("{\"result\":");
    }
    put_text(&mut text, fields, message)
        .map_err(|malformed| Status::new(Code::Internal, malformed.0))?;
    if lines {
        text.push_str("}\n");
    }
    Ok(text)
}

/// What `/metrics` says of the store and its member.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// How the member is.
    pub condition: Condition,
    /// Its id.
    pub member_id: u64,
    /// The store's revision.
    pub revision: i64,
    /// The oldest readable revision; below 0 if there was no compaction yet.
    pub compacted: i64,
}

/// Appends the figures in Prometheus' text format, by the names that etcd gives them.
pub fn metrics(figures: &Figures, product: &str) -> String {
    let mut text = String::new();
    let condition = &figures.condition;
    let leads = condition.leader != 0 && condition.leader == figures.member_id;
    let applied = condition.applied_index as i64;
    for (name, what, value) in [
        (
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not.",
            i64::from(condition.leader != 0),
        ),
        (
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            i64::from(leads),
        ),
        (
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            0,
        ),
        (
            "etcd_server_proposals_committed_total",
            "The number of the newest log entry known to be committed.",
            applied,
        ),
        (
            "etcd_server_proposals_applied_total",
            "The number of the newest log entry that is applied.",
            applied,
        ),
        (
            "etcd_server_quota_backend_bytes",
            "The size of the store at which writes are refused, in bytes; -1 is no bound.",
            condition.quota_bytes,
        ),
        (
            "etcd_mvcc_db_total_size_in_bytes",
            "The store on disk and in memory alone, in bytes; at least what is in use.",
            condition.total_bytes as i64,
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "What of the store counts against the quota, in bytes.",
            condition.live_bytes as i64,
        ),
        (
            "etcd_debugging_mvcc_current_revision",
            "The store's revision.",
            figures.revision,
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction; -1 if there was none.",
            figures.compacted,
        ),
    ] {
        put_metric(&mut text, (name, "gauge", what), "", value);
    }
    let id = format!("{{server_id=\"{:x}\"}}", figures.member_id);
    let name = "etcd_debugging_server_alarms";
    let _ = write!(
        text,
        "# HELP {name} Alarms of the cluster: 1 while one of the type is raised.\n# TYPE {name} gauge\n"
    );
    for (kind, is_raised) in [
        ("CORRUPT", condition.is_corrupt),
        ("NOSPACE", condition.is_out_of_space),
    ] {
        let (id, is_raised) = (figures.member_id, u8::from(is_raised));
        let _ = writeln!(
            text,
            "{name}{{server_id=\"{id:x}\",alarm_type=\"{kind}\"}} {is_raised}"
        );
    }
    for (name, what, label) in [
        ("etcd_server_id", "The member's id in hexadecimal.", id),
        (
            "etcd_server_version",
            "The release of etcd whose API is served.",
            format!("{{server_version=\"{ETCD_VERSION}\"}}"),
        ),
        (
            "etcd_cluster_version",
            "The version of the cluster.",
            format!("{{cluster_version=\"{CLUSTER_VERSION}\"}}"),
        ),
        (
            "quoin_build_info",
            "The version of quoin.",
            format!("{{version=\"{product}\"}}"),
        ),
    ] {
        put_metric(&mut text, (name, "gauge", what), &label, 1);
    }
    text
}

/// Appends one figure: its name, its type and what it is, its labels, and its value.
pub fn put_metric(
    text: &mut String,
    (name, kind, what): (&str, &str, &str),
    labels: &str,
    value: impl std::fmt::Display,
) {
    let _ = write!(
        text,
        "# HELP {name} {what}\n# TYPE {name} {kind}\n{name}{labels} {value}\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_etcds_do() {
        let call = |method, path| match route(method, path) {
            Route::Call((found, ..)) => *found,
            other => panic!("{other:?}"),
        };
        assert_eq!(call("POST", "/v3/kv/put"), "/kv/put");
        assert_eq!(call("POST", "/v3beta/kv/put"), "/kv/put");
        assert!(matches!(route("GET", "/v3/kv/put"), Route::CallWithoutPost));
        assert!(matches!(route("POST", "/v3/kv/none"), Route::NoCall));
        assert!(matches!(route("GET", "/v3"), Route::Gateway));
        assert!(matches!(route("POST", "/v2/keys"), Route::Nothing));
        assert!(matches!(route("POST", "/health"), Route::WrongMethod));
        assert!(matches!(route("OPTIONS", "/x"), Route::Preflight(false)));
        assert!(matches!(
            route("GET", "/readyz/non_learner"),
            Route::Checks([Check::NonLearner], false)
        ));
        assert!(matches!(route("GET", "/livez/non_learner"), Route::Nothing));
        assert!(matches!(route("GET", "/livez/"), Route::Nothing));
        let preflight = route("OPTIONS", "/health");
        assert!(matches!(preflight, Route::Preflight(true)));
    }

    #[test]
    fn paths_are_made_shorter_as_gos_server_does() {
        for (path, leads) in [
            ("/v3//kv/range", Some("/v3/kv/range")),
            ("//v3/kv/../kv/./range", Some("/v3/kv/range")),
            ("/../..//", Some("/")),
            ("/v3/kv//", Some("/v3/kv/")),
            ("/v3/", None),
            ("/v3/kv/range/", None),
            ("/v3/...", None),
            ("*", None),
        ] {
            assert_eq!(shorter(path).as_deref(), leads, "{path}");
        }
    }

    #[test]
    fn checks_are_listed_if_asked_for_or_failed() {
        let fine = [(Check::SerializableRead, Ok(()))];
        assert_eq!(checked(&fine, false), (true, "ok\n".to_owned()));
        let listed = "[+]serializable_read ok\nok\n".to_owned();
        assert_eq!(checked(&fine, true), (true, listed));
        let failed = [(Check::LinearizableRead, Err("no leader".to_owned()))];
        let text = "[-]linearizable_read failed: no leader\n\n".to_owned();
        assert_eq!(checked(&failed, false), (false, text));
    }

    #[test]
    fn queries_are_taken_apart() {
        let all = |name| query(Some("exclude=a&verbose&exclude=b"), name).collect::<Vec<_>>();
        assert_eq!(all("exclude"), ["a", "b"]);
        assert_eq!(all("verbose"), [""]);
        assert!(all("other").is_empty());
        assert_eq!(query(None, "x").count(), 0);
    }

    #[test]
    fn metrics_are_in_the_format_of_prometheus() {
        let figures = Figures {
            member_id: 0xab,
            revision: 7,
            ..Figures::default()
        };
        let text = metrics(&figures, "1.2.3");
        assert!(text.contains("# TYPE etcd_server_has_leader gauge\netcd_server_has_leader 0\n"));
        assert!(text.contains("\netcd_server_id{server_id=\"ab\"} 1\n"));
        assert!(text.contains("\netcd_debugging_mvcc_current_revision 7\n"));
        for line in text.lines() {
            let words = line.split(' ').count();
            assert!(line.starts_with("# ") || words == 2, "{line}");
        }
    }
}
