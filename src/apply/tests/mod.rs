//! The engine against etcd's rules: each quirk by its name, and random histories against a
//! model.

mod admission;

mod batches;

mod leases;

mod alarms;

mod model;

mod random;

mod reads;

mod space;

mod tree_file;

mod writes;

use super::*;
use crate::api::*;
use quoin_storage::mvcc::{Meta, View};
use quoin_storage::tree::model::ModelTree;
use quoin_storage::tree::{Interval, TreeError, TreeId, TreeRead, TreeWrite};

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub struct MapStore {
    tree: ModelTree,
    user: Vec<u8>,
    /// Bytes that may still be inserted.
    pub left: Option<usize>,
    pub refuses_commits: bool,
    pub commits: usize,
}

pub struct MapTxn<'s> {
    tree: ModelTree,
    left: Option<usize>,
    store: &'s mut MapStore,
}

impl Store for MapStore {
    type Txn<'s> = MapTxn<'s>;

    fn begin(&mut self) -> MapTxn<'_> {
        MapTxn {
            tree: self.tree.clone(),
            left: self.left,
            store: self,
        }
    }

    fn user(&self) -> &[u8] {
        &self.user
    }
}

impl StoreTxn for MapTxn<'_> {
    fn commit(self, user: &[u8]) -> Result<(), TreeError> {
        if self.store.refuses_commits {
            return Err(TreeError::NoSpace);
        }
        self.store.tree = self.tree;
        self.store.left = self.left;
        self.store.user = user.to_vec();
        self.store.commits += 1;
        Ok(())
    }
}

impl TreeRead for MapTxn<'_> {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        self.tree.get(tree, key)
    }

    fn scan<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        self.tree.scan(tree, interval, visit)
    }

    fn scan_back<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        self.tree.scan_back(tree, interval, visit)
    }

    fn count(&self, tree: TreeId, interval: Interval<'_>) -> Result<u64, TreeError> {
        self.tree.count(tree, interval)
    }
}

impl TreeWrite for MapTxn<'_> {
    fn insert(
        &mut self,
        tree: TreeId,
        key: &[u8],
        value: &[&[u8]],
        counted: bool,
    ) -> Result<(), TreeError> {
        if let Some(left) = &mut self.left {
            let bytes = key.len() + value.iter().map(|part| part.len()).sum::<usize>();
            *left = left.checked_sub(bytes).ok_or(TreeError::NoSpace)?;
        }
        self.tree.insert(tree, key, value, counted)
    }

    fn remove(&mut self, tree: TreeId, key: &[u8]) -> Result<bool, TreeError> {
        self.tree.remove(tree, key)
    }
}

/// A whole server without network and log: admission, one command to a batch, reads.
pub struct Server {
    pub applier: Applier<MapStore, u64>,
}

impl Server {
    pub fn new() -> Server {
        Server {
            applier: Applier::open(MapStore::default(), BatchLimits::default()).unwrap(),
        }
    }

    pub fn revision(&self) -> i64 {
        self.applier.meta().revision
    }

    pub fn serve(&mut self, request: &Request<'_>) -> Result<Response, Error> {
        self.serve_with_revision(request).0
    }

    /// The answer and the header's revision.
    pub fn serve_with_revision(&mut self, request: &Request<'_>) -> (Result<Response, Error>, i64) {
        if let Err(error) = validate::admit(request, &validate::Limits::default()) {
            return (Err(error), self.revision());
        }
        let view = View::new(&self.applier.store().tree, self.applier.meta().horizon());
        let read = match request {
            Request::Range(request) => {
                let mut response = RangeResponse::default();
                let read = range(&view, request, &mut response);
                Some(read.map(|RangeSummary { more, count }| {
                    Response::Range(RangeResponse {
                        more,
                        count,
                        ..response
                    })
                }))
            }
            Request::Txn(txn) if is_read_only(txn) => {
                Some(read_txn(&view, txn, usize::MAX).map(Response::Txn))
            }
            _ => None,
        };
        match read {
            Some(read) => (read.map_err(refusal), self.revision()),
            None => self.write(request),
        }
    }

    fn write(&mut self, request: &Request<'_>) -> (Result<Response, Error>, i64) {
        let index = self.applier.meta().applied_index + 1;
        let commands = vec![Command {
            waiter: index,
            request: request.clone(),
        }];
        let entry = Entry {
            index,
            term: 1,
            bytes: 1,
            conf_state: None,
            commands,
        };
        let mut outcomes = Vec::new();
        self.applier
            .apply(&[entry], &mut { usize::MAX }, &mut outcomes)
            .unwrap();
        let [(waiter, outcome)] = outcomes.try_into().unwrap();
        assert_eq!(waiter, index);
        match outcome {
            Outcome::Put { revision } => (Ok(Response::Put(PutResponse::default())), revision),
            Outcome::Done { revision, response } => (Ok(*response), revision),
            Outcome::Failed { revision, error } => (Err(error), revision),
        }
    }

