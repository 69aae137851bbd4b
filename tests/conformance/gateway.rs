//! What the JSON gateway takes for a message, and where paths over HTTP/1.1 lead, as etcd has it.

use super::http1::{Stream, ask, ask_as, send};
use super::start;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What etcd 3.7.3 answered to each of these.
#[test]
fn the_gateway_reads_json_as_etcds_does() {
    let (server, _dir) = start();
    let call = |path: &str, body: &str| ask(server.address, "POST", path, body);
    let wrote = |body: &str| call("/v3/kv/put", body).0 == 200;
    let no_lease = r#"{"code":5,"message":"etcdserver: requested lease not found"}"#;
    for lease in ["1.0", "1e0", r#""1.0""#, "9.9e1", "100e-2", "1E+0", "1e18"] {
        let body = format!(r#"{{"key":"Zm9v","lease":{lease}}}"#);
        let said = call("/v3/kv/put", &body);
        assert_eq!(said, (404, no_lease.to_owned()), "{lease}");
    }
    for lease in ["-0", "0.0", r#""-0""#, "0e99999999999", "null"] {
        assert!(
            wrote(&format!(r#"{{"key":"Zm9v","lease":{lease}}}"#)),
            "{lease}"
        );
    }
    for lease in [r#""+1""#, r#""01""#, "1.5", r#"" 1""#, "1e19", "true"] {
        let body = format!(r#"{{"key":"Zm9v","lease":{lease}}}"#);
        let text = format!("proto: (line 1:23): invalid value for int64 field lease: {lease}");
        let said = serde_json::json!({"code": 3, "message": text}).to_string();
        assert_eq!(call("/v3/kv/put", &body), (400, said), "{lease}");
    }
    for key in ["YR==", "Zm9", "Zm9v\\n", "-_8"] {
        assert!(wrote(&format!(r#"{{"key":"{key}"}}"#)), "{key}");
    }
    for key in ["Zg=", "Z", "-/+_", "%"] {
        assert!(!wrote(&format!(r#"{{"key":"{key}"}}"#)), "{key}");
    }
    // What stands behind a message is not looked at, and what is in vain may be deep.
    assert!(wrote(r#"{"key":"Zm9v"} trailing"#));
    let deep = format!(
        r#"{{"key":"Zm9v","x":{}1{}}}"#,
        "[".repeat(9000),
        "]".repeat(9000)
    );
    assert!(wrote(&deep));

    let all = r#"{"key":"AA==","range_end":"AA==","count_only":true}"#;
    let before = call("/v3/kv/range", all);
    let refused = |path: &str, body: &str, text: &str| {
        let said = serde_json::json!({"code": 3, "message": text}).to_string();
        assert_eq!(call(path, body), (400, said), "{body}");
    };
    refused(
        "/v3/kv/put",
        r#"{"key":"Zm9v","key":"YQ=="}"#,
        r#"proto: (line 1:15): duplicate field "key""#,
    );
    refused(
        "/v3/kv/put",
        r#"{"key":"Zm9v","prev_kv":true,"prevKv":true}"#,
        r#"proto: (line 1:30): duplicate field "prevKv""#,
    );
    refused(
        "/v3/kv/txn",
        r#"{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}"#,
        r#"proto: (line 1:43): error parsing "request_range", oneof etcdserverpb.RequestOp.request is already set"#,
    );
    refused(
        "/v3/kv/put",
        "{bad",
        "invalid character 'b' looking for beginning of object key string",
    );
    // Longer than a message may be, and than a request may be.
    for (bytes, expected) in [
        (
            2_500_000,
            (
                429,
                r#"{"code":8,"message":"grpc: received message larger than max (2500008 vs. 2097152)"}"#,
            ),
        ),
        (
            1_600_000,
            (
                400,
                r#"{"code":3,"message":"etcdserver: request is too large"}"#,
            ),
        ),
    ] {
        let value = STANDARD.encode(vec![b'v'; bytes]);
        let body = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
        let (status, said) = call("/v3/kv/put", &body);
        assert_eq!((status, said.as_str()), expected);
    }
    assert_eq!(call("/v3/kv/range", all), before);

    // Nought is a filter, too: a watch that wants no puts is told none.
    let create = r#"{"create_request":{"key":"Zm9v","filters":["NOPUT"]}}"#;
    let mut watch = Stream::open(server.address, "/v3/watch", create);
    watch.head();
    assert!(watch.line().contains("created"));
    assert!(wrote(r#"{"key":"Zm9v"}"#));
    assert_eq!(call("/v3/kv/deleterange", r#"{"key":"Zm9v"}"#).0, 200);
    let line = watch.line();
    assert!(line.contains(r#""events":[{"type":"DELETE""#), "{line}");
}

/// As etcd 3.7.3 has it, but for the case of letters.
#[test]
fn answers_have_the_headers_of_etcds_and_paths_lead_where_they_do() {
    let (server, _dir) = start();
    let ask = |method: &str, path: &str, headers: &str| {
        let headers = format!("Host: x\r\n{headers}");
        ask_as(server.address, method, path, &headers)
    };
    let called = "grpc-metadata-content-type: application/grpc\r\n";
    let plain = "x-content-type-options: nosniff\r\n";
    for (method, path, status, header) in [
        ("POST", "/v3/kv/put", 400, ""),
        ("POST", "/v3/maintenance/status", 200, called),
        ("POST", "/v3/lease/keepalive", 200, called),
        ("GET", "/nothing", 404, plain),
        ("POST", "/health", 405, plain),
        ("GET", "/readyz/nope", 404, plain),
        ("POST", "/v3//kv/range", 307, "location: /v3/kv/range\r\n"),
        (
            "POST",
            "//v3/kv/range?a=b",
            307,
            "location: /v3/kv/range?a=b\r\n",
        ),
        ("GET", "/v3", 307, "location: /v3/\r\n"),
        ("GET", "/x/../health", 307, "location: /health\r\n"),
        ("POST", "/v3/", 404, ""),
        ("POST", "/v3/kv/range/", 404, ""),
    ] {
        let (code, head, _) = ask(method, path, "");
        assert_eq!(code, status, "{path}");
        let head = head + "\r\n";
        assert!(head.contains(header), "{path}: {head}");
        assert!(header == called || !head.contains(called), "{path}: {head}");
    }
    let (status, head, body) = ask("OPTIONS", "/v3/kv/put", "");
    assert_eq!((status, &*body), (200, ""));
    assert!(!head.contains("content-type"), "{head}");
    for (headers, what) in [
        ("", "400 Bad Request: missing required Host header"),
        ("Host: a\r\nHost: b\r\n", "400 Bad Request"),
    ] {
        let (status, _, body) = ask_as(server.address, "GET", "/version", headers);
        assert_eq!((status, &*body), (400, what));
    }
    // Clients of 1.0 need not name a host.
    let (status, _, _) = send(server.address, b"GET /version HTTP/1.0\r\n\r\n");
    assert_eq!(status, 200);
}
