//! Answers about the member and its cluster: Cluster, Maintenance, Auth, and gRPC's health.
#![forbid(unsafe_code)]

use super::message;
use super::pb::{
    Fields, Malformed, begin_message, put_bool, put_bytes, put_i64, put_message, put_u64,
};
use super::reply::put_header;
use super::request::Refused;
use super::status::{Code, Status};
use crate::api::{Alarm, AlarmKind, Header};

/// The release of etcd whose API this is: clients look at it to learn what they may ask.
pub const ETCD_VERSION: &str = "3.7.3";

/// The version of a cluster of such members.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// The version of the storage schema that such a cluster has.
pub const STORAGE_VERSION: &str = "3.7.0";

/// Who a member is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// Where clients find it.
    pub client_urls: Vec<String>,
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// Bytes that the store takes, at least those in use.
    pub total_bytes: u64,
    /// Bytes of them in use, which the quota is held against.
    pub live_bytes: u64,
    /// The bytes in use beyond which writes that add are refused; below 0: there is no bound.
    pub quota_bytes: i64,
    /// The leader's id; 0: there is none.
    pub leader: u64,
    /// The last log entry that is applied.
    pub applied_index: u64,
    /// An alarm *no space* is raised.
    pub is_out_of_space: bool,
    /// An alarm *corrupt* is.
    pub is_corrupt: bool,
}

/// Appends one answer: a header, if it has one, and what `write` adds.
pub(super) fn answer(out: &mut Vec<u8>, header: Option<&Header>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = message::begin(out);
    if let Some(header) = header {
        put_message(out, 1, |out| put_header(out, header));
    }
    write(out);
    message::finish(out, start);
}

/// Answers `MemberList`. Answers about the cluster have no revision in their header.
pub fn encode_member_list(header: &Header, members: &[Member], out: &mut Vec<u8>) {
    let header = Header {
        revision: 0,
        ..*header
    };
    answer(out, Some(&header), |out| {
        for member in members {
            put_message(out, 2, |out| {
                put_u64(out, 1, member.id);
                put_bytes(out, 2, member.name.as_bytes());
                put_texts(out, 3, &member.peer_urls);
                put_texts(out, 4, &member.client_urls);
            });
        }
    });
}

