//! etcd's rules about leases, each by its name.

use super::*;
use quoin_storage::mvcc::lease::LeaseRecord;

impl Server {
    fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, Error> {
        match self.serve(&Request::LeaseGrant(LeaseGrantRequest { ttl, id }))? {
            Response::LeaseGrant(granted) => {
                assert_eq!(granted.id, id);
                Ok(granted.ttl)
            }
            other => panic!("{other:?}"),
        }
    }

    fn revoke(&mut self, id: i64) -> Result<(), Error> {
        let answer = self.serve(&Request::LeaseRevoke(LeaseRevokeRequest { id }))?;
        assert_eq!(answer, Response::LeaseRevoke);
        Ok(())
    }

    fn put_on(&mut self, key: &str, lease: i64) -> Result<Response, Error> {
        self.serve(&Request::Put(PutRequest {
            key: key.as_bytes(),
            lease,
            ..Default::default()
        }))
    }

    fn ask(&self, request: LeaseTimeToLiveRequest<'_>) -> LeaseTimeToLiveResponse {
        time_to_live(&self.applier.store().tree, &request, 9, 1 << 20).unwrap()
    }

    fn keys_of(&self, id: i64) -> Vec<Vec<u8>> {
        let keys = true;
        self.ask(LeaseTimeToLiveRequest {
            id,
            keys,
            ..Default::default()
        })
        .keys
    }

    fn record(&mut self, id: i64) -> Option<LeaseRecord> {
        let mut found = None;
        let visit = &mut |of, record| {
            if of == id {
                found = Some(record);
            }
        };
        self.applier.leases(visit).unwrap();
        found
    }

    /// A lease by the entry that granted it, which is the newest.
    fn granted(&mut self, id: i64) -> GrantedLease {
        let granted_at = self.record(id).unwrap().granted_at;
        GrantedLease { id, granted_at }
    }
}

fn put_on<'a>(key: &'a str, lease: i64) -> RequestOp<'a> {
    RequestOp::Put(PutRequest {
        key: key.as_bytes(),
        lease,
        ..Default::default()
    })
}

#[test]
fn a_grant_is_refused_as_etcd_refuses_it_and_makes_no_revision() {
    let mut server = Server::new();
    assert_eq!(server.grant(7, 60), Ok(60));
    assert_eq!(server.grant(7, 60), Err(Error::LeaseExists));
    let max = 9_000_000_000;
    assert_eq!(server.grant(7, max + 1), Err(Error::LeaseTtlTooLarge));
    assert_eq!(server.grant(8, max), Ok(max));
    assert_eq!(server.grant(-1, 5), Ok(5));
    // What fronts settle, and apply still does not trust.
    assert_eq!(server.grant(0, 5), Err(Error::LeaseNotFound));
    assert_eq!(server.grant(9, -3), Ok(1));
    assert_eq!(server.revision(), 1);
    assert_eq!(server.revoke(7), Ok(()));
    assert_eq!(server.revoke(7), Err(Error::LeaseNotFound));
    assert_eq!(server.revoke(0), Err(Error::LeaseNotFound));
    assert_eq!(server.revision(), 1, "no key, no revision");
    assert_eq!(server.applier.meta().live_bytes, 3 * 128);
}

#[test]
fn a_revocation_deletes_all_keys_in_one_revision_and_in_order() {
    let mut server = Server::new();
    server.grant(7, 60).unwrap();
    for key in ["b", "a", "c"] {
        server.put_on(key, 7).unwrap();
    }
    server.put("d", "stays");
    let before = server.revision();
    server.revoke(7).unwrap();
    assert_eq!(server.revision(), before + 1);
    let view = View::new(
        &server.applier.store().tree,
        server.applier.meta().horizon(),
    );
    let mut events = Vec::new();
    view.events(
        quoin_storage::mvcc::Revision::first(before + 1),
        &mut |event| {
            assert!(event.tombstone && event.revision.main == before + 1);
            events.push(event.key.to_vec());
            Ok(true)
        },
    )
    .unwrap();
    assert_eq!(events, [b"a", b"b", b"c"]);
    assert_eq!(keys(&server.range(all()).unwrap()), ["d"]);
}

