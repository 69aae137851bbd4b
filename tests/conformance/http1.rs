//! The JSON gateway, health, version and metrics, over HTTP/1.1 as etcd says them.

use super::{Server, start};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Sends bytes on a connection of their own; status, headers and body.
pub fn send(address: SocketAddr, bytes: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("it serves");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("a socket");
    stream.write_all(bytes).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let head = head.to_ascii_lowercase();
    (status.expect("a status"), head, body.to_owned())
}

pub fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (status, _, body) = send(address, request.as_bytes());
    (status, body)
}

/// The header of an answer, at a revision.
fn header(revision: u32) -> String {
    format!(
        r#"{{"header":{{"cluster_id":"14841639068965178418","member_id":"10276657743932975437","revision":"{revision}","raft_term":"2"}}"#
    )
}

#[test]
fn the_json_gateway_answers_as_etcds_does() {
    let (server, _dir) = start();
    let call = |path: &str, body: &str| ask(server.address, "POST", path, body);
    let pair =
        r#"{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}"#;
    let found = format!(r#"{},"kvs":[{pair}],"count":"1"}}"#, header(2));
    for (path, body, status, expected) in [
        (
            "/v3/kv/put",
            r#"{"key":"Zm9v","value":"YmFy"}"#,
            200,
            header(2) + "}",
        ),
        (
            "/v3/kv/range",
            r#"{"key":"Zm9v","sortOrder":"ASCEND","limit":"1","xx":1}"#,
            200,
            found.clone(),
        ),
        (
            "/v3beta/kv/range",
            r#"{"key":"Zm9v","sort_order":"XX"}"#,
            200,
            found.clone(),
        ),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":"YmFy"}],"success":[{"requestRange":{"key":"Zm9v"}}]}"#,
            200,
            format!(
                r#"{},"succeeded":true,"responses":[{{"response_range":{{"header":{{"revision":"2"}},"kvs":[{pair}],"count":"1"}}}}]}}"#,
                header(2)
            ),
        ),
        (
            "/v3/lease/keepalive",
            r#"{"ID":7}"#,
            200,
            // A stream comes in chunks.
            format!(
                "87\r\n{{\"result\":{},\"ID\":\"7\"}}}}\n\r\n0\r\n\r\n",
                header(2)
            ),
        ),
        ("/v3/maintenance/defragment", "", 200, "{}".to_owned()),
        (
            "/v3/maintenance/hashkv",
            r#"{"revision":"2"}"#,
            200,
            header(2) + r#","hash":3305255506,"compact_revision":"-1","hash_revision":"2"}"#,
        ),
        (
            "/v3/maintenance/downgrade",
            r#"{"action":"VALIDATE","version":"3.6"}"#,
            200,
            header(2) + r#","version":"3.7"}"#,
        ),
        (
            "/v3/maintenance/transfer-leadership",
            r#"{"targetID":"5"}"#,
            400,
            r#"{"code":9,"message":"etcdserver: bad leader transferee"}"#.to_owned(),
        ),
        (
            "/v3/auth/authenticate",
            r#"{"name":"a","password":"b"}"#,
            400,
            r#"{"code":9,"message":"etcdserver: authentication is not enabled"}"#.to_owned(),
        ),
        (
            "/v3/cluster/member/add",
            "{}",
            501,
            r#"{"code":12,"message":"this version of quoin does not serve etcdserverpb.Cluster/MemberAdd"}"#
                .to_owned(),
        ),
        (
            "/v3/kv/put",
            r#"{"key":""}"#,
            400,
            r#"{"code":3,"message":"etcdserver: key is not provided"}"#.to_owned(),
        ),
        (
            "/v3/nothing",
            "",
            404,
            r#"{"code":5,"message":"Not Found"}"#.to_owned(),
        ),
    ] {
        assert_eq!(call(path, body), (status, expected), "{path} {body}");
    }
    let (status, body) = call("/v3/kv/put", "{bad");
    assert_eq!(status, 400);
    assert!(body.starts_with(r#"{"code":3,"message":""#), "{body}");
    let (status, body) = call("/v3/maintenance/status", "{}");
    assert_eq!(status, 200);
    assert!(body.contains(r#""version":"3.7.3","dbSize":""#), "{body}");
    let wrong = ask(server.address, "GET", "/v3/kv/range", "");
    let text = r#"{"code":12,"message":"Method Not Allowed"}"#.to_owned();
    assert_eq!(wrong, (501, text));
}

#[test]
fn a_body_too_long_is_refused_where_its_client_can_read_it() {
    let (server, _dir) = start();
    // More than a message may hold, and far more than sockets do: the client sends on while it
    // has been answered.
    let long = format!(r#"{{"key":"{}"}}"#, "A".repeat(20 << 20));
    let refused = r#"{"code":8,"message":"grpc: received message larger than max"}"#;
    for _ in 0..20 {
        let answer = ask(server.address, "POST", "/v3/kv/put", &long);
        assert_eq!(answer, (429, refused.to_owned()));
        // Where nothing of a body is read at all.
        let (status, _) = ask(server.address, "POST", "/v3/nothing", &long);
        assert_eq!(status, 404);
    }
}

/// A stream through the gateway: its body stays open, and its answers come in chunks.
pub struct Stream {
    socket: BufReader<TcpStream>,
    kept: String,
}

impl Stream {
    pub fn open(address: SocketAddr, path: &str, body: &str) -> Stream {
        let mut socket = TcpStream::connect(address).expect("it serves");
        let limit = Some(Duration::from_secs(20));
        socket.set_read_timeout(limit).expect("a socket");
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("it is read");
        let mut stream = Stream {
            socket: BufReader::new(socket),
            kept: String::new(),
        };
        stream.say(body);
        stream
    }

    /// Sends a piece of the body.
    fn say(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        let socket = self.socket.get_mut();
        socket.write_all(chunk.as_bytes()).expect("it is read");
    }

    /// Ends the body.
    fn finish(&mut self) {
        let socket = self.socket.get_mut();
        socket.write_all(b"0\r\n\r\n").expect("it is read");
    }

    fn text_line(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("it goes on");
        line.trim_end().to_owned()
    }

    /// The headers of the answer.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = self.text_line();
            if line.is_empty() {
                return head.to_ascii_lowercase();
            }
            head += &(line + "\n");
        }
    }

    /// All chunks of the answer.
    fn chunks(&mut self) -> String {
        let mut text = Vec::new();
        loop {
            let size = self.text_line();
            let size = usize::from_str_radix(&size, 16).expect("a size");
            let mut chunk = vec![0; size + 2];
            self.socket.read_exact(&mut chunk).expect("a chunk");
            if size == 0 {
                return String::from_utf8(text).expect("text");
            }
            text.extend_from_slice(&chunk[..size]);
        }
    }

    /// The next line of the answer; empty at its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.kept.split_once('\n') {
                let line = line.to_owned();
                self.kept = rest.to_owned();
                return line;
            }
            let size = self.text_line();
            let size = usize::from_str_radix(&size, 16).expect("a size");
            let mut chunk = vec![0; size + 2];
            self.socket.read_exact(&mut chunk).expect("a chunk");
            if size == 0 {
                return String::new();
            }
            chunk.truncate(size);
            self.kept += std::str::from_utf8(&chunk).expect("text");
        }
    }
}