fn put_texts(out: &mut Vec<u8>, field: u32, texts: &[String]) {
    for text in texts {
        begin_message(out, field, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

/// Answers `Status`; alarms are told as etcd prints them.
pub fn encode_status(header: &Header, condition: &Condition, alarms: &[Alarm], out: &mut Vec<u8>) {
    answer(out, Some(header), |out| {
        put_bytes(out, 2, ETCD_VERSION.as_bytes());
        put_u64(out, 3, condition.total_bytes);
        put_u64(out, 4, condition.leader);
        put_u64(out, 5, condition.applied_index);
        put_u64(out, 6, header.raft_term);
        put_u64(out, 7, condition.applied_index);
        if condition.leader == 0 {
            put_bytes(out, 8, b"etcdserver: no leader");
        }
        for alarm in alarms {
            let kind = match alarm.kind {
                AlarmKind::NoSpace => "NOSPACE",
                AlarmKind::Corrupt => "CORRUPT",
            };
            let alarm = format!("memberID:{} alarm:{kind}", alarm.member_id);
            put_bytes(out, 8, alarm.as_bytes());
        }
        put_u64(out, 9, condition.live_bytes);
        put_bytes(out, 11, STORAGE_VERSION.as_bytes());
        // A number below 0 is written as what is 2^64 larger.
        put_u64(out, 12, condition.quota_bytes as u64);
        put_message(out, 13, |_| {});
    });
}

/// Answers `Defragment`: space is given back while the server runs, so it is always done.
pub fn encode_defragment(out: &mut Vec<u8>) {
    answer(out, None, |_| {});
}

/// Answers `AuthStatus`: nobody has to say who they are.
pub fn encode_auth_status(header: &Header, out: &mut Vec<u8>) {
    answer(out, Some(header), |out| {
        put_bool(out, 2, false);
        put_u64(out, 3, 1);
    });
}

/// How a service is, as `grpc.health.v1` says it. Only the server as a whole, whose name is
/// empty, is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Serving = 1,
    /// It does not.
    NotServing = 2,
    /// There is no such service.
    Unknown = 3,
}

impl Health {
    /// How the service is that a request names.
    pub fn of(request: &[u8], serving: bool) -> Result<Health, Malformed> {
        let mut service = &b""[..];
        let mut fields = Fields::of(request);
        while let Some((number, value)) = fields.field()? {
            if number == 1 {
                value.set_string(&mut service)?;
            }
        }
        Ok(match (service, serving) {
            (b"", true) => Health::Serving,
            (b"", false) => Health::NotServing,
            _ => Health::Unknown,
        })
    }

    /// Appends what `Check` answers, and `Watch` says.
    pub fn encode(self, out: &mut Vec<u8>) {
        answer(out, None, |out| put_i64(out, 1, self as i64));
    }
}

/// Answers `grpc.health.v1.Health/Check`.
pub fn encode_health(request: &[u8], serving: bool, out: &mut Vec<u8>) -> Result<(), Status> {
    match Health::of(request, serving).map_err(Refused::Malformed)? {
        Health::Unknown => Err(Status::new(Code::NotFound, "unknown service")),
        health => {
            health.encode(out);
            Ok(())
        }
    }
}

/// Answers `grpc.health.v1.Health/List`: a map of one name, which is empty.
pub fn encode_health_list(serving: bool, out: &mut Vec<u8>) {
    let health = if serving { 1 } else { 2 };
    answer(out, None, |out| {
        put_message(out, 1, |out| {
            put_message(out, 1, |_| {});
            put_message(out, 2, |out| put_i64(out, 1, health));
        });
    });
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

    /// The message of an answer.
    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out[..4], [0, 0, 0, 0]);
        assert_eq!(usize::from(out[4]), out.len() - 5);
        out[5..].to_vec()
    }

    const WHOLE_HEADER: &[u8] = &[0x0a, 8, 8, 1, 16, 2, 24, 3, 32, 4];

    #[test]
    fn a_member_is_listed_without_a_revision() {
        let member = Member {
            id: 2,
            name: "n".to_owned(),
            peer_urls: vec!["p".to_owned()],
            client_urls: vec!["c".to_owned(), "d".to_owned()],
        };
        let message = written(|out| encode_member_list(&HEADER, &[member], out));
        let (head, rest) = message.split_at(8);
        assert_eq!(head, [0x0a, 6, 8, 1, 16, 2, 32, 4]);
        assert_eq!(
            rest,
            b"\x12\x0e\x08\x02\x12\x01n\x1a\x01p\x22\x01c\x22\x01d"
        );
    }

    #[test]
    fn health_is_told_of_the_whole_server_alone() {
        assert_eq!(
            written(|out| encode_health(&[], true, out).unwrap()),
            [8, 1]
        );
        assert_eq!(
            written(|out| encode_health(&[], false, out).unwrap()),
            [8, 2]
        );
        let list = written(|out| encode_health_list(true, out));
        assert_eq!(list, b"\x0a\x06\x0a\x00\x12\x02\x08\x01");
        assert_eq!(Health::of(b"\x0a\x01x", true), Ok(Health::Unknown));
        let unknown = encode_health(b"\x0a\x01x", true, &mut Vec::new());
        assert_eq!(unknown, Err(Status::new(Code::NotFound, "unknown service")));
    }

    #[test]
    fn small_answers_are_what_etcd_writes() {
        assert!(written(encode_defragment).is_empty());
        let auth = written(|out| encode_auth_status(&HEADER, out));
        assert_eq!(auth, [WHOLE_HEADER, &[24, 1]].concat());
        let condition = Condition {
            total_bytes: 100,
            live_bytes: 50,
            quota_bytes: 0,
            leader: 2,
            applied_index: 9,
            is_out_of_space: false,
            is_corrupt: false,
        };
        let status = written(|out| encode_status(&HEADER, &condition, &[], out));
        let expected = [
            WHOLE_HEADER,
            b"\x12\x053.7.3\x18\x64\x20\x02\x28\x09\x30\x04\x38\x09\x48\x32\x5a\x053.7.0\x6a\x00",
        ];
        assert_eq!(status, expected.concat());
        let alarm = Alarm {
            kind: AlarmKind::Corrupt,
            member_id: 7,
        };
        let status = written(|out| encode_status(&HEADER, &condition, &[alarm], out));
        let text = b"\x42\x18memberID:7 alarm:CORRUPT";
        assert!(status.windows(text.len()).any(|part| part == text));
    }
}
