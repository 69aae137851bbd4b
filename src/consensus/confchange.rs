//! Membership: its stored form, its rules, and the reading of changes to it.
//!
//! Bytes that come from outside never reach the protobuf parser of the crate's dependency, which
//! recurses without bound on hostile input. The few fields of a change are read here instead.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};
use std::fmt;

/// The most members of one kind that are accepted; a cluster has a handful.
pub const MAX_MEMBERS: usize = 64;

/// The longest context of a change: the identity of the request that asked for it.
pub const MAX_CONTEXT: usize = 1024;

/// The version of the stored form of a membership.
const VERSION: u8 = 1;

/// What is wrong with a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfStateError {
    /// The bytes are no membership.
    Malformed,
    /// Nobody may vote.
    NoVoters,
    /// More members than accepted.
    TooMany,
    /// A member id of 0, or one twice in a list.
    BadId(u64),
    /// A member in lists that exclude each other, or not where another list requires it.
    Inconsistent(u64),
    /// A transition is half stored.
    HalfJoint,
}

impl fmt::Display for ConfStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfStateError::Malformed => f.write_str("its bytes are malformed"),
            ConfStateError::NoVoters => f.write_str("it has no voters"),
            ConfStateError::TooMany => write!(f, "it has more than {MAX_MEMBERS} members"),
            ConfStateError::BadId(id) => write!(f, "member {id:x} is 0 or listed twice"),
            ConfStateError::Inconsistent(id) => write!(f, "member {id:x} has two roles"),
            ConfStateError::HalfJoint => f.write_str("it holds half of a transition"),
        }
    }
}

impl std::error::Error for ConfStateError {}

/// The membership of `voters` alone.
pub fn voters(voters: &[u64]) -> ConfState {
    ConfState {
        voters: voters.to_vec(),
        ..ConfState::default()
    }
}

/// Checks the rules that the crate would enforce by a panic.
pub fn check_conf_state(conf: &ConfState) -> Result<(), ConfStateError> {
    if conf.voters.is_empty() {
        return Err(ConfStateError::NoVoters);
    }
    for list in lists(conf) {
        if list.len() > MAX_MEMBERS {
            return Err(ConfStateError::TooMany);
        }
        for (at, &id) in list.iter().enumerate() {
            if id == 0 || list[..at].contains(&id) {
                return Err(ConfStateError::BadId(id));
            }
        }
    }
    for id in &conf.learners {
        if conf.voters.contains(id) || conf.voters_outgoing.contains(id) {
            return Err(ConfStateError::Inconsistent(*id));
        }
    }
    for id in &conf.learners_next {
        if !conf.voters_outgoing.contains(id) || conf.voters.contains(id) {
            return Err(ConfStateError::Inconsistent(*id));
        }
    }
    let joint = !conf.voters_outgoing.is_empty();
    if !joint && (conf.auto_leave || !conf.learners_next.is_empty()) {
        return Err(ConfStateError::HalfJoint);
    }
    Ok(())
}

/// Every member, in whatever role, in ascending order.
pub fn members(conf: &ConfState) -> Vec<u64> {
    let mut all: Vec<u64> = lists(conf).into_iter().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The stored form: a version byte, a byte that is 1 for "leave the transition by itself", four
/// little-endian u16 lengths (voters, learners, outgoing voters, next learners), then the ids,
/// eight bytes each, in that order and each list ascending.
pub fn encode_conf_state(conf: &ConfState) -> Vec<u8> {
    let mut bytes = vec![VERSION, u8::from(conf.auto_leave)];
    for list in lists(conf) {
        bytes.extend_from_slice(&(list.len() as u16).to_le_bytes());
    }
    for list in lists(conf) {
        let mut sorted = list.clone();
        sorted.sort_unstable();
        sorted
            .iter()
            .for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
    }
    bytes
}

/// Reads the stored form, checked.
pub fn decode_conf_state(bytes: &[u8]) -> Result<ConfState, ConfStateError> {
    let (head, mut ids) = bytes
        .split_at_checked(10)
        .ok_or(ConfStateError::Malformed)?;
    if head[0] != VERSION || head[1] > 1 {
        return Err(ConfStateError::Malformed);
    }
    let mut decoded = [const { Vec::new() }; 4];
    for (at, list) in decoded.iter_mut().enumerate() {
        let len = usize::from(u16::from_le_bytes([head[2 + 2 * at], head[3 + 2 * at]]));
        if len > MAX_MEMBERS {
            return Err(ConfStateError::TooMany);
        }
        let (mine, rest) = ids
            .split_at_checked(len * 8)
            .ok_or(ConfStateError::Malformed)?;
        for raw in mine.chunks_exact(8) {
            let mut id = [0; 8];
            id.copy_from_slice(raw);
            list.push(u64::from_le_bytes(id));
        }
        ids = rest;
    }
    if !ids.is_empty() {
        return Err(ConfStateError::Malformed);
    }
    let [voters, learners, voters_outgoing, learners_next] = decoded;
    let conf = ConfState {
        voters,
        learners,
        voters_outgoing,
        learners_next,
        auto_leave: head[1] == 1,
        ..ConfState::default()
    };
    check_conf_state(&conf)?;
    Ok(conf)
}

fn lists(conf: &ConfState) -> [&Vec<u64>; 4] {
    [
        &conf.voters,
        &conf.learners,
        &conf.voters_outgoing,
        &conf.learners_next,
    ]
}

/// Reads the data of a configuration change entry (the second kind; the crate's older form is
/// never written by quoin). `None` if it is anything but one, with nothing unknown in it.
pub fn decode_change(bytes: &[u8]) -> Option<ConfChangeV2> {
    let mut change = ConfChangeV2::default();
    let mut fields = Fields { rest: bytes };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(n)) => change.set_transition(match n {
                0 => ConfChangeTransition::Auto,
                1 => ConfChangeTransition::Implicit,
                2 => ConfChangeTransition::Explicit,
                _ => return None,
            }),
            (2, Value::Bytes(single)) => {
                if change.changes.len() >= MAX_MEMBERS {
                    return None;
                }
                change.changes.push(decode_single(single)?);
            }
            (3, Value::Bytes(context)) if context.len() <= MAX_CONTEXT => {
                change.context = context.to_vec().into();
            }
            _ => return None,
        }
    }
    Some(change)
}

