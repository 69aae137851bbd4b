//! Requests and answers of the Lock and Election services (`v3lock.proto`, `v3election.proto`).
#![forbid(unsafe_code)]

use super::message;
use super::method::Method;
use super::pb::{Fields, Malformed, put_bytes, put_i64, put_message};
use super::reply::{put_header, put_kv};
use super::request::Refused;
use super::status::{Code, Status};
use crate::api::{Error, Header, KeyValue};

/// A call of the two services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionRequest<'a> {
    /// Take a lock, as soon as it is free.
    Lock {
        /// Which one.
        name: &'a [u8],
        /// The lease that it is held by; 0: the server grants one.
        lease: i64,
    },
    /// Give a lock back.
    Unlock {
        /// As the answer to [`ElectionRequest::Lock`] named it.
        key: &'a [u8],
    },
    /// Become the leader of an election, as soon as there is no other.
    Campaign {
        /// Which election.
        name: &'a [u8],
        /// The lease that leadership is held by; 0: the server grants one.
        lease: i64,
        /// What the leader has to say.
        value: &'a [u8],
    },
    /// Say something else as the leader.
    Proclaim {
        /// Who says so.
        leader: LeaderKey<'a>,
        /// What.
        value: &'a [u8],
    },
    /// Tell who leads.
    Leader {
        /// Which election.
        name: &'a [u8],
    },
    /// Tell who leads, and what each leader says, from now on.
    Observe {
        /// Which election.
        name: &'a [u8],
    },
    /// Lead no longer, or wait no longer for it.
    Resign {
        /// Who.
        leader: LeaderKey<'a>,
    },
}

/// Names a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaderKey<'a> {
    /// The election.
    pub name: &'a [u8],
    /// The leader's key.
    pub key: &'a [u8],
    /// The key's creation revision.
    pub rev: i64,
    /// The lease that it hangs on.
    pub lease: i64,
}

/// Reads a message of one of the two services' calls; `None` for any other call.
pub fn decode_election(
    method: Method,
    message: &[u8],
) -> Result<Option<ElectionRequest<'_>>, Status> {
    let leads = matches!(method, Method::Proclaim | Method::Resign);
    let read = || -> Result<(Parts<'_>, LeaderKey<'_>), Malformed> {
        let parts = parts(message)?;
        let leader = match parts.leader {
            Some(leader) if leads => leader_key(leader)?,
            _ => LeaderKey::default(),
        };
        Ok((parts, leader))
    };
    if !leads && !is_election(method) {
        return Ok(None);
    }
    let unreadable = |malformed| Refused::Malformed(malformed).on(method);
    let (parts, leader) = read().map_err(unreadable)?;
    if leads && parts.leader.is_none() {
        let text = "\"leader\" field must be provided";
        return Err(Status::new(Code::Unknown, text));
    }
    let Parts {
        first,
        lease,
        third,
        second,
        ..
    } = parts;
    Ok(Some(match method {
        Method::Lock => ElectionRequest::Lock { name: first, lease },
        Method::Unlock => ElectionRequest::Unlock { key: first },
        Method::Campaign => ElectionRequest::Campaign {
            name: first,
            lease,
            value: third,
        },
        Method::Proclaim => ElectionRequest::Proclaim {
            leader,
            value: second,
        },
        Method::Leader => ElectionRequest::Leader { name: first },
        Method::Observe => ElectionRequest::Observe { name: first },
        _ => ElectionRequest::Resign { leader },
    }))
}

/// Whether a call belongs to one of the two services.
pub fn is_election(method: Method) -> bool {
    matches!(
        method,
        Method::Lock
            | Method::Unlock
            | Method::Campaign
            | Method::Proclaim
            | Method::Leader
            | Method::Observe
            | Method::Resign
    )
}

/// What the messages have: their fields 1 to 3, of the types that occur.
#[derive(Default)]
struct Parts<'a> {
    first: &'a [u8],
    /// The same, unless it does not stand there.
    leader: Option<&'a [u8]>,
    second: &'a [u8],
    lease: i64,
    third: &'a [u8],
}

fn parts(message: &[u8]) -> Result<Parts<'_>, Malformed> {
    let mut parts = Parts::default();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => {
                value.set_bytes(&mut parts.first);
                parts.leader = value.bytes().or(parts.leader);
            }
            2 => {
                value.set_i64(&mut parts.lease);
                value.set_bytes(&mut parts.second);
            }
            3 => value.set_bytes(&mut parts.third),
            _ => {}
        }
    }
    Ok(parts)
}

