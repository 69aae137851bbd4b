//! A call of the Lock and Election services as a plan: which request of the store comes next, and
//! what is answered in the end. It is what etcd's client library does in etcd's own server.
//!
//! Whoever wants a lock, or to lead, puts a key of its own under the name, hung on its lease, and
//! waits until no older key stands there; it watches the youngest of the older ones alone, so that
//! one that leaves wakes one that waits.
#![forbid(unsafe_code)]

use crate::api::{
    self, Compare, CompareResult, CompareTarget, DeleteRangeRequest, OwnedKeyValue, PutRequest,
    RangeRequest, Request, RequestOp, Response, SortOrder, SortTarget, TxnRequest, TxnResponse,
};
use crate::etcd::Status;
use crate::etcd::election::{
    ElectionRequest, election_status, no_leader, not_leader, session_expired,
};
use crate::node::front::ConnectionId;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Lock,
    Unlock,
    Campaign,
    Proclaim,
    Leader,
    Observe,
    Resign,
}

/// What it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A lease.
    Granting,
    /// That its key is there.
    Entering,
    /// That its key says something else.
    Claiming,
    /// Word of an older key, or of the leader.
    Looking,
    /// That a key is gone, or the first one comes.
    Watching,
    /// Word whether its key is still there.
    Confirming,
    /// The one write that it consists of.
    Writing,
    /// That its key is gone; nobody wants to know.
    Leaving,
}

/// A request of the store that a plan consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A lease, which the client has left to the server.
    Grant,
    /// Put its key, unless it is there, and look who is first.
    Enter,
    /// Write its key again.
    Claim,
    /// Delete its key, if it is still the same.
    Resign,
    /// Delete its key.
    Delete,
    /// Find the youngest key that is older than its own.
    FindOlder,
    /// Find the oldest key.
    FindFirst,
    /// Find its own key.
    FindOwn,
}

/// What comes in.
#[derive(Debug)]
pub enum News {
    /// The call itself.
    Begin,
    /// The answer to a wish, at that revision.
    Done(i64, Response),
    /// A wish was refused.
    Failed(api::Error),
    /// What was watched has changed.
    Changed,
    /// The first key has come, at that revision.
    Chosen(Vec<u8>, i64),
    /// The client has given up.
    Gone,
}

/// What has to be done.
#[derive(Debug)]
pub enum Act {
    /// Nothing, for now.
    Wait,
    /// Ask the store.
    Ask(Wish),
    /// Watch a key for what happens behind that revision; without a key, whatever is put under
    /// the name.
    Watch(Option<Vec<u8>>, i64),
    /// Tell of a leader, then watch its key.
    Tell(i64, OwnedKeyValue),
    /// Answer at that revision, and be done.
    Answer(i64, Option<OwnedKeyValue>),
    /// Refuse, and be done.
    Refuse(Status),
    /// Refuse, and take the key back.
    RefuseAndLeave(Status, Wish),
    /// Be done.
    Over,
}

/// See the module. Small: it may wait for long.
#[derive(Debug)]
pub struct Errand {
    pub connection: ConnectionId,
    pub call: u64,
    pub task: Task,
    /// How much of `key` is the name; a slash follows.
    name_bytes: usize,
    /// Its key, once the lease is known.
    pub key: Vec<u8>,
    pub lease: i64,
    /// The creation revision of its key.
    pub rev: i64,
    value: Vec<u8>,
    /// The revision of the answer.
    revision: i64,
    state: State,
    /// The client has given up.
    gone: bool,
    /// What it watched has changed, and it has not looked yet.
    pub deaf: bool,
    /// What it counts against the budgets.
    pub bytes: usize,
}

impl Errand {
    pub fn new(
        connection: ConnectionId,
        call: u64,
        request: &ElectionRequest<'_>,
        bytes: usize,
    ) -> Errand {
        let (task, name, lease, value) = match *request {
            ElectionRequest::Lock { name, lease } => (Task::Lock, name, lease, &b""[..]),
            ElectionRequest::Campaign { name, lease, value } => {
                (Task::Campaign, name, lease, value)
            }
            ElectionRequest::Unlock { key } => (Task::Unlock, key, 0, &b""[..]),
            ElectionRequest::Proclaim { leader, value } => {
                (Task::Proclaim, leader.key, leader.lease, value)
            }
            ElectionRequest::Resign { leader } => {
                (Task::Resign, leader.key, leader.lease, &b""[..])
            }
            ElectionRequest::Leader { name } => (Task::Leader, name, 0, &b""[..]),
            ElectionRequest::Observe { name } => (Task::Observe, name, 0, &b""[..]),
        };
        let rev = match request {
            ElectionRequest::Proclaim { leader, .. } | ElectionRequest::Resign { leader } => {
                leader.rev
            }
            _ => 0,
        };
        let mut key = name.to_vec();
        if !matches!(task, Task::Unlock | Task::Proclaim | Task::Resign) {
            key.push(b'/');
        }
        Errand {
            connection,
            call,
            task,
            name_bytes: name.len(),
            key,
            lease,
            rev,
            value: value.to_vec(),
            revision: 0,
            state: State::Granting,
            gone: false,
            deaf: false,
            bytes,
        }
    }

