//! Calls of the Maintenance service that are answered from what a member is.
#![forbid(unsafe_code)]

use super::member::{CLUSTER_VERSION, STORAGE_VERSION, answer};
use super::pb::{Fields, put_bytes, put_u64};
use super::request::{Refused, two_numbers};
use super::status::{Code, Status};
use crate::api::Header;

fn precondition(text: &'static str) -> Status {
    Status::new(Code::FailedPrecondition, text)
}

/// Answers `MoveLeader` where there is one member: leadership can only stay where it is.
pub fn encode_move_leader(
    message: &[u8],
    member: u64,
    is_leader: bool,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let (target, _) = two_numbers(message).map_err(Refused::Malformed)?;
    if !is_leader {
        return Err(precondition("etcdserver: not leader"));
    }
    if target as u64 != member {
        return Err(precondition("etcdserver: bad leader transferee"));
    }
    answer(out, None, |_| {});
    Ok(())
}

/// Answers `Downgrade`: what could be gone back to, as etcd says it; but nothing is ever enabled,
/// since no release of etcd reads what this server keeps.
pub fn encode_downgrade(message: &[u8], header: &Header, out: &mut Vec<u8>) -> Result<(), Status> {
    let (mut action, mut version) = (0, &b""[..]);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field().map_err(Refused::Malformed)? {
        match number {
            1 => value.set_enum(&mut action),
            2 => value.set_string(&mut version).map_err(Refused::Malformed)?,
            _ => {}
        }
    }
    match action {
        0 | 1 => check_target(version)?,
        2 => {}
        _ => return Err(Status::new(Code::Unknown, "etcdserver: unknown method")),
    }
    if action == 1 {
        return Err(Status::new(
            Code::Unimplemented,
            "no earlier release of etcd can take over the data of quoin: restore a backup of etcd, or copy the keys",
        ));
    }
    answer(out, Some(header), |out| {
        let (minor, _) = CLUSTER_VERSION.rsplit_once('.').unwrap_or_default();
        put_bytes(out, 2, minor.as_bytes());
    });
    Ok(())
}

/// Only the release before this one can be gone back to.
fn check_target(version: &[u8]) -> Result<(), Status> {
    let invalid = |text: &'static str| Status::new(Code::InvalidArgument, text);
    let text = std::str::from_utf8(version).unwrap_or("");
    let target = parse_version(text).or_else(|| parse_version(&format!("{text}.0")));
    let target = target.ok_or(invalid("etcdserver: wrong downgrade target version format"))?;
    let here = parse_version(CLUSTER_VERSION).unwrap_or_default();
    match target == (here.0, here.1 - 1) {
        true => Ok(()),
        false => Err(invalid("etcdserver: invalid downgrade target version")),
    }
}

/// Major and minor of a version `major.minor.patch[-pre][+meta]`.
fn parse_version(text: &str) -> Option<(i64, i64)> {
    let (rest, meta) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, pre) = rest.split_once('-').unwrap_or((rest, ""));
    let identifiers = |text: &str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'~');
        let part = |part: &str| !part.is_empty() && part.bytes().all(fine);
        text.is_empty() || text.split('.').all(part)
    };
    let mut parts = numbers.splitn(3, '.').map(|part| part.parse::<i64>().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    parts.next()??;
    (identifiers(meta) && identifiers(pre)).then_some((major, minor))
}

/// Appends a message of a snapshot's stream: a blob, and how many bytes of blobs follow it, the
/// checksum aside.
pub fn encode_snapshot_part(remaining: u64, blob: &[u8], out: &mut Vec<u8>) {
    answer(out, None, |out| {
        put_u64(out, 2, remaining);
        put_bytes(out, 3, blob);
        put_bytes(out, 4, STORAGE_VERSION.as_bytes());
    });
}

/// Answers a call that lists users or roles: there are none.
pub fn encode_nobody(header: &Header, out: &mut Vec<u8>) {
    answer(out, Some(header), |_| {});
}

#[cfg(test)]
mod tests {
    use super::*;

    fn downgrade(action: u8, version: &str) -> Result<Vec<u8>, (Code, String)> {
        let mut message = vec![8, action, 0x12, version.len() as u8];
        message.extend_from_slice(version.as_bytes());
        let mut out = Vec::new();
        match encode_downgrade(&message, &Header::default(), &mut out) {
            Ok(()) => Ok(out),
            Err(status) => Err((status.code, status.message.into_owned())),
        }
    }

    #[test]
    fn versions_are_judged_as_etcd_judges_them() {
        let fine = b"\0\0\0\0\x07\x0a\0\x12\x033.7";
        for version in ["3.6", "3.6.0", "3.6.9", "3.6.0-rc.0", "3.6.1+x"] {
            assert_eq!(downgrade(0, version), Ok(fine.to_vec()), "{version}");
        }
        let malformed = "etcdserver: wrong downgrade target version format";
        for version in ["", "x", "3", "v3.6", "3.6.0-", "3.6.0-a..b", "3.6.x"] {
            let refused = downgrade(0, version);
            if version == "3.6.0-" {
                // An empty part behind the dash is none.
                assert!(refused.is_ok());
                continue;
            }
            let expected = Err((Code::InvalidArgument, malformed.to_owned()));
            assert_eq!(refused, expected, "{version}");
        }
        let invalid = "etcdserver: invalid downgrade target version";
        for version in ["3.5.0", "3.7.0", "3.8", "4.6.0"] {
            for action in [0, 1] {
                let expected = Err((Code::InvalidArgument, invalid.to_owned()));
                assert_eq!(downgrade(action, version), expected, "{version}");
            }
        }
        assert_eq!(downgrade(2, "x"), Ok(fine.to_vec()));
        assert_eq!(downgrade(1, "3.6").unwrap_err().0, Code::Unimplemented);
        let unknown = (Code::Unknown, "etcdserver: unknown method".to_owned());
        assert_eq!(downgrade(7, "3.6"), Err(unknown));
    }

    #[test]
    fn a_part_of_a_snapshot_has_no_header() {
        let mut out = Vec::new();
        encode_snapshot_part(300, b"blob", &mut out);
        assert_eq!(out[5..], *b"\x10\xac\x02\x1a\x04blob\x22\x053.7.0");
    }

    #[test]
    fn leadership_moves_to_where_it_is() {
        let ask = |target: u8, is_leader| {
            let mut out = Vec::new();
            let moved = encode_move_leader(&[8, target], 9, is_leader, &mut out);
            moved.map(|()| out).map_err(|status| status.message)
        };
        assert_eq!(ask(9, true), Ok(vec![0; 5]));
        assert_eq!(
            ask(8, true),
            Err("etcdserver: bad leader transferee".into())
        );
        assert_eq!(ask(9, false), Err("etcdserver: not leader".into()));
    }
}
