//! A store that runs full in spite of all that was done to prevent it.

use super::batches::{entries, finish, open};
use super::random::request;
use super::*;
use proptest::prelude::*;

proptest! {
    /// Wherever space ends, even in the middle of a command: what was not applied has left no
    /// trace, and with space again all goes on as if nothing had happened.
    #[test]
    fn a_batch_that_finds_no_space_has_not_begun(
        history in prop::collection::vec(request(), 1..50),
        sizes in prop::collection::vec(1..6usize, 1..4),
        left in 0..4_000usize,
    ) {
        let entries = entries(&history, &sizes);
        let mut model = open(MapStore::default(), 4);
        let mut expected = Vec::new();
        model.apply(&entries, &mut { usize::MAX }, &mut expected).unwrap();
        let expected = finish(&mut model, expected);

        let mut applier = open(MapStore { left: Some(left), ..Default::default() }, 4);
        let mut outcomes = Vec::new();
        if let Err(failure) = applier.apply(&entries, &mut { usize::MAX }, &mut outcomes) {
            prop_assert_eq!(failure.to_api(), Error::NoSpace);
            let published = Meta::decode(applier.store().user()).unwrap();
            prop_assert_eq!(applier.meta(), &published);
            let applied = usize::try_from(published.applied_index).unwrap();
            applier.store_mut().left = None;
            applier.apply(&entries[applied..], &mut { usize::MAX }, &mut outcomes).unwrap();
        }
        let outcomes = finish(&mut applier, outcomes);
        prop_assert_eq!(outcomes, expected);
        prop_assert_eq!(&applier.store().tree, &model.store().tree);
    }
}

#[test]
fn a_purge_that_finds_no_space_is_tried_again() {
    let mut server = Server::new();
    server.put("a", "1");
    server.put("a", "2");
    server.compact(3).unwrap();
    let mut full = server.applier.store().clone();
    full.refuses_commits = true;
    server.applier = Applier::open(full, BatchLimits::default()).unwrap();
    let before = server.applier.meta().clone();
    let failure = server.applier.background(10, &mut Vec::new()).unwrap_err();
    assert_eq!(failure.to_api(), Error::NoSpace);
    assert_eq!(server.applier.meta(), &before);
    server.applier.store_mut().refuses_commits = false;
    server.purge(10);
    assert_eq!(server.applier.store().tree.len(TreeId::Revision), 1);
}

#[test]
fn which_requests_add_data() {
    let put = PutRequest::default();
    let nested = |op| {
        let inner = TxnRequest {
            failure: vec![op],
            ..Default::default()
        };
        Request::Txn(TxnRequest {
            success: vec![RequestOp::Txn(inner)],
            ..Default::default()
        })
    };
    assert!(validate::adds_data(&Request::Put(put.clone())));
    assert!(validate::adds_data(&nested(RequestOp::Put(put))));
    let delete = DeleteRangeRequest::default();
    assert!(!validate::adds_data(&nested(RequestOp::DeleteRange(
        delete.clone()
    ))));
    assert!(!validate::adds_data(&Request::DeleteRange(delete)));
    assert!(!validate::adds_data(&Request::Compact(
        CompactRequest::default()
    )));
}
