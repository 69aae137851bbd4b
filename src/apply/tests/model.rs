//! etcd's key-value semantics once more, as plainly as they can be said: every revision is a
//! whole map, every answer is computed by looking at all of it. What the engine answers is held
//! against this, field by field.

use crate::api::*;
use std::collections::BTreeMap;

type State = BTreeMap<Vec<u8>, OwnedKeyValue>;

/// The store as a list of whole states.
#[derive(Debug, Clone)]
pub struct Model {
    /// The state at revision `i` is `states[i]`; revision 0 never existed and is empty.
    states: Vec<State>,
    compacted: i64,
    /// Id -> seconds granted, and seconds left if written down.
    pub leases: BTreeMap<i64, (i64, i64)>,
}

/// An answer and the revision for its header.
pub type Answer = Result<Response, Error>;

impl Model {
    pub fn new() -> Model {
        Model {
            states: vec![State::new(), State::new()],
            compacted: -1,
            leases: BTreeMap::new(),
        }
    }

    pub fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The newest state.
    pub fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    pub fn serve(&mut self, request: &Request<'_>) -> Answer {
        validate(request)?;
        match request {
            Request::Range(range) => self.range(range, None),
            Request::Compact(compact) => {
                if compact.revision <= self.compacted {
                    return Err(Error::Compacted);
                }
                if compact.revision > self.revision() {
                    return Err(Error::FutureRevision);
                }
                self.compacted = compact.revision;
                Ok(Response::Compact)
            }
            Request::Put(put) => {
                self.lease_exists(put.lease)?;
                if (put.ignore_value || put.ignore_lease) && !self.now().contains_key(put.key) {
                    return Err(Error::KeyNotFound);
                }
                self.write(|model, state, changed| model.execute_put(put, state, changed))
            }
            Request::DeleteRange(delete) => {
                self.write(|_, state, changed| execute_delete(delete, state, changed))
            }
            Request::Txn(txn) => {
                let path = self.path(txn);
                self.check(&path, &mut Vec::new())?;
                self.write(|model, state, changed| model.execute(&path, state, changed))
            }
            Request::LeaseGrant(grant) => {
                if grant.id == 0 {
                    return Err(Error::LeaseNotFound);
                }
                if grant.ttl > 9_000_000_000 {
                    return Err(Error::LeaseTtlTooLarge);
                }
                if self.leases.contains_key(&grant.id) {
                    return Err(Error::LeaseExists);
                }
                let (id, ttl) = (grant.id, grant.ttl.max(1));
                self.leases.insert(id, (ttl, 0));
                Ok(Response::LeaseGrant(LeaseGrantResponse { id, ttl }))
            }
            Request::LeaseRevoke(revoke) => {
                if !self.leases.contains_key(&revoke.id) {
                    return Err(Error::LeaseNotFound);
                }
                self.end(revoke.id);
                Ok(Response::LeaseRevoke)
            }
            other => panic!("{other:?} is not for the model"),
        }
    }

    fn lease_exists(&self, id: i64) -> Result<(), Error> {
        match id == 0 || self.leases.contains_key(&id) {
            true => Ok(()),
            false => Err(Error::LeaseNotFound),
        }
    }

    /// A lease ends, and its keys with it.
    pub fn end(&mut self, id: i64) {
        self.leases.remove(&id);
        let mut state = self.now().clone();
        state.retain(|_, kv| kv.lease != id);
        if state.len() < self.now().len() {
            self.states.push(state);
        }
    }

    fn write(&mut self, run: impl FnOnce(&Model, &mut State, &mut bool) -> Response) -> Answer {
        let mut state = self.now().clone();
        let mut changed = false;
        let response = run(self, &mut state, &mut changed);
        if changed {
            self.states.push(state);
        }
        Ok(response)
    }

