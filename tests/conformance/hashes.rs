//! The hash of history: what etcd 3.7.3 answered after the same calls.

use super::raw::{self, call, connect, field, framed, put, run};
use super::start;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};

async fn done(client: &SendRequest<Bytes>, path: &str, body: Vec<u8>) {
    let answer = call(client, path, body).await;
    assert_eq!(answer.status.as_deref(), Some("0"), "{path}: {answer:?}");
}

async fn write(client: &SendRequest<Bytes>, key: &str, value: &str) {
    done(client, raw::PUT, put(key.as_bytes(), value.as_bytes())).await;
}

async fn delete(client: &SendRequest<Bytes>, key: &str, end: &str) {
    let message = [field(1, key.as_bytes()), field(2, end.as_bytes())].concat();
    done(client, "/etcdserverpb.KV/DeleteRange", framed(&message)).await;
}

async fn compact(client: &SendRequest<Bytes>, revision: u8) {
    let message = framed(&[8, revision, 16, 1]);
    done(client, "/etcdserverpb.KV/Compact", message).await;
}

/// Hash, compacted revision and revision of an answer.
async fn hash(client: &SendRequest<Bytes>, revision: u8) -> (u64, i64, i64) {
    let message = framed(&[8, revision]);
    let answer = call(client, "/etcdserverpb.Maintenance/HashKV", message).await;
    assert_eq!(answer.status.as_deref(), Some("0"), "{answer:?}");
    // The message behind its prefix and the header.
    let mut rest = &answer.bytes[5..];
    rest = &rest[2 + usize::from(rest[1])..];
    let mut numbers = [0u64; 3];
    while let Some((tag, mut more)) = rest.split_first() {
        let number = &mut numbers[usize::from(tag >> 3) - 2];
        for shift in (0..).step_by(7) {
            *number |= u64::from(more[0] & 0x7f) << shift;
            let last = more[0] & 0x80 == 0;
            more = &more[1..];
            if last {
                break;
            }
        }
        rest = more;
    }
    (numbers[0], numbers[1] as i64, numbers[2] as i64)
}

#[test]
fn history_has_the_hash_that_etcd_gives_it() {
    let (server, _dir) = start();
    run(async {
        let (client, _) = connect(server.address, &Builder::new()).await;
        for n in 1..=60 {
            write(&client, &format!("k{}", n % 13), &format!("v{n}")).await;
        }
        let lease = framed(&[8, 0xe8, 7, 16, 77]);
        done(&client, "/etcdserverpb.Lease/LeaseGrant", lease).await;
        for n in 1..=3 {
            let message = [field(1, format!("l{n}").as_bytes()), vec![0x18, 77]].concat();
            done(&client, raw::PUT, framed(&message)).await;
        }
        delete(&client, "k5", "k8").await;
        let puts = |key, value| field(2, &field(2, &[field(1, key), field(2, value)].concat()));
        let delete_one = field(2, &field(3, &field(1, b"k1")));
        let txn = [puts(b"t1", b"a"), puts(b"t2", b"b"), delete_one].concat();
        done(&client, "/etcdserverpb.KV/Txn", framed(&txn)).await;
        for (revision, expected) in [
            (0, 3_687_290_349),
            (1, 1_084_519_789),
            (2, 2_827_864_405),
            (64, 3_798_905_023),
            (65, 408_153_566),
        ] {
            let at = if revision == 0 { 66 } else { revision.into() };
            assert_eq!(hash(&client, revision).await, (expected, -1, at));
        }

        for n in 1..=20 {
            write(&client, &format!("k{}", n % 13), &format!("w{n}")).await;
        }
        let lease = framed(&[8, 77]);
        done(&client, "/etcdserverpb.Lease/LeaseRevoke", lease).await;
        delete(&client, "k3", "").await;
        assert_eq!(hash(&client, 0).await, (3_440_948_827, -1, 88));
        compact(&client, 30).await;
        assert_eq!(hash(&client, 0).await, (4_030_446_613, 30, 88));
        assert_eq!(hash(&client, 31).await, (497_565_467, 30, 31));
        assert_eq!(hash(&client, 80).await, (2_608_665_142, 30, 80));
        compact(&client, 65).await;
        assert_eq!(hash(&client, 0).await, (3_383_119_014, 65, 88));
        assert_eq!(hash(&client, 87).await, (3_602_460_995, 65, 87));
        // Nothing is left.
        delete(&client, "\0", "\0").await;
        compact(&client, 88).await;
        assert_eq!(hash(&client, 0).await, (2_278_242_666, 88, 89));
    });
}
