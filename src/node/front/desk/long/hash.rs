//! The hash of history up to a revision, as etcd computes it, in slices.
#![forbid(unsafe_code)]

use super::super::super::connection::{Connection, ConnectionId};
use super::super::{Desk, Turn, answer};
use super::{Slice, Work};
use crate::api::Header;
use crate::apply::Failure;
use crate::etcd::hash::{self, Change, Hasher};
use crate::etcd::{Method, Refused};
use crate::limits;
use quoin_storage::mvcc::{self, Event, Revision, View};
use quoin_storage::tree::{Interval, TreeId, TreeRead};

/// A hash that is being computed.
#[derive(Debug)]
pub struct LongHash {
    header: Header,
    /// The last revision that is hashed.
    revision: i64,
    compacted: i64,
    /// Whether there are keys at that revision.
    any: bool,
    hasher: Hasher,
    next: Revision,
    /// What comes after history, if it does: the rest of the state, from this key on.
    state: Option<Vec<u8>>,
}

impl LongHash {
    /// Hashes history up to a revision, the newest if it is 0; and, if `all`, all other state.
    fn new<T: TreeRead>(
        view: &View<'_, T>,
        header: Header,
        revision: i64,
        all: bool,
    ) -> Result<LongHash, Failure> {
        let newest = view.horizon().revision;
        let mut long = LongHash {
            header,
            revision: if revision == 0 { newest } else { revision },
            compacted: -1,
            any: false,
            hasher: Hasher::default(),
            next: Revision::NONE,
            state: all.then(Vec::new),
        };
        long.begin(view)?;
        Ok(long)
    }

    /// Begins, or begins anew because a compaction has come in between.
    fn begin<T: TreeRead>(&mut self, view: &View<'_, T>) -> Result<(), Failure> {
        self.compacted = view.horizon().compacted;
        self.hasher = Hasher::default();
        self.next = Revision::NONE;
        // A revision below 0 is one before all history.
        if self.revision > 0 {
            let everything = Interval {
                start: b"",
                end: None,
            };
            let revision = view.resolve(self.revision)?;
            let mut any = false;
            if self.compacted > 0 {
                view.scan_at(everything, revision, &mut |_| {
                    any = true;
                    Ok(false)
                })?;
            }
            self.any = any;
        }
        Ok(())
    }

    /// Works on.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        if view.horizon().compacted != self.compacted {
            self.begin(view)?;
        }
        let (hasher, mut bytes) = (&mut self.hasher, 0);
        let at = (self.compacted, self.revision, self.any);
        let rest = view.history_part(
            self.next,
            self.revision,
            limits::SLICE_ENTRIES,
            &mut |event| {
                if bytes >= limits::SLICE_BYTES {
                    return Ok(false);
                }
                bytes += event.key.len() + event.value.len();
                if is_hashed(view, event, at)? {
                    hasher.add(&change(event));
                }
                Ok(true)
            },
        )?;
        if let Some(next) = rest {
            self.next = next;
            return Ok(Slice::Working);
        }
        self.next = Revision::first(self.revision.saturating_add(1).max(1));
        if let Some(from) = &mut self.state {
            if let Some(next) = add_state(view.tree(), hasher, from)? {
                *from = next;
                return Ok(Slice::Working);
            }
            hash::encode(&self.header, self.hasher.hash(), None, out);
        } else {
            let revisions = Some((self.compacted, self.revision));
            hash::encode(&self.header, self.hasher.hash(), revisions, out);
        }
        Ok(Slice::Last)
    }
}

/// Of what lies at or before the compacted revision etcd hashes what its keys still are at the
/// revision asked for; if there is no key then, what they were at the compacted revision. The
/// purge does not matter.
fn is_hashed<T: TreeRead>(
    view: &View<'_, T>,
    event: &Event<'_>,
    (compacted, revision, any): (i64, i64, bool),
) -> Result<bool, mvcc::Error> {
    if event.revision.main > compacted {
        return Ok(true);
    }
    view.stands_at(event, if any { revision } else { compacted })
}

fn change<'e>(event: &Event<'e>) -> Change<'e> {
    Change {
        main: event.revision.main,
        sub: event.revision.sub,
        tombstone: event.tombstone,
        key: event.key,
        value: event.value,
        create_revision: event.create_revision,
        version: event.version,
        lease: event.lease,
    }
}

/// Adds small state; returns where to go on.
fn add_state<T: TreeRead>(
    tree: &T,
    hasher: &mut Hasher,
    from: &[u8],
) -> Result<Option<Vec<u8>>, Failure> {
    let rest = Interval {
        start: from,
        end: None,
    };
    let (mut entries, mut next) = (0, None);
    let scanned = tree.scan(TreeId::State, rest, &mut |key, value| {
        if entries == limits::SLICE_ENTRIES {
            next = Some(key.to_vec());
            return false;
        }
        entries += 1;
        hasher.add_bytes(key);
        hasher.add_bytes(value);
        true
    });
    scanned.map_err(mvcc::Error::from)?;
    Ok(next)
}

impl Desk {
    /// Takes up a call for a hash.
    pub(in super::super) fn hash_call(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        (stream, method, message): (u64, Method, &[u8]),
        turn: &mut Turn<'_>,
    ) {
        let revision = match hash::decode_revision(message) {
            Ok(revision) => revision,
            Err(malformed) => {
                self.write(connection, id, turn.now_ns, |connection| {
                    let refused = Refused::Malformed(malformed).into();
                    answer::close(connection, stream, Some(refused));
                });
                return;
            }
        };
        let all = method == Method::Hash;
        let header = self.header;
        let begun = turn.view().map_err(Failure::from).and_then(|view| {
            let header = Header {
                revision: view.horizon().revision,
                ..header
            };
            LongHash::new(&view, header, if all { 0 } else { revision }, all)
        });
        let taken = match begun {
            Ok(long) => {
                let work = (Work::Hash(Box::new(long)), size_of::<LongHash>());
                self.begin_long(connection, id, stream, work)
            }
            Err(failure) => Err(self.own_up(&failure, turn.now_ns)),
        };
        self.served(connection, id, stream, taken, turn.now_ns);
    }
}