    /// `open`: the state of the transaction in progress, if it has changed something.
    fn range(&self, r: &RangeRequest<'_>, open: Option<&State>) -> Answer {
        let newest = self.revision() + i64::from(open.is_some());
        if r.revision > newest {
            return Err(Error::FutureRevision);
        }
        let revision = if r.revision <= 0 { newest } else { r.revision };
        if revision < self.compacted {
            return Err(Error::Compacted);
        }
        let state = match open {
            Some(state) if revision == newest => state,
            _ => &self.states[revision as usize],
        };
        let mut kvs: Vec<_> = state
            .values()
            .filter(|kv| within(&kv.key, r.key, r.range_end))
            .cloned()
            .collect();
        let count = kvs.len() as i64;
        if r.count_only {
            return Ok(Response::Range(RangeResponse {
                kvs: vec![],
                more: false,
                count,
            }));
        }
        // The quirk: without an order, the limit cuts by key before anything sorts by value.
        let filters = [
            r.min_mod_revision,
            r.max_mod_revision,
            r.min_create_revision,
            r.max_create_revision,
        ];
        let limit = if r.limit > 0 {
            r.limit as usize
        } else {
            usize::MAX
        };
        if r.sort_order == SortOrder::None && filters == [0; 4] {
            kvs.truncate(limit.saturating_add(1));
        }
        if r.min_mod_revision != 0 {
            kvs.retain(|kv| kv.mod_revision >= r.min_mod_revision);
        }
        if r.max_mod_revision != 0 {
            kvs.retain(|kv| kv.mod_revision <= r.max_mod_revision);
        }
        if r.min_create_revision != 0 {
            kvs.retain(|kv| kv.create_revision >= r.min_create_revision);
        }
        if r.max_create_revision != 0 {
            kvs.retain(|kv| kv.create_revision <= r.max_create_revision);
        }
        kvs.sort_by(|a, b| {
            let order = match r.sort_target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if r.sort_order == SortOrder::Descend {
                order.reverse()
            } else {
                order
            }
        });
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if r.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(Response::Range(RangeResponse { kvs, more, count }))
    }

    fn execute_put(&self, put: &PutRequest<'_>, state: &mut State, changed: &mut bool) -> Response {
        let revision = self.revision() + 1;
        let old = state.get(put.key).cloned();
        let value = match &old {
            Some(old) if put.ignore_value => old.value.clone(),
            _ => put.value.to_vec(),
        };
        let kv = OwnedKeyValue {
            key: put.key.to_vec(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value,
            lease: match &old {
                Some(old) if put.ignore_lease => old.lease,
                _ => put.lease,
            },
        };
        state.insert(put.key.to_vec(), kv);
        *changed = true;
        Response::Put(PutResponse {
            prev_kv: if put.prev_kv { old } else { None },
        })
    }

    /// Which branch runs, evaluated on the state before the transaction.
    fn path<'t, 'r>(&self, txn: &'t TxnRequest<'r>) -> Path<'t, 'r> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let steps = ops
            .iter()
            .map(|op| match op {
                RequestOp::Txn(txn) => Step::Nested(self.path(txn)),
                op => Step::Op(op),
            })
            .collect();
        Path { succeeded, steps }
    }

    fn holds(&self, c: &Compare<'_>) -> bool {
        let kvs: Vec<_> = self
            .now()
            .values()
            .filter(|kv| within(&kv.key, c.key, c.range_end))
            .collect();
        let missing = OwnedKeyValue::default();
        let kvs = match (kvs.is_empty(), c.target) {
            (true, CompareTarget::Value(_)) => return false,
            (true, _) => vec![&missing],
            (false, _) => kvs,
        };
        kvs.iter().all(|kv| {
            let order = match c.target {
                CompareTarget::Version(v) => kv.version.cmp(&v),
                CompareTarget::Create(v) => kv.create_revision.cmp(&v),
                CompareTarget::Mod(v) => kv.mod_revision.cmp(&v),
                CompareTarget::Lease(v) => kv.lease.cmp(&v),
                CompareTarget::Value(v) => kv.value[..].cmp(v),
            };
            match c.result {
                CompareResult::Equal => order.is_eq(),
                CompareResult::NotEqual => order.is_ne(),
                CompareResult::Greater => order.is_gt(),
                CompareResult::Less => order.is_lt(),
            }
        })
    }

    fn check<'r>(
        &self,
        path: &Path<'_, 'r>,
        gone: &mut Vec<(&'r [u8], &'r [u8])>,
    ) -> Result<(), Error> {
        for step in &path.steps {
            match step {
                Step::Nested(path) => self.check(path, gone)?,
                Step::Op(RequestOp::Range(r)) => {
                    if r.revision > self.revision() {
                        return Err(Error::FutureRevision);
                    }
                    if r.revision != 0 && r.revision < self.compacted {
                        return Err(Error::Compacted);
                    }
                }
                Step::Op(RequestOp::Put(put)) => {
                    self.lease_exists(put.lease)?;
                    let exists = self.now().contains_key(put.key)
                        && !gone.iter().any(|(key, end)| within(put.key, key, end));
                    if (put.ignore_value || put.ignore_lease) && !exists {
                        return Err(Error::KeyNotFound);
                    }
                }
                Step::Op(RequestOp::DeleteRange(delete)) => {
                    gone.push((delete.key, delete.range_end));
                }
                Step::Op(RequestOp::Txn(_)) => unreachable!("they are nested paths"),
            }
        }
        Ok(())
    }

    fn execute(&self, path: &Path<'_, '_>, state: &mut State, changed: &mut bool) -> Response {
        let responses = path
            .steps
            .iter()
            .map(|step| match step {
                Step::Nested(path) => self.execute(path, state, changed),
                Step::Op(RequestOp::Range(r)) => {
                    self.range(r, changed.then_some(&*state)).expect("checked")
                }
                Step::Op(RequestOp::Put(put)) => self.execute_put(put, state, changed),
                Step::Op(RequestOp::DeleteRange(delete)) => execute_delete(delete, state, changed),
                Step::Op(RequestOp::Txn(_)) => unreachable!("they are nested paths"),
            })
            .collect();
        Response::Txn(TxnResponse {
            succeeded: path.succeeded,
            responses,
        })
    }
}

