//! etcd's rules about alarms.

use super::*;

const MEMBER: u64 = 0xfedc_ba98_7654_3210;

impl Server {
    fn alarm(
        &mut self,
        action: AlarmAction,
        member_id: u64,
        alarm: Option<AlarmKind>,
    ) -> Vec<(AlarmKind, u64)> {
        let request = AlarmRequest {
            action,
            member_id,
            alarm,
        };
        match self.serve(&Request::Alarm(request)).unwrap() {
            Response::Alarm(response) => {
                let alarms = response.alarms.into_iter();
                alarms.map(|alarm| (alarm.kind, alarm.member_id)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn put_result(&mut self, key: &str) -> Result<Response, Error> {
        self.serve(&Request::Put(PutRequest {
            key: key.as_bytes(),
            ..Default::default()
        }))
    }
}

#[test]
fn alarms_are_kept_by_member_and_kind() {
    use AlarmAction::*;
    let mut server = Server::new();
    let (space, corrupt) = (AlarmKind::NoSpace, AlarmKind::Corrupt);
    assert_eq!(server.alarm(Get, 0, None), []);
    assert_eq!(server.alarm(Activate, 1, Some(space)), [(space, 1)]);
    assert_eq!(
        server.alarm(Activate, 1, Some(space)),
        [(space, 1)],
        "again"
    );
    assert_eq!(
        server.alarm(Activate, MEMBER, Some(space)),
        [(space, MEMBER)]
    );
    assert_eq!(server.alarm(Activate, 1, Some(corrupt)), [(corrupt, 1)]);
    assert_eq!(server.alarm(Activate, 1, None), []);
    let all = [(space, 1), (space, MEMBER), (corrupt, 1)];
    assert_eq!(server.alarm(Get, 99, None), all, "whoever is asked about");
    assert_eq!(server.alarm(Get, 0, Some(corrupt)), [(corrupt, 1)]);
    assert_eq!(server.alarm(Deactivate, 2, Some(space)), []);
    assert_eq!(server.alarm(Deactivate, 1, Some(space)), [(space, 1)]);
    assert!(is_raised(server.applier.meta(), space), "one is left");
    assert_eq!(
        server.alarm(Deactivate, MEMBER, Some(space)),
        [(space, MEMBER)]
    );
    assert!(!is_raised(server.applier.meta(), space));
    assert!(is_raised(server.applier.meta(), corrupt));
    assert_eq!(server.revision(), 1);
}

#[test]
fn without_space_what_adds_is_refused_and_the_rest_goes_on() {
    let mut server = Server::new();
    let lease = LeaseGrantRequest { ttl: 60, id: 1 };
    server.serve(&Request::LeaseGrant(lease)).unwrap();
    server.put("k", "v");
    server.put("l", "v");
    server.alarm(AlarmAction::Activate, 1, Some(AlarmKind::NoSpace));
    assert_eq!(server.put_result("k"), Err(Error::NoSpace));
    let grant = LeaseGrantRequest { ttl: 60, id: 2 };
    assert_eq!(
        server.serve(&Request::LeaseGrant(grant)),
        Err(Error::NoSpace)
    );
    // In whichever branch, and before anything else is looked at.
    let never = TxnRequest {
        failure: vec![put_op("a", "1")],
        success: vec![delete_op("k", "")],
        ..Default::default()
    };
    assert_eq!(server.txn(never), Err(Error::NoSpace));
    assert!(
        server
            .txn(always(vec![delete_op("k", "")]))
            .unwrap()
            .succeeded
    );
    assert_eq!(server.delete("l", ""), 1);
    server.compact(3).unwrap();
    let revoke = LeaseRevokeRequest { id: 1 };
    server.serve(&Request::LeaseRevoke(revoke)).unwrap();
    server.alarm(AlarmAction::Deactivate, 1, Some(AlarmKind::NoSpace));
    server.put("k", "v");
}

#[test]
fn with_corrupt_data_no_client_writes_and_all_may_read() {
    let mut server = Server::new();
    server.put("k", "v");
    server.alarm(AlarmAction::Activate, 1, Some(AlarmKind::Corrupt));
    assert_eq!(server.put_result("k"), Err(Error::Corrupt));
    assert_eq!(server.compact(2), Err(Error::Corrupt));
    let revoke = Request::LeaseRevoke(LeaseRevokeRequest { id: 1 });
    assert_eq!(server.serve(&revoke), Err(Error::Corrupt));
    // The alarm is told before what is wrong with the request.
    let grant = LeaseGrantRequest {
        ttl: i64::MAX,
        id: 1,
    };
    assert_eq!(
        server.serve(&Request::LeaseGrant(grant)),
        Err(Error::Corrupt)
    );
    assert_eq!(
        server.txn(always(vec![delete_op("k", "")])),
        Err(Error::Corrupt)
    );
    assert_eq!(keys(&server.range(all()).unwrap()), ["k"]);
    server.alarm(AlarmAction::Deactivate, 1, Some(AlarmKind::Corrupt));
    assert_eq!(server.delete("k", ""), 1);
}

/// docs/FORMAT.md states these bytes.
#[test]
fn alarms_are_stored_as_the_format_says() {
    let mut server = Server::new();
    server.alarm(
        AlarmAction::Activate,
        0x0102_0304_0506_0708,
        Some(AlarmKind::Corrupt),
    );
    let tree = &server.applier.store().tree;
    let stored = tree.get(TreeId::State, &[3, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(stored.unwrap(), Some(&b""[..]));
    assert_eq!(server.applier.meta().extra, [2]);
}
