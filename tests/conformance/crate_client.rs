//! The Rust client of etcd (`etcd-client`) in use against a real server.

use super::start;
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, EventType, GetOptions, LeaseTimeToLiveOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchOptions, WatchStream,
};
use std::future::Future;
use std::time::Duration;

/// Runs what a client does, within bounds of time.
fn with_client<F: Future<Output = ()>>(act: impl FnOnce(Client) -> F) {
    let (server, _dir) = start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let address = server.address.to_string();
        let all = async {
            let client = Client::connect([address], None).await.expect("it serves");
            act(client).await;
        };
        tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .expect("it answers in time");
    });
}

#[test]
fn keys_transactions_and_compaction() {
    with_client(|mut client| async move {
        let first = client.put("r/a", "1", None).await.expect("a put");
        let created = first.header().expect("a header").revision();
        let again = PutOptions::new().with_prev_key();
        let second = client.put("r/a", "2", Some(again)).await.expect("a put");
        assert_eq!(second.prev_key().map(|kv| kv.value()), Some(&b"1"[..]));
        for n in 0..5 {
            client
                .put(format!("r/b/{n}"), "x", None)
                .await
                .expect("a put");
        }
        let page = GetOptions::new()
            .with_prefix()
            .with_limit(2)
            .with_sort(SortTarget::Key, SortOrder::Descend);
        let page = client.get("r/b/", Some(page)).await.expect("a page");
        assert_eq!(page.kvs()[0].key(), b"r/b/4");
        assert_eq!((page.kvs().len(), page.count(), page.more()), (2, 5, true));
        let past = GetOptions::new().with_revision(created);
        let past = client.get("r/a", Some(past)).await.expect("the past");
        assert_eq!(past.kvs()[0].value(), b"1");

        let txn = Txn::new()
            .when([
                Compare::version("r/a", CompareOp::Equal, 2),
                Compare::value("r/a", CompareOp::NotEqual, "1"),
            ])
            .and_then([TxnOp::put("r/a", "3", None), TxnOp::get("r/a", None)])
            .or_else([TxnOp::delete("r/a", None)]);
        let done = client.txn(txn).await.expect("a transaction");
        assert!(done.succeeded());
        assert_eq!(done.op_responses().len(), 2);

        let all = DeleteOptions::new().with_prefix().with_prev_key();
        let gone = client.delete("r/b/", Some(all)).await.expect("a delete");
        assert_eq!((gone.deleted(), gone.prev_kvs().len()), (5, 5));
        client.compact(created + 1, None).await.expect("compaction");
        let refused = client
            .get("r/a", Some(GetOptions::new().with_revision(created)))
            .await
            .expect_err("it is compacted");
        assert!(
            refused
                .to_string()
                .contains("required revision has been compacted"),
            "{refused}"
        );
    });
}

/// The next event: its type and its value.
async fn event(stream: &mut WatchStream) -> (EventType, Vec<u8>) {
    loop {
        let response = stream
            .message()
            .await
            .expect("it goes on")
            .expect("it goes on");
        if let Some(event) = response.events().first() {
            let value = event.kv().map(|kv| kv.value().to_vec()).unwrap_or_default();
            return (event.event_type(), value);
        }
    }
}

#[test]
fn watches_and_leases() {
    with_client(|mut client| async move {
        let prefix = WatchOptions::new().with_prefix().with_prev_key();
        let mut stream = client.watch("w/", Some(prefix)).await.expect("a watch");
        let lease = client.lease_grant(60, None).await.expect("a grant").id();
        let leased = PutOptions::new().with_lease(lease);
        client.put("w/a", "1", Some(leased)).await.expect("a put");
        assert_eq!(event(&mut stream).await, (EventType::Put, b"1".to_vec()));
        let (mut keeper, mut kept) = client.lease_keep_alive(lease).await.expect("a stream");
        for _ in 0..3 {
            keeper.keep_alive().await.expect("it is sent");
            let answer = kept.message().await.expect("an answer").expect("an answer");
            assert_eq!(answer.ttl(), 60);
        }
        let keys = LeaseTimeToLiveOptions::new().with_keys();
        let left = client
            .lease_time_to_live(lease, Some(keys))
            .await
            .expect("an answer");
        assert_eq!(left.keys(), [b"w/a".to_vec()]);
        client.lease_revoke(lease).await.expect("its end");
        assert_eq!(event(&mut stream).await.0, EventType::Delete);
        stream.request_progress().await.expect("it is sent");
        let told = stream
            .message()
            .await
            .expect("it goes on")
            .expect("it goes on");
        assert!(told.events().is_empty());
        stream.cancel(0).await.expect("it is sent");
        let end = stream
            .message()
            .await
            .expect("it goes on")
            .expect("it goes on");
        assert!(end.canceled());
    });
}

#[test]
fn members_and_maintenance() {
    with_client(|mut client| async move {
        let members = client.member_list().await.expect("a list");
        assert_eq!(members.members().len(), 1);
        let status = client.status().await.expect("a status");
        assert!(status.version().starts_with("3.7."), "{}", status.version());
        assert_eq!(status.leader(), members.members()[0].id());
        client.defragment().await.expect("nothing to do");
        let users = client.user_list().await.expect("a list");
        assert!(users.users().is_empty());
    });
}