struct Path<'t, 'r> {
    succeeded: bool,
    steps: Vec<Step<'t, 'r>>,
}

enum Step<'t, 'r> {
    Op(&'t RequestOp<'r>),
    Nested(Path<'t, 'r>),
}

fn execute_delete(
    delete: &DeleteRangeRequest<'_>,
    state: &mut State,
    changed: &mut bool,
) -> Response {
    let (gone, kept): (State, State) = std::mem::take(state)
        .into_iter()
        .partition(|(key, _)| within(key, delete.key, delete.range_end));
    *state = kept;
    *changed |= !gone.is_empty();
    let deleted = gone.len() as i64;
    let prev_kvs = if delete.prev_kv {
        gone.into_values().collect()
    } else {
        vec![]
    };
    Response::DeleteRange(DeleteRangeResponse { deleted, prev_kvs })
}

/// Whether a key belongs to what `key` and `range_end` of a request mean.
pub fn within(candidate: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        b"" => candidate == key,
        b"\0" => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

fn validate(request: &Request<'_>) -> Result<(), Error> {
    match request {
        Request::Range(r) => key_given(r.key),
        Request::Put(put) => put_valid(put),
        Request::DeleteRange(d) => key_given(d.key),
        Request::Txn(txn) => {
            txn_valid(txn)?;
            clash_free(&txn.success)?;
            clash_free(&txn.failure)
        }
        _ => Ok(()),
    }
}

fn key_given(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() {
        Err(Error::EmptyKey)
    } else {
        Ok(())
    }
}

fn put_valid(put: &PutRequest<'_>) -> Result<(), Error> {
    key_given(put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

fn txn_valid(txn: &TxnRequest<'_>) -> Result<(), Error> {
    for compare in &txn.compare {
        key_given(compare.key)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            RequestOp::Range(r) => key_given(r.key)?,
            RequestOp::Put(put) => put_valid(put)?,
            RequestOp::DeleteRange(d) => key_given(d.key)?,
            RequestOp::Txn(txn) => txn_valid(txn)?,
        }
    }
    Ok(())
}

/// A write with its place: from the outermost list inwards, the index in the list and the branch
/// (of the nested transaction there) that leads on.
struct Placed<'r> {
    place: Vec<(usize, Option<bool>)>,
    key: &'r [u8],
    /// `None` for a put.
    delete_end: Option<&'r [u8]>,
}

fn collect<'r>(ops: &[RequestOp<'r>], place: &[(usize, Option<bool>)], into: &mut Vec<Placed<'r>>) {
    for (at, op) in ops.iter().enumerate() {
        let here = |branch| [place, &[(at, branch)]].concat();
        match op {
            RequestOp::Range(_) => {}
            RequestOp::Put(put) => {
                into.push(Placed {
                    place: here(None),
                    key: put.key,
                    delete_end: None,
                });
            }
            RequestOp::DeleteRange(d) => {
                let delete_end = Some(d.range_end);
                into.push(Placed {
                    place: here(None),
                    key: d.key,
                    delete_end,
                });
            }
            RequestOp::Txn(txn) => {
                collect(&txn.success, &here(Some(true)), into);
                collect(&txn.failure, &here(Some(false)), into);
            }
        }
    }
}

/// etcd's duplicate-key rule, said of pairs of writes.
fn clash_free(ops: &[RequestOp<'_>]) -> Result<(), Error> {
    let mut writes = Vec::new();
    collect(ops, &[], &mut writes);
    for (at, put) in writes.iter().enumerate() {
        if put.delete_end.is_some() {
            continue;
        }
        for (other_at, other) in writes.iter().enumerate() {
            let same_key = match other.delete_end {
                None | Some(b"") => other.key == put.key,
                // Taken literally, even if it is b"\0".
                Some(end) => put.key >= other.key && put.key < end,
            };
            if at == other_at || !same_key {
                continue;
            }
            let (mine, theirs) = put
                .place
                .iter()
                .zip(&other.place)
                .find(|(a, b)| a != b)
                .expect("two places");
            let exclusive = mine.0 == theirs.0;
            let later_sibling = other.delete_end.is_some()
                && mine.1.is_some()
                && theirs.1.is_some()
                && theirs.0 > mine.0;
            if !exclusive && !later_sibling {
                return Err(Error::DuplicateKey);
            }
        }
    }
    Ok(())
}