    pub fn name(&self) -> &[u8] {
        &self.key[..self.name_bytes]
    }

    /// The name and the slash.
    pub fn prefix(&self) -> &[u8] {
        &self.key[..self.name_bytes + 1]
    }

    /// Behind all keys under the name.
    pub fn prefix_end(&self) -> Vec<u8> {
        let mut end = self.name().to_vec();
        end.push(b'/' + 1);
        end
    }

    /// It follows a leader's key, and not yet the first one's arrival.
    pub fn follows(&self) -> bool {
        self.task == Task::Observe && self.rev != 0
    }

    /// A wish as a request; `end` is [`Errand::prefix_end`].
    pub fn request<'e>(&'e self, wish: Wish, end: &'e [u8]) -> Request<'e> {
        let key = &self.key[..];
        let own = RangeRequest {
            key,
            ..RangeRequest::default()
        };
        let is_at = |revision| Compare {
            key,
            range_end: b"",
            result: CompareResult::Equal,
            target: CompareTarget::Create(revision),
        };
        let put = RequestOp::Put(PutRequest {
            key,
            value: &self.value,
            lease: self.lease,
            ..PutRequest::default()
        });
        let delete = DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        };
        let if_own = |op| {
            Request::Txn(TxnRequest {
                compare: vec![is_at(self.rev)],
                success: vec![op],
                failure: Vec::new(),
            })
        };
        let by_age = |sort_order, max_create_revision| RangeRequest {
            key: self.prefix(),
            range_end: end,
            limit: 1,
            sort_order,
            sort_target: SortTarget::Create,
            max_create_revision,
            ..RangeRequest::default()
        };
        match wish {
            Wish::Grant => Request::LeaseGrant(api::LeaseGrantRequest { ttl: 60, id: 0 }),
            Wish::Enter => {
                let mut success = vec![put];
                let mut failure = vec![RequestOp::Range(own)];
                if self.task == Task::Lock {
                    let owner = by_age(SortOrder::Ascend, 0);
                    success.push(RequestOp::Range(owner.clone()));
                    failure.push(RequestOp::Range(owner));
                }
                Request::Txn(TxnRequest {
                    compare: vec![is_at(0)],
                    success,
                    failure,
                })
            }
            Wish::Claim => if_own(put),
            Wish::Resign => if_own(RequestOp::DeleteRange(delete)),
            Wish::Delete => Request::DeleteRange(delete),
            Wish::FindOlder => Request::Range(by_age(SortOrder::Descend, self.rev - 1)),
            Wish::FindFirst => Request::Range(by_age(SortOrder::Ascend, 0)),
            Wish::FindOwn => Request::Range(own),
        }
    }

    /// What news lead to.
    pub fn step(&mut self, news: News) -> Act {
        match news {
            News::Begin => self.begin(),
            News::Gone => {
                self.gone = true;
                match self.state {
                    State::Watching => self.give_up(),
                    _ => Act::Wait,
                }
            }
            News::Done(revision, response) => self.done(revision, response),
            News::Failed(error) => self.failed(error),
            News::Changed if self.state == State::Watching => {
                self.deaf = false;
                self.look()
            }
            News::Chosen(key, revision) if self.state == State::Watching => {
                self.deaf = false;
                self.rev = revision;
                Act::Watch(Some(key), revision)
            }
            News::Changed | News::Chosen(..) => Act::Wait,
        }
    }

    fn begin(&mut self) -> Act {
        match self.task {
            Task::Lock | Task::Campaign | Task::Proclaim if self.lease == 0 => {
                Act::Ask(Wish::Grant)
            }
            Task::Lock | Task::Campaign => self.enter(),
            Task::Unlock => self.write(Wish::Delete),
            Task::Proclaim => self.write(Wish::Claim),
            Task::Resign => self.write(Wish::Resign),
            Task::Leader | Task::Observe => self.look(),
        }
    }

    fn enter(&mut self) -> Act {
        self.state = State::Entering;
        self.key.truncate(self.name_bytes + 1);
        // As Go writes a signed number in hexadecimal.
        let sign = if self.lease < 0 { "-" } else { "" };
        let digits = format!("{sign}{:x}", self.lease.unsigned_abs());
        self.key.extend_from_slice(digits.as_bytes());
        Act::Ask(Wish::Enter)
    }

    fn write(&mut self, wish: Wish) -> Act {
        self.state = State::Writing;
        Act::Ask(wish)
    }

    fn look(&mut self) -> Act {
        self.state = State::Looking;
        // What it had to say is said.
        self.value = Vec::new();
        Act::Ask(match self.task {
            Task::Leader | Task::Observe => Wish::FindFirst,
            _ => Wish::FindOlder,
        })
    }

    fn done(&mut self, revision: i64, response: Response) -> Act {
        match (self.state, response) {
            (State::Granting, Response::LeaseGrant(grant)) => {
                self.lease = grant.id;
                match (self.gone, self.task) {
                    (true, _) => Act::Over,
                    (false, Task::Proclaim) => self.write(Wish::Claim),
                    (false, _) => self.enter(),
                }
            }
            (State::Entering, Response::Txn(txn)) => self.entered(revision, txn),
            (State::Claiming, Response::Txn(txn)) if !txn.succeeded => Act::Refuse(not_leader()),
            (State::Claiming, _) => match self.gone {
                true => self.give_up(),
                false => self.look(),
            },
            (State::Looking, Response::Range(range)) => self.looked(revision, range.kvs),
            (State::Confirming, Response::Range(range)) => match range.kvs.is_empty() {
                _ if self.gone => self.give_up(),
                true => Act::Refuse(session_expired()),
                false => Act::Answer(revision, None),
            },
            (State::Writing, Response::Txn(txn))
                if self.task == Task::Proclaim && !txn.succeeded =>
            {
                Act::Refuse(not_leader())
            }
            (State::Writing, _) => Act::Answer(revision, None),
            _ => Act::Over,
        }
    }

    fn entered(&mut self, revision: i64, txn: TxnResponse) -> Act {
        let mut found = txn.responses.into_iter().map(|response| match response {
            Response::Range(range) => range.kvs.into_iter().next(),
            _ => None,
        });
        let own = found.next().flatten();
        self.revision = revision;
        self.rev = match (txn.succeeded, &own) {
            (false, Some(own)) => own.create_revision,
            _ => revision,
        };
        if self.gone {
            return self.give_up();
        }
        match self.task {
            Task::Lock => match found.next().flatten() {
                Some(owner) if owner.create_revision != self.rev => self.look(),
                _ => Act::Answer(revision, None),
            },
            _ if own.is_some_and(|own| own.value != self.value) => {
                self.state = State::Claiming;
                Act::Ask(Wish::Claim)
            }
            _ => self.look(),
        }
    }

    fn looked(&mut self, revision: i64, found: Vec<OwnedKeyValue>) -> Act {
        if self.gone {
            return self.give_up();
        }
        let found = found.into_iter().next();
        match (self.task, found) {
            (Task::Leader, Some(leader)) => Act::Answer(revision, Some(leader)),
            (Task::Leader, None) => Act::Refuse(no_leader()),
            (Task::Observe, Some(leader)) => {
                self.state = State::Watching;
                self.rev = leader.create_revision;
                Act::Tell(revision, leader)
            }
            (Task::Observe, None) => {
                self.state = State::Watching;
                self.rev = 0;
                Act::Watch(None, revision)
            }
            (_, Some(older)) => {
                self.state = State::Watching;
                Act::Watch(Some(older.key), revision)
            }
            (Task::Lock, None) => {
                self.state = State::Confirming;
                Act::Ask(Wish::FindOwn)
            }
            (_, None) => Act::Answer(self.revision, None),
        }
    }

    fn failed(&mut self, error: api::Error) -> Act {
        let status = election_status(error);
        let has_key = matches!(
            self.state,
            State::Looking | State::Watching | State::Confirming | State::Claiming
        );
        match (self.state, self.task) {
            (State::Leaving, _) => Act::Over,
            _ if self.gone && has_key => self.give_up(),
            _ if self.gone => Act::Over,
            (_, Task::Lock) if has_key => self.refuse_and_leave(status, Wish::Delete),
            (State::Claiming, _) => self.refuse_and_leave(status, Wish::Resign),
            _ => Act::Refuse(status),
        }
    }

    fn refuse_and_leave(&mut self, status: Status, wish: Wish) -> Act {
        self.state = State::Leaving;
        self.gone = true;
        Act::RefuseAndLeave(status, wish)
    }

    /// Takes its key back, if there is one: nobody wants it any more.
    fn give_up(&mut self) -> Act {
        let wish = match self.task {
            Task::Lock => Wish::Delete,
            Task::Campaign => Wish::Resign,
            _ => return Act::Over,
        };
        self.state = State::Leaving;
        Act::Ask(wish)
    }
}