fn leader_key(message: &[u8]) -> Result<LeaderKey<'_>, Malformed> {
    let mut leader = LeaderKey::default();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_bytes(&mut leader.name),
            2 => value.set_bytes(&mut leader.key),
            3 => value.set_i64(&mut leader.rev),
            4 => value.set_i64(&mut leader.lease),
            _ => {}
        }
    }
    Ok(leader)
}

/// What went wrong, as etcd says it in these services: they are clients of the store there, and
/// its refusals lose their code on the way.
pub fn election_status(error: Error) -> Status {
    Status::new(Code::Unknown, error.message())
}

/// Somebody else leads.
pub fn not_leader() -> Status {
    Status::new(Code::Unknown, "election: not leader")
}

/// Nobody leads.
pub fn no_leader() -> Status {
    Status::new(Code::Unknown, "election: no leader")
}

/// The lease ended before the lock was free.
pub fn session_expired() -> Status {
    Status::new(Code::Unknown, "mutex: session is expired")
}

fn answer(out: &mut Vec<u8>, header: &Header, write: impl FnOnce(&mut Vec<u8>)) {
    let start = message::begin(out);
    put_message(out, 1, |out| put_header(out, header));
    write(out);
    message::finish(out, start);
}

/// Says that a lock is held, by this key.
pub fn encode_locked(header: &Header, key: &[u8], out: &mut Vec<u8>) {
    answer(out, header, |out| put_bytes(out, 2, key));
}

/// Says who has won.
pub fn encode_won(header: &Header, leader: &LeaderKey<'_>, out: &mut Vec<u8>) {
    answer(out, header, |out| {
        put_message(out, 2, |out| {
            put_bytes(out, 1, leader.name);
            put_bytes(out, 2, leader.key);
            put_i64(out, 3, leader.rev);
            put_i64(out, 4, leader.lease);
        });
    });
}

/// Says who leads.
pub fn encode_leader(header: &Header, kv: &KeyValue<'_>, out: &mut Vec<u8>) {
    answer(out, header, |out| put_kv(out, 2, kv));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        cluster_id: 1,
        member_id: 2,
        revision: 3,
        raft_term: 4,
    };

    #[test]
    fn requests_are_read() {
        let lock = b"\x0a\x01n\x10\x07";
        let read = |method, message| decode_election(method, message).unwrap().unwrap();
        let expected = ElectionRequest::Lock {
            name: b"n",
            lease: 7,
        };
        assert_eq!(read(Method::Lock, lock), expected);
        let campaign = b"\x0a\x01n\x10\x07\x1a\x01v";
        let expected = ElectionRequest::Campaign {
            name: b"n",
            lease: 7,
            value: b"v",
        };
        assert_eq!(read(Method::Campaign, campaign), expected);
        let proclaim = b"\x0a\x0a\x0a\x01n\x12\x01k\x18\x05\x20\x07\x12\x01v";
        let leader = LeaderKey {
            name: b"n",
            key: b"k",
            rev: 5,
            lease: 7,
        };
        let expected = ElectionRequest::Proclaim {
            leader,
            value: b"v",
        };
        assert_eq!(read(Method::Proclaim, proclaim), expected);
        let resign = &proclaim[..12];
        assert_eq!(
            read(Method::Resign, resign),
            ElectionRequest::Resign { leader }
        );
        assert_eq!(decode_election(Method::Put, lock), Ok(None));
        let missing = decode_election(Method::Resign, b"").unwrap_err();
        assert_eq!(missing.message, "\"leader\" field must be provided");
        let broken = decode_election(Method::Proclaim, b"\x0a\x01\x0a").unwrap_err();
        assert_eq!(broken.code, Code::Internal);
    }

    #[test]
    fn answers_have_the_numbers_of_etcd() {
        let head = [0x0a, 8, 8, 1, 16, 2, 24, 3, 32, 4];
        let mut out = Vec::new();
        encode_locked(&HEADER, b"key", &mut out);
        assert_eq!(out[5..], [&head[..], b"\x12\x03key"].concat());
        out.clear();
        let leader = LeaderKey {
            name: b"n",
            key: b"k",
            rev: 5,
            lease: 7,
        };
        encode_won(&HEADER, &leader, &mut out);
        let won = b"\x12\x0a\x0a\x01n\x12\x01k\x18\x05\x20\x07";
        assert_eq!(out[5..], [&head[..], won].concat());
        out.clear();
        let kv = KeyValue {
            key: b"k",
            value: b"v",
            ..KeyValue::default()
        };
        encode_leader(&HEADER, &kv, &mut out);
        assert_eq!(
            out[5..],
            [&head[..], b"\x12\x06\x0a\x01k\x2a\x01v"].concat()
        );
    }
}
