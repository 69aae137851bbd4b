//! Backups over bare HTTP/2, and what becomes of one.

use super::raw::{self, call, connect, field, framed, put, run};
use super::server::{self, Server};
use super::start;
use h2::client::Builder;
use quoin::runtime::restore::{self, Options};
use quoin_storage::snapshot::{Record, SnapshotReader};

const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";

/// The blobs of the stream, each with the bytes that are said to follow.
fn blobs(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let varint = |bytes: &mut &[u8]| {
        let mut number = 0u64;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a number");
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    };
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[1..5].try_into().expect("four bytes")) as usize;
        let mut message = &bytes[5..5 + length];
        bytes = &bytes[5 + length..];
        let (mut remaining, mut blob) = (0, Vec::new());
        while !message.is_empty() {
            match varint(&mut message) {
                0x10 => remaining = varint(&mut message),
                tag => {
                    let length = varint(&mut message) as usize;
                    let (value, rest) = message.split_at(length);
                    message = rest;
                    match tag {
                        0x1a => blob = value.to_vec(),
                        0x22 => assert_eq!(value, b"3.7.0"),
                        other => panic!("field {other}"),
                    }
                }
            }
        }
        all.push((remaining, blob));
    }
    all
}

#[test]
fn a_backup_is_of_one_revision_and_a_server_starts_from_it() {
    let (server, dir) = start();
    let mut hash = Vec::new();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        let value = vec![b'v'; 3_000];
        let lease = framed(&[8, 0xe8, 7, 16, 77]);
        let granted = call(&client, "/etcdserverpb.Lease/LeaseGrant", lease).await;
        assert_eq!(granted.status.as_deref(), Some("0"));
        for n in 0..300 {
            let key = field(1, format!("k{}", n % 100).as_bytes());
            let message = [key, field(2, &value), vec![0x18, 77]].concat();
            let answer = call(&client, raw::PUT, framed(&message)).await;
            assert_eq!(answer.status.as_deref(), Some("0"));
        }
        let compact = framed(&[8, 120, 16, 1]);
        let compacted = call(&client, "/etcdserverpb.KV/Compact", compact).await;
        assert_eq!(compacted.status.as_deref(), Some("0"));
        hash = call(&client, HASH_KV, framed(b"")).await.bytes;

        let (one, two) = tokio::join!(
            call(&client, SNAPSHOT, framed(b"")),
            call(&client, SNAPSHOT, framed(b""))
        );
        assert_eq!(one.status.as_deref(), Some("0"));
        assert_eq!(one.bytes, two.bytes);
        let blobs = blobs(&one.bytes);
        let ((last, sum), parts) = blobs.split_last().expect("blobs");
        assert_eq!((*last, sum.len()), (0, 32));
        let mut left: u64 = parts.iter().map(|(_, blob)| blob.len() as u64).sum();
        assert_eq!(left % 512, 0);
        let mut file = Vec::new();
        for (remaining, blob) in parts {
            left -= blob.len() as u64;
            assert_eq!(*remaining, left);
            file.extend_from_slice(blob);
        }
        let mut reader = SnapshotReader::open(&file[..]).expect("a header");
        assert_eq!(reader.header().compacted, 120);
        let mut events = 0;
        while let Some(record) = reader.next_record().expect("sound") {
            events += u64::from(matches!(record, Record::Event(_)));
        }
        assert_eq!(events, reader.header().events);
        let restored = dir.path().join("restored");
        restore::restore(&mut &file[..], &restored, &Options::default()).expect("it is restored");
        let again = restore::restore(&mut &file[..], &restored, &Options::default());
        assert!(again.is_err());
        let bumped = Options {
            bump_revision: 1_000,
            mark_compacted: true,
            ..Options::default()
        };
        let restored = dir.path().join("bumped");
        restore::restore(&mut &file[..], &restored, &bumped).expect("it is restored");
    });
    drop(server);
    let restored = Server::start(&dir.path().join("restored"));
    run(async {
        let (client, _) = connect(restored.address, &Builder::new()).await;
        // The same history, to the last bit, and the same revision in the header.
        assert_eq!(call(&client, HASH_KV, framed(b"")).await.bytes, hash);
        let left = call(
            &client,
            "/etcdserverpb.Lease/LeaseTimeToLive",
            framed(&[8, 77]),
        )
        .await;
        assert!(
            left.bytes.windows(3).any(|ttl| ttl == [0x20, 0xe8, 7]),
            "{left:?}"
        );
        assert_eq!(
            call(&client, raw::PUT, put(b"k", b"v"))
                .await
                .status
                .as_deref(),
            Some("0")
        );
        let revoked = call(&client, "/etcdserverpb.Lease/LeaseRevoke", framed(&[8, 77])).await;
        assert_eq!(revoked.status.as_deref(), Some("0"));
        let all = framed(&[field(1, b"k"), field(2, b"l"), vec![0x48, 1]].concat());
        let count = call(&client, raw::RANGE, all).await;
        assert!(
            count.bytes.ends_with(b"\x20\x01"),
            "the lease's keys are gone: {count:?}"
        );
    });
    let (status, _) = restored.terminate();
    assert!(status.success());
    let bumped = Server::start(&dir.path().join("bumped"));
    run(async {
        let (client, _) = connect(bumped.address, &Builder::new()).await;
        let old = framed(&[field(1, b"k1"), vec![0x20, 0xc8, 1]].concat());
        let answer = call(&client, raw::RANGE, old).await;
        assert_eq!(
            answer.message.as_deref(),
            Some("etcdserver: mvcc: required revision has been compacted")
        );
        let newest = call(&client, raw::RANGE, raw::get(b"k1")).await;
        // The header's revision: 301 and 1000.
        assert!(
            newest.bytes.windows(3).any(|at| at == [0x18, 0x95, 0x0a]),
            "{newest:?}"
        );
    });
    let (status, _) = bumped.terminate();
    assert!(status.success());
    let _ = server::command;
}