fn decode_single(bytes: &[u8]) -> Option<ConfChangeSingle> {
    let mut single = ConfChangeSingle::default();
    let mut fields = Fields { rest: bytes };
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(n)) => single.set_change_type(match n {
                0 => ConfChangeType::AddNode,
                1 => ConfChangeType::RemoveNode,
                2 => ConfChangeType::AddLearnerNode,
                _ => return None,
            }),
            (2, Value::Number(id)) => single.node_id = id,
            _ => return None,
        }
    }
    (single.node_id != 0).then_some(single)
}

/// One level of protobuf: numbered fields that are integers or bytes.
struct Fields<'a> {
    rest: &'a [u8],
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The next field; `Some(None)` at the end, `None` if the bytes are malformed.
    #[expect(clippy::option_option, reason = "malformed, ended, or a field")]
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.rest.split_at_checked(len)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protobuf::Message as _;

    fn joint() -> ConfState {
        ConfState {
            voters: vec![1, 2, 3],
            learners: vec![9],
            voters_outgoing: vec![1, 2, 4],
            learners_next: vec![4],
            auto_leave: true,
            ..ConfState::default()
        }
    }

    #[test]
    fn a_membership_survives_its_stored_form() {
        for conf in [voters(&[1]), voters(&[3, 5, 7]), joint()] {
            assert_eq!(decode_conf_state(&encode_conf_state(&conf)).unwrap(), conf);
        }
        #[rustfmt::skip]
        let golden = [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(encode_conf_state(&voters(&[5])), golden);
        assert_eq!(members(&joint()), [1, 2, 3, 4, 9]);
    }

    #[test]
    fn what_would_panic_the_crate_is_refused() {
        let refused = |change: fn(&mut ConfState)| {
            let mut conf = joint();
            change(&mut conf);
            check_conf_state(&conf).unwrap_err()
        };
        assert_eq!(refused(|c| c.voters.clear()), ConfStateError::NoVoters);
        assert_eq!(refused(|c| c.voters.push(0)), ConfStateError::BadId(0));
        assert_eq!(refused(|c| c.voters.push(1)), ConfStateError::BadId(1));
        assert_eq!(
            refused(|c| c.learners.push(2)),
            ConfStateError::Inconsistent(2)
        );
        assert_eq!(
            refused(|c| c.learners_next.push(5)),
            ConfStateError::Inconsistent(5)
        );
        assert_eq!(
            refused(|c| c.voters_outgoing.clear()),
            ConfStateError::Inconsistent(4)
        );
        assert_eq!(
            refused(|c| {
                c.voters_outgoing.clear();
                c.learners_next.clear();
            }),
            ConfStateError::HalfJoint
        );
        assert_eq!(
            refused(|c| c.voters = (1..100).collect()),
            ConfStateError::TooMany
        );
    }

    #[test]
    fn a_change_reads_as_the_crate_wrote_it() {
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Explicit);
        change.context = b"who asked".to_vec().into();
        for (id, kind) in [
            (1, ConfChangeType::RemoveNode),
            (u64::MAX, ConfChangeType::AddLearnerNode),
        ] {
            let mut single = ConfChangeSingle {
                node_id: id,
                ..ConfChangeSingle::default()
            };
            single.set_change_type(kind);
            change.changes.push(single);
        }
        let bytes = change.write_to_bytes().unwrap();
        assert_eq!(decode_change(&bytes), Some(change));
        assert_eq!(
            decode_change(b""),
            Some(ConfChangeV2::default()),
            "leaves the transition"
        );
        for len in 1..bytes.len() {
            decode_change(&bytes[..len]);
        }
    }

    #[test]
    fn nested_groups_are_refused_at_the_first() {
        assert_eq!(decode_change(&[0x0b; 100_000]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(conf) = decode_conf_state(&bytes) {
                prop_assert!(check_conf_state(&conf).is_ok());
            }
            decode_change(&bytes);
        }
    }
}