    pub fn purge(&mut self, events: usize) {
        while self.applier.has_background() {
            self.applier.background(events, &mut Vec::new()).unwrap();
        }
    }

    // What the tests of single rules say most.

    pub fn put(&mut self, key: &str, value: &str) -> i64 {
        let put = PutRequest {
            key: key.as_bytes(),
            value: value.as_bytes(),
            ..Default::default()
        };
        let (answer, revision) = self.serve_with_revision(&Request::Put(put));
        answer.unwrap();
        revision
    }

    pub fn range(&mut self, request: RangeRequest<'_>) -> Result<RangeResponse, Error> {
        match self.serve(&Request::Range(request))? {
            Response::Range(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    pub fn delete(&mut self, key: &str, range_end: &str) -> i64 {
        let delete = DeleteRangeRequest {
            key: key.as_bytes(),
            range_end: range_end.as_bytes(),
            prev_kv: false,
        };
        match self.serve(&Request::DeleteRange(delete)).unwrap() {
            Response::DeleteRange(response) => response.deleted,
            other => panic!("{other:?}"),
        }
    }

    pub fn txn(&mut self, txn: TxnRequest<'_>) -> Result<TxnResponse, Error> {
        match self.serve(&Request::Txn(txn))? {
            Response::Txn(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Error> {
        let compact = CompactRequest {
            revision,
            physical: false,
        };
        self.serve(&Request::Compact(compact)).map(|_| ())
    }
}

fn refusal(failure: Failure) -> Error {
    match failure {
        Failure::Refused(error) => error,
        Failure::Broken(error) => panic!("{error}"),
    }
}

pub fn all() -> RangeRequest<'static> {
    RangeRequest {
        key: b"\0",
        range_end: b"\0",
        ..Default::default()
    }
}

pub fn keys(response: &RangeResponse) -> Vec<&str> {
    response
        .kvs
        .iter()
        .map(|kv| std::str::from_utf8(&kv.key).unwrap())
        .collect()
}

pub fn put_op<'a>(key: &'a str, value: &'a str) -> RequestOp<'a> {
    let (key, value) = (key.as_bytes(), value.as_bytes());
    RequestOp::Put(PutRequest {
        key,
        value,
        ..Default::default()
    })
}

pub fn delete_op<'a>(key: &'a str, range_end: &'a str) -> RequestOp<'a> {
    let (key, range_end) = (key.as_bytes(), range_end.as_bytes());
    RequestOp::DeleteRange(DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    })
}

pub fn range_op(key: &str) -> RequestOp<'_> {
    RequestOp::Range(RangeRequest {
        key: key.as_bytes(),
        ..Default::default()
    })
}

pub fn nested<'a>(success: Vec<RequestOp<'a>>, failure: Vec<RequestOp<'a>>) -> RequestOp<'a> {
    RequestOp::Txn(TxnRequest {
        compare: vec![],
        success,
        failure,
    })
}

pub fn always(success: Vec<RequestOp<'_>>) -> TxnRequest<'_> {
    TxnRequest {
        success,
        ..Default::default()
    }
}

pub fn compare<'a>(key: &'a str, result: CompareResult, target: CompareTarget<'a>) -> Compare<'a> {
    Compare {
        key: key.as_bytes(),
        range_end: b"",
        result,
        target,
    }
}

pub fn admit(request: Request<'_>) -> Result<(), Error> {
    validate::admit(&request, &validate::Limits::default())
}

pub fn admit_txn(txn: TxnRequest<'_>) -> Result<(), Error> {
    admit(Request::Txn(txn))
}

pub fn span<'a>(key: &'a str, range_end: &'a str) -> RangeRequest<'a> {
    let (key, range_end) = (key.as_bytes(), range_end.as_bytes());
    RangeRequest {
        key,
        range_end,
        ..Default::default()
    }
}

/// a1 b2 c3 d4 written in this order, at revisions 2 to 5.
pub fn four() -> Server {
    let mut server = Server::new();
    for (key, value) in [("a", "4"), ("b", "3"), ("c", "2"), ("d", "1")] {
        server.put(key, value);
    }
    server
}