#[test]
fn a_key_hangs_on_the_lease_of_its_last_put() {
    let mut server = Server::new();
    server.grant(1, 60).unwrap();
    server.grant(2, 60).unwrap();
    server.put_on("k", 1).unwrap();
    server.put_on("k", 2).unwrap();
    assert_eq!(
        (server.keys_of(1), server.keys_of(2)),
        (vec![], vec![b"k".to_vec()])
    );
    server.put_on("k", 0).unwrap();
    assert_eq!(server.keys_of(2), Vec::<Vec<u8>>::new());
    server.put_on("k", 1).unwrap();
    let keep = PutRequest {
        key: b"k",
        value: b"v",
        ignore_lease: true,
        ..Default::default()
    };
    server.serve(&Request::Put(keep)).unwrap();
    assert_eq!(server.keys_of(1), [b"k"]);
    server.delete("k", "");
    assert_eq!(server.keys_of(1), Vec::<Vec<u8>>::new());
    server.put("k", "not on a lease");
    server.revoke(1).unwrap();
    assert_eq!(keys(&server.range(all()).unwrap()), ["k"]);
}

#[test]
fn an_unknown_lease_refuses_a_put_before_anything_else() {
    let mut server = Server::new();
    server.put("k", "v");
    assert_eq!(server.put_on("k", 5), Err(Error::LeaseNotFound));
    let missing = PutRequest {
        key: b"missing",
        lease: 5,
        ignore_value: true,
        prev_kv: true,
        ..Default::default()
    };
    assert_eq!(
        server.serve(&Request::Put(missing)),
        Err(Error::LeaseNotFound)
    );
    // In a transaction, on the path that runs, and before anything is written.
    let before = server.revision();
    let txn = always(vec![put_op("a", "1"), put_on("b", 5)]);
    assert_eq!(server.txn(txn), Err(Error::LeaseNotFound));
    assert_eq!(server.revision(), before);
    let other = TxnRequest {
        success: vec![put_op("a", "1")],
        failure: vec![put_on("b", 5)],
        ..Default::default()
    };
    assert!(server.txn(other).unwrap().succeeded);
}

#[test]
fn the_lease_of_a_key_can_be_compared() {
    let mut server = Server::new();
    server.grant(3, 60).unwrap();
    server.put_on("k", 3).unwrap();
    for (operand, holds) in [(3, true), (0, false)] {
        let txn = TxnRequest {
            compare: vec![compare(
                "k",
                CompareResult::Equal,
                CompareTarget::Lease(operand),
            )],
            ..Default::default()
        };
        assert_eq!(server.txn(txn).unwrap().succeeded, holds);
    }
}

#[test]
fn an_expiry_hits_the_lease_it_was_meant_for_or_none() {
    let mut server = Server::new();
    server.grant(1, 60).unwrap();
    server.put_on("k", 1).unwrap();
    let first = server.granted(1);
    server.revoke(1).unwrap();
    server.grant(1, 60).unwrap();
    server.put_on("k", 1).unwrap();
    let before = server.revision();
    let expire = |leases| Request::LeaseExpire(LeaseExpireRequest { leases });
    server.serve(&expire(vec![first])).unwrap();
    assert_eq!(server.revision(), before, "that lease was gone already");
    server.grant(2, 60).unwrap();
    server.put_on("l", 2).unwrap();
    let both = vec![server.granted(1), first, server.granted(2)];
    let before = server.revision();
    server.serve(&expire(both)).unwrap();
    assert_eq!(server.revision(), before + 2, "one for each lease");
    assert!(server.range(all()).unwrap().kvs.is_empty());
    assert_eq!(server.revoke(2), Err(Error::LeaseNotFound));
}