fn result(revision: u32, rest: &str) -> String {
    format!("{{\"result\":{}{rest}}}}}", header(revision))
}

#[test]
fn a_watch_through_the_gateway_goes_on_line_by_line() {
    let (server, _dir) = start();
    let call = |path: &str, body: &str| ask(server.address, "POST", path, body).0;
    let create = r#"{"create_request":{"key":"YQ=="}}"#;
    let mut watch = Stream::open(server.address, "/v3/watch", create);
    let head = watch.head();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(watch.line(), result(1, r#","created":true"#));
    assert_eq!(call("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#), 200);
    let put = r#","events":[{"kv":{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}}]"#;
    assert_eq!(watch.line(), result(2, put));
    // The body may go on, in pieces, and it may end: the watch stays.
    watch.say(r#"{"createRequest":{"key":"YQ==","startRevi"#);
    watch.say(r#"sion":2,"filters":["NODELETE"]}} {"cancel_request":{"watch_id":"0"}}{"progress"#);
    watch.say(r#"_request":{}}"#);
    watch.finish();
    let mut lines = Vec::new();
    for _ in 0..4 {
        lines.push(watch.line());
    }
    assert_eq!(lines[0], result(2, r#","watch_id":"1","created":true"#));
    lines.sort_by_key(String::len);
    assert_eq!(lines[0], result(2, r#","canceled":true"#));
    assert_eq!(lines[1], result(2, r#","watch_id":"-1""#));
    let replayed = put.replace(r#","events""#, r#","watch_id":"1","events""#);
    assert_eq!(lines[3], result(2, &replayed));
    assert_eq!(call("/v3/kv/deleterange", r#"{"key":"YQ=="}"#), 200);
    assert_eq!(call("/v3/kv/put", r#"{"key":"YQ=="}"#), 200);
    let put = r#","watch_id":"1","events":[{"kv":{"key":"YQ==","create_revision":"4","mod_revision":"4","version":"1"}}]"#;
    assert_eq!(watch.line(), result(4, put));
    // A stop ends it with a word.
    let stop = std::thread::spawn(|| server.terminate());
    let stopped = r#"{"error":{"code":14,"message":"etcdserver: server stopped"}}"#;
    assert_eq!(watch.line(), stopped);
    assert!(stop.join().expect("it stops").0.success());
}

#[test]
fn other_streams_of_the_gateway_answer_each_message() {
    let (server, _dir) = start();
    let call = |path: &str, body: &str| ask(server.address, "POST", path, body);
    assert_eq!(call("/v3/lease/grant", r#"{"TTL":600,"ID":100}"#).0, 200);
    let mut keep = Stream::open(server.address, "/v3/lease/keepalive", r#"{"ID":100}"#);
    keep.head();
    let kept = result(1, r#","ID":"100","TTL":"600""#);
    assert_eq!(keep.line(), kept);
    keep.say(r#"{"ID":"100"}{"ID":"#);
    assert_eq!(keep.line(), kept);
    keep.say("7}");
    assert_eq!(keep.line(), result(1, r#","ID":"7""#));
    keep.finish();
    assert_eq!(keep.line(), "");
    let (status, body) = call("/v3/lease/keepalive", "");
    assert_eq!((status, &*body), (200, "0\r\n\r\n"));

    let mut observe = Stream::open(server.address, "/v3/election/observe", r#"{"name":"ZQ=="}"#);
    observe.finish();
    let campaign = r#"{"name":"ZQ==","lease":100,"value":"dg=="}"#;
    let won = format!(
        r#"{},"leader":{{"name":"ZQ==","key":"ZS82NA==","rev":"2","lease":"100"}}}}"#,
        header(2)
    );
    assert_eq!(call("/v3/election/campaign", campaign), (200, won));
    observe.head();
    let leader = r#","kv":{"key":"ZS82NA==","create_revision":"2","mod_revision":"2","version":"1","value":"dg==","lease":"100"}"#;
    assert_eq!(observe.line(), result(2, leader));
    let locked = format!(r#"{},"key":"bC82NA=="}}"#, header(3));
    let lock = call("/v3/lock/lock", r#"{"name":"bA==","lease":"100"}"#);
    assert_eq!(lock, (200, locked));
    let nobody = (
        500,
        r#"{"code":2,"message":"election: no leader"}"#.to_owned(),
    );
    assert_eq!(call("/v3/election/leader", r#"{"name":"eA=="}"#), nobody);

    // What is no message ends a stream.
    let mut wrong = Stream::open(server.address, "/v3/watch", "{bad}");
    assert!(wrong.head().starts_with("http/1.1 400"));
    let create = r#"{"create_request":{}}x"#;
    let mut wrong = Stream::open(server.address, "/v3/watch", create);
    wrong.head();
    assert_eq!(wrong.line(), result(3, r#","created":true"#));
    assert!(wrong.line().starts_with(r#"{"error":{"code":3,"#));
    assert_eq!(wrong.line(), "");
}

#[test]
fn a_backup_comes_through_the_gateway_blob_by_blob() {
    let (server, _dir) = start();
    // More than sockets hold, and than one blob.
    let value = STANDARD.encode(vec![b'v'; 700_000]);
    for n in 0..8 {
        let body = format!(r#"{{"key":"{}","value":"{value}"}}"#, STANDARD.encode([n]));
        assert_eq!(ask(server.address, "POST", "/v3/kv/put", &body).0, 200);
    }
    let mut backup = Stream::open(server.address, "/v3/maintenance/snapshot", "");
    let head = backup.head();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (mut file, mut last) = (Vec::new(), Vec::new());
    let mut remaining = u64::MAX;
    loop {
        let line = backup.line();
        if line.is_empty() {
            break;
        }
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let part = &line["result"];
        let left = part["remaining_bytes"].as_str().unwrap_or("0");
        let left: u64 = left.parse().expect("a number");
        assert!(left < remaining || left == 0, "{left} behind {remaining}");
        remaining = left;
        assert_eq!(part["version"], "3.7.0");
        file.extend(std::mem::take(&mut last));
        let blob = part["blob"].as_str().expect("a blob");
        last = STANDARD.decode(blob).expect("base64");
    }
    assert!(file.len() > 8 * 700_000, "{}", file.len());
    assert_eq!(last, sha2::Sha256::digest(&file).to_vec());
}

/// What a body in chunks says, if it comes to an end.
fn unchunked(mut body: &str) -> Option<String> {
    let mut text = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        text.push_str(rest.get(..length)?);
        body = rest.get(length..)?.strip_prefix("\r\n")?;
        if length == 0 {
            return Some(text);
        }
    }
}

#[test]
fn a_long_range_comes_through_the_gateway_in_chunks_and_is_of_one_revision() {
    let (server, _dir) = start();
    let call = |path: &str, body: &str| ask(server.address, "POST", path, body);
    // More than sockets hold.
    let (rounds, each) = (12u8, 80u8);
    for round in 0..rounds {
        let puts = (0..each).map(|n| {
            let key = STANDARD.encode([b'k', round, n]);
            let value = STANDARD.encode(vec![n; 10_000]);
            format!(r#"{{"request_put":{{"key":"{key}","value":"{value}"}}}}"#)
        });
        let puts: Vec<String> = puts.collect();
        let txn = format!(r#"{{"success":[{}]}}"#, puts.join(","));
        assert_eq!(call("/v3/kv/txn", &txn).0, 200);
    }
    let all = r#""key":"aw==","range_end":"bA==""#;
    for sorted in [false, true] {
        let order = match sorted {
            true => r#","sort_order":2,"sort_target":"VALUE""#,
            false => "",
        };
        let body = format!("{{{all}{order}}}");
        let mut stream = Stream::open(server.address, "/v3/kv/range", &body);
        stream.finish();
        let head = stream.head();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        // Nobody waits for who does not read.
        let write = format!(
            r#"{{"key":"{}","value":"eA=="}}"#,
            STANDARD.encode([b'k', 0, 0])
        );
        for _ in 0..20 {
            assert_eq!(call("/v3/kv/put", &write).0, 200);
        }
        let json: serde_json::Value = serde_json::from_str(&stream.chunks()).expect("JSON");
        let pairs = json["kvs"].as_array().expect("pairs");
        let count = usize::from(rounds) * usize::from(each);
        assert_eq!(
            (pairs.len(), &json["count"]),
            (count, &count.to_string().into())
        );
        let keys = pairs.iter().map(|pair| {
            let key = STANDARD.decode(pair["key"].as_str().expect("a key"));
            key.expect("base64")
        });
        let mut expected: Vec<[u8; 3]> = (0..rounds)
            .flat_map(|round| (0..each).map(move |n| [b'k', round, n]))
            .collect();
        if sorted {
            // The first has been written by now, to a value above all others.
            expected.sort_by_key(|[_, round, n]| ((*round, *n) != (0, 0), u8::MAX - n));
        }
        assert!(keys.eq(expected.iter().map(|key| key.to_vec())));
        let written = pairs.iter().filter(|pair| pair["value"] == "eA==").count();
        assert_eq!(written, usize::from(sorted));
    }

    // Behind a long answer the connection serves on, and a short one says how long it is.
    let request = |body: &str, more: &str| {
        let length = body.len();
        format!(
            "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let long = request(&format!("{{{all}}}"), "");
    let short = request(r#"{"key":"aw=="}"#, "Connection: close\r\n");
    let (status, _, body) = send(server.address, (long + &short).as_bytes());
    assert_eq!(status, 200);
    let (chunks, rest) = body.split_once("HTTP/1.1 200 OK").expect("two answers");
    assert!(unchunked(chunks).is_some());
    assert!(rest.contains("content-length:"), "{rest}");
}

#[test]
fn a_client_that_leaves_takes_its_lock_request_along() {
    let (server, _dir) = start();
    let call = |path: &str, body: &str| ask(server.address, "POST", path, body);
    for lease in ["1", "2"] {
        call("/v3/lease/grant", &format!(r#"{{"TTL":600,"ID":{lease}}}"#));
    }
    call("/v3/lock/lock", r#"{"name":"bA==","lease":"1"}"#);
    let mut waiting = Stream::open(
        server.address,
        "/v3/lock/lock",
        r#"{"name":"bA==","lease":2}"#,
    );
    waiting.finish();
    let count = || {
        let (_, text) = call(
            "/v3/kv/range",
            r#"{"key":"bC8=","range_end":"bDA=","count_only":true}"#,
        );
        text.split("\"count\":\"")
            .nth(1)
            .and_then(|rest| rest.chars().next())
    };
    while count() != Some('2') {
        std::thread::yield_now();
    }
    drop(waiting);
    while count() != Some('1') {
        std::thread::yield_now();
    }
}

#[test]
fn a_call_through_the_gateway_is_over_when_its_time_is() {
    let (server, _dir) = start();
    let timed = |timeout: &str, path: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nGrpc-Timeout: {timeout}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let (status, _, body) = send(server.address, request.as_bytes());
        (status, body)
    };
    let over = r#"{"code":4,"message":"context deadline exceeded"}"#;
    let put = r#"{"key":"Zm9v"}"#;
    for (timeout, status) in [
        ("", 200),
        ("30S", 200),
        ("123456789m", 200),
        ("1n", 504),
        ("-1S", 504),
    ] {
        let (told, body) = timed(timeout, "/v3/kv/put", put);
        assert_eq!(told, status, "{timeout}");
        assert_eq!(status == 504, body == over, "{timeout}: {body}");
    }
    for path in ["/v3/kv/put", "/v3/watch"] {
        let text = r#"{"code":3,"message":"invalid grpc-timeout: x"}"#;
        assert_eq!(timed("x", path, "{bad"), (400, text.to_owned()));
    }
    for lease in ["1", "2"] {
        let body = format!(r#"{{"TTL":600,"ID":{lease}}}"#);
        ask(server.address, "POST", "/v3/lease/grant", &body);
    }
    let lock = |lease| format!(r#"{{"name":"bA==","lease":{lease}}}"#);
    assert_eq!(timed("30S", "/v3/lock/lock", &lock(1)).0, 200);
    let began = Instant::now();
    let late = timed("200m", "/v3/lock/lock", &lock(2));
    assert_eq!(late, (504, over.to_owned()));
    assert!(began.elapsed() >= Duration::from_millis(200));
    let keys = r#"{"key":"bC8=","range_end":"bDA=","count_only":true}"#;
    while !ask(server.address, "POST", "/v3/kv/range", keys)
        .1
        .contains(r#""count":"1""#)
    {
        std::thread::yield_now();
    }
    // A stream that has begun ends with a line, another is refused.
    let error = format!("{{\"error\":{over}}}\n");
    let watch = r#"{"create_request":{"key":"Zm9v"}}"#;
    let (status, body) = timed("1S", "/v3/watch", watch);
    assert_eq!(status, 200);
    let lines = unchunked(&body).expect("chunks to the end");
    let (created, rest) = lines.split_once('\n').expect("two lines");
    assert!(created.ends_with(r#""created":true}}"#), "{created}");
    assert_eq!(rest, error);
    let observed = timed("200m", "/v3/election/observe", r#"{"name":"bm8="}"#);
    assert_eq!(observed, (504, error));
}

#[test]
fn health_version_and_metrics_are_told() {
    let (server, _dir) = start();
    let get = |path: &str| ask(server.address, "GET", path, "");
    let well = (200, r#"{"health":"true","reason":""}"#.to_owned());
    assert_eq!(get("/health"), well);
    assert_eq!(get("/health?serializable=true"), well);
    let ok = (200, "ok\n".to_owned());
    for path in [
        "/livez",
        "/readyz",
        "/livez/serializable_read",
        "/readyz/non_learner",
    ] {
        assert_eq!(get(path), ok, "{path}");
    }
    let all = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
               [+]non_learner ok\nok\n";
    assert_eq!(get("/readyz?verbose"), (200, all.to_owned()));
    assert_eq!(
        get("/readyz/nope"),
        (404, "404 page not found\n".to_owned())
    );
    assert_eq!(ask(server.address, "POST", "/health", "").0, 405);
    let (status, version) = get("/version");
    assert_eq!(status, 200);
    let etcd = r#"{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0","#;
    assert!(version.starts_with(etcd), "{version}");
    let (status, metrics) = get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_debugging_mvcc_current_revision 1",
        "process_resident_memory_bytes ",
    ] {
        let line = metrics.lines().find(|line| line.starts_with(name));
        assert!(line.is_some(), "{name}: {metrics}");
    }
}

#[test]
fn metrics_and_http_have_doors_of_their_own_if_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flags = [
        "--listen-metrics-urls=http://127.0.0.1:0",
        "--listen-client-http-urls=http://127.0.0.1:0",
    ];
    let server = Server::start_with(&dir.path().join("data"), &flags);
    let http = server.also_serves("over HTTP/1.1 on ");
    let metrics = server.also_serves("metrics and health on ");
    let put = |address| ask(address, "POST", "/v3/kv/put", r#"{"key":"Zm9v"}"#).0;
    let get = |address, path: &str| ask(address, "GET", path, "").0;
    assert_eq!((put(http), put(metrics)), (200, 404));
    for path in ["/metrics", "/health", "/livez", "/readyz"] {
        assert_eq!((get(http, path), get(metrics, path)), (200, 200), "{path}");
    }
    assert_eq!(
        (get(http, "/version"), get(metrics, "/version")),
        (200, 404)
    );
    // HTTP/1.1 is not served where it was taken away, other protocols are not where it went.
    let said = |address, bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).expect("it serves");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("a socket");
        stream.write_all(bytes).expect("it is read");
        let mut answer = [0; 64];
        // It may be closed with what was sent unread.
        let count = stream.read(&mut answer).unwrap_or(0);
        answer[..count].to_vec()
    };
    assert_eq!(
        said(server.address, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        b""
    );
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert!(!said(server.address, preface).is_empty());
    assert_eq!(said(metrics, preface), b"");
    assert_eq!(said(http, preface), b"");
}

/// Asks with headers of one's own; status, headers and body.
pub fn ask_as(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
) -> (u16, String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    send(address, request.as_bytes())
}

#[test]
fn names_and_sites_are_let_in_as_the_operator_says() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flags = [
        "--host-whitelist=good.example,localhost",
        "--cors=http://a.example:80,https://b.example",
        "--listen-metrics-urls=http://127.0.0.1:0",
    ];
    let server = Server::start_with(&dir.path().join("data"), &flags);
    let metrics = server.also_serves("metrics and health on ");
    let ask = |path: &str, headers: &str| ask_as(server.address, "GET", path, headers);
    let (status, head, body) = ask(
        "/version",
        "Host: evil.example:2379\r\nOrigin: https://b.example\r\n",
    );
    assert_eq!(status, 421);
    assert!(!head.contains("access-control"), "{head}");
    // What etcd 3.7.3 says.
    let expected = "\netcd received your request, but the Host header was unrecognized.\n\n\
        To fix this, choose one of the following options:\n\
        - Enable TLS, then any HTTPS request will be allowed.\n\
        - Add the hostname you want to use to the whitelist in settings.\n  \
        - e.g. etcd --host-whitelist \"evil.example\"\n\n\
        This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n\n";
    assert_eq!(body, expected);
    assert_eq!(ask("/health", "Host: \r\n").0, 421);
    let (status, head, _) = ask(
        "/version",
        "Host: good.example:2379\r\nOrigin: https://b.example\r\n",
    );
    assert_eq!(status, 200);
    for header in [
        "access-control-allow-origin: https://b.example\r\n",
        "access-control-allow-methods: post, get, options, put, delete\r\n",
        "access-control-allow-headers: accept, content-type, authorization\r\n",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let host = "Host: localhost\r\nOrigin: http://c.example\r\n";
    let (status, head, body) = ask_as(server.address, "OPTIONS", "/v3/kv/put", host);
    assert_eq!((status, &*body), (200, ""));
    assert!(!head.contains("access-control"), "{head}");
    let evil = "Host: evil.example\r\n";
    assert_eq!(ask_as(metrics, "GET", "/health", evil).0, 200);
    assert_eq!(ask_as(metrics, "OPTIONS", "/health", evil).0, 405);
    assert_eq!(ask_as(metrics, "OPTIONS", "/v3/kv/put", evil).0, 404);
    let (server, _dir) = start();
    let (status, head, _) = ask_as(server.address, "GET", "/version", host);
    assert_eq!(status, 200);
    assert!(!head.contains("access-control"), "{head}");
}

#[test]
fn checks_may_be_left_out_and_asked_for_one_by_one() {
    let (server, _dir) = start();
    let get = |path: &str| ask(server.address, "GET", path, "");
    let fine = |text: &str| (200, text.to_owned());
    let listed = "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    for (path, expected) in [
        ("/readyz?verbose&exclude=serializable_read", fine(listed)),
        ("/readyz?exclude=nonsense", fine("ok\n")),
        ("/livez?exclude=serializable_read&verbose", fine("ok\n")),
        (
            "/livez/serializable_read?verbose",
            fine("[+]serializable_read ok\nok\n"),
        ),
        (
            "/readyz/serializable_read?exclude=serializable_read",
            fine("ok\n"),
        ),
        ("/livez/", (404, "404 page not found\n".to_owned())),
    ] {
        assert_eq!(get(path), expected, "{path}");
    }
    let fine = r#"{"health":"true","reason":""}"#.to_owned();
    assert_eq!(
        get("/health?exclude=NOSPACE&exclude=FOO"),
        (200, fine.clone())
    );
    assert_eq!(get("/health?serializable=foo"), (200, fine));
}

#[test]
fn a_raised_alarm_is_told_by_health_and_readiness() {
    let (server, _dir) = start();
    let get = |path: &str| ask(server.address, "GET", path, "");
    let alarm = |action: &str, kind: &str| {
        let member = "10276657743932975437";
        let body = format!(r#"{{"action":"{action}","alarm":"{kind}","memberID":"{member}"}}"#);
        let (status, answer) = ask(server.address, "POST", "/v3/maintenance/alarm", &body);
        assert_eq!(status, 200, "{answer}");
    };
    let unwell = |reason: &str| {
        let text = format!("{{\"health\":\"false\",\"reason\":\"ALARM {reason}\"}}\n");
        (503, text)
    };
    let well = (200, r#"{"health":"true","reason":""}"#.to_owned());
    let failed = "[-]data_corruption failed: alarm activated: CORRUPT\n";
    let others = "[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n";
    alarm("ACTIVATE", "CORRUPT");
    for (path, expected) in [
        ("/health", unwell("CORRUPT")),
        ("/health?serializable=true", unwell("CORRUPT")),
        ("/health?exclude=NOSPACE", unwell("CORRUPT")),
        ("/health?exclude=CORRUPT", well.clone()),
        ("/readyz", (503, format!("{failed}{others}\n"))),
        ("/readyz/data_corruption", (503, format!("{failed}\n"))),
        ("/readyz?exclude=data_corruption", (200, "ok\n".to_owned())),
        ("/livez", (200, "ok\n".to_owned())),
    ] {
        assert_eq!(get(path), expected, "{path}");
    }
    alarm("ACTIVATE", "NOSPACE");
    for (path, expected) in [
        ("/health", unwell("CORRUPT")),
        ("/health?exclude=CORRUPT", unwell("NOSPACE")),
        ("/health?exclude=CORRUPT&exclude=NOSPACE", well.clone()),
    ] {
        assert_eq!(get(path), expected, "{path}");
    }
    alarm("DEACTIVATE", "CORRUPT");
    assert_eq!(get("/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(get("/health"), unwell("NOSPACE"));
    alarm("DEACTIVATE", "NOSPACE");
    assert_eq!(get("/health"), well);
}

#[test]
fn the_gateway_may_be_switched_off() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flags = ["--enable-grpc-gateway=false"];
    let server = Server::start_with(&dir.path().join("data"), &flags);
    let put = ask(server.address, "POST", "/v3/kv/put", r#"{"key":"Zm9v"}"#);
    assert_eq!(put, (404, "404 page not found\n".to_owned()));
    assert_eq!(ask(server.address, "GET", "/health", "").0, 200);
}

#[test]
fn a_connection_may_be_used_again_and_bodies_may_come_in_chunks() {
    let (server, _dir) = start();
    let requests = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        7\r\n{\"key\":\r\n7\r\n\"Zm9v\"}\r\n0\r\n\r\n\
        GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (status, _, rest) = send(server.address, requests);
    assert_eq!(status, 200);
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 2, "{rest}");
    assert!(rest.contains(r#""revision":"2""#), "{rest}");
    let (status, _, _) = send(server.address, b"GET / HTTP/1.1\r\nnonsense\r\n\r\n");
    assert_eq!(status, 400);
}