#[test]
fn times_are_written_down_for_the_lease_they_belong_to() {
    let mut server = Server::new();
    server.grant(1, 60).unwrap();
    let lease = server.granted(1);
    let write = |server: &mut Server, lease, remaining| {
        let leases = vec![(lease, remaining)];
        let request = Request::LeaseCheckpoint(LeaseCheckpointRequest { leases });
        server.serve(&request).unwrap();
        server.record(1).unwrap().left()
    };
    assert_eq!(write(&mut server, lease, 40), 40);
    assert_eq!(write(&mut server, lease, 60), 60, "no more than granted");
    assert_eq!(write(&mut server, lease, 40), 40);
    assert_eq!(write(&mut server, lease, 0), 60);
    let other = GrantedLease {
        granted_at: lease.granted_at + 1,
        ..lease
    };
    assert_eq!(write(&mut server, other, 40), 60);
    let unknown = GrantedLease { id: 77, ..lease };
    assert_eq!(write(&mut server, unknown, 40), 60);
}

#[test]
fn the_keys_of_a_lease_come_in_pages() {
    let mut server = Server::new();
    server.grant(1, 60).unwrap();
    for key in ["a", "b", "c", "d"] {
        server.put_on(key, 1).unwrap();
    }
    let page = |after: &'static str, limit| {
        let answer = server.ask(LeaseTimeToLiveRequest {
            id: 1,
            keys: true,
            limit,
            after: after.as_bytes(),
        });
        assert_eq!((answer.ttl, answer.granted_ttl), (9, 60));
        let keys = answer.keys.into_iter().map(|key| key[0]).collect();
        (String::from_utf8(keys).unwrap(), answer.more)
    };
    assert_eq!(page("", 0), ("abcd".into(), false));
    assert_eq!(page("", 2), ("ab".into(), true));
    assert_eq!(page("b", 2), ("cd".into(), false));
    assert_eq!(page("b", -1), ("cd".into(), false));
    let none = server.ask(LeaseTimeToLiveRequest {
        id: 2,
        ..Default::default()
    });
    assert_eq!((none.ttl, none.granted_ttl), (-1, 0));
    let keys = LeaseTimeToLiveRequest {
        id: 1,
        keys: true,
        ..Default::default()
    };
    let tree = &server.applier.store().tree;
    let small = time_to_live(tree, &keys, 9, 60);
    assert!(matches!(
        small,
        Err(Failure::Refused(Error::ResponseTooLarge))
    ));
}

#[test]
fn a_lease_with_many_keys_ends_in_one_revision() {
    let mut server = Server::new();
    server.grant(1, 60).unwrap();
    let names: Vec<_> = (0..1000).map(|n| format!("{n:04}")).collect();
    for chunk in names.chunks(100) {
        let ops = chunk.iter().map(|key| put_on(key, 1)).collect();
        server.txn(always(ops)).unwrap();
    }
    let before = server.revision();
    server.revoke(1).unwrap();
    assert_eq!(server.revision(), before + 1);
    assert_eq!(server.range(all()).unwrap().count, 0);
}

#[test]
fn changes_are_told_in_order_and_a_failed_batch_tells_nothing() {
    let mut server = Server::new();
    server.grant(1, 60).unwrap();
    let lease = server.granted(1);
    server.grant(1, 60).unwrap_err();
    server.revoke(1).unwrap();
    let mut changes = Vec::new();
    server.applier.take_lease_changes(&mut changes);
    let expected = [
        LeaseChange::Granted { lease, ttl: 60 },
        LeaseChange::Revoked { id: 1 },
    ];
    assert_eq!(changes, expected);
    server.applier.store_mut().refuses_commits = true;
    let request = Request::LeaseGrant(LeaseGrantRequest { ttl: 9, id: 9 });
    let entry = Entry {
        index: server.applier.meta().applied_index + 1,
        term: 1,
        bytes: 1,
        conf_state: None,
        commands: vec![Command { waiter: 0, request }],
    };
    assert!(
        server
            .applier
            .apply(&[entry], &mut { usize::MAX }, &mut Vec::new())
            .is_err()
    );
    let mut changes = Vec::new();
    server.applier.take_lease_changes(&mut changes);
    assert_eq!(changes, []);
}
