//! Alarms: raised, taken back, and acted on.
//!
//! Each is a name in the state tree. What follows from all of them together is a byte of
//! [`Meta::extra`], so that apply can look at it for each command, and fronts with each root.

use super::Failure;
use crate::api::{Alarm, AlarmAction, AlarmKind, AlarmRequest, AlarmResponse, Error, Request};
use quoin_storage::mvcc::state::{self, Space};
use quoin_storage::mvcc::{self, Meta};
use quoin_storage::tree::{TreeId, TreeRead, TreeWrite};

const NO_SPACE: u8 = 1;
const CORRUPT: u8 = 2;

fn code(kind: AlarmKind) -> u8 {
    match kind {
        AlarmKind::NoSpace => NO_SPACE,
        AlarmKind::Corrupt => CORRUPT,
    }
}

fn name(alarm: Alarm) -> [u8; 9] {
    let mut name = [code(alarm.kind); 9];
    name[1..].copy_from_slice(&alarm.member_id.to_be_bytes());
    name
}

fn read_name(name: &[u8]) -> Result<Alarm, mvcc::Error> {
    let damaged = || mvcc::Error::Corrupt {
        tree: TreeId::State,
        key: name.into(),
        what: "the name of no alarm",
    };
    let (kind, member) = name.split_first().ok_or_else(damaged)?;
    let kind = match *kind {
        NO_SPACE => AlarmKind::NoSpace,
        CORRUPT => AlarmKind::Corrupt,
        _ => return Err(damaged()),
    };
    let member: [u8; 8] = member.try_into().map_err(|_| damaged())?;
    Ok(Alarm {
        kind,
        member_id: u64::from_be_bytes(member),
    })
}

/// Whether any member has raised an alarm of that kind.
pub fn is_raised(meta: &Meta, kind: AlarmKind) -> bool {
    meta.extra
        .first()
        .is_some_and(|flags| flags & code(kind) != 0)
}

/// The alarms of a kind, or all.
pub fn alarms(tree: &impl TreeRead, kind: Option<AlarmKind>) -> Result<Vec<Alarm>, Failure> {
    let (mut alarms, mut failed) = (Vec::new(), Ok(()));
    let prefix = kind.map(code);
    state::scan(tree, Space::ALARM, prefix.as_slice(), &mut |name, _| {
        match read_name(name) {
            Ok(alarm) => alarms.push(alarm),
            Err(error) => failed = Err(error),
        }
        failed.is_ok()
    })?;
    failed?;
    Ok(alarms)
}

/// Runs a command about alarms.
pub(super) fn execute<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    request: &AlarmRequest,
) -> Result<AlarmResponse, Failure> {
    let Some(kind) = request.alarm else {
        let alarms = match request.action {
            AlarmAction::Get => alarms(tree, None)?,
            _ => Vec::new(),
        };
        return Ok(AlarmResponse { alarms });
    };
    let alarm = Alarm {
        kind,
        member_id: request.member_id,
    };
    let alarms = match request.action {
        AlarmAction::Get => self::alarms(tree, Some(kind))?,
        AlarmAction::Activate => {
            state::put(tree, Space::ALARM, &name(alarm), b"")?;
            vec![alarm]
        }
        AlarmAction::Deactivate => {
            let was = state::remove(tree, Space::ALARM, &name(alarm))?;
            was.then_some(alarm).into_iter().collect()
        }
    };
    let others = !self::alarms(tree, Some(kind))?.is_empty();
    if meta.extra.is_empty() {
        meta.extra.push(0);
    }
    meta.extra[0] = match others {
        true => meta.extra[0] | code(kind),
        false => meta.extra[0] & !code(kind),
    };
    Ok(AlarmResponse { alarms })
}

/// What alarms refuse: with `Corrupt` every write and compaction of a client, with `NoSpace` what
/// adds.
#[inline]
pub(super) fn check(meta: &Meta, request: &Request<'_>) -> Result<(), Error> {
    if meta.extra.is_empty() {
        return Ok(());
    }
    let own = matches!(
        request,
        Request::Alarm(_) | Request::LeaseExpire(_) | Request::LeaseCheckpoint(_)
    );
    if is_raised(meta, AlarmKind::Corrupt) && !own {
        return Err(Error::Corrupt);
    }
    if is_raised(meta, AlarmKind::NoSpace) && super::validate::adds_data(request) {
        return Err(Error::NoSpace);
    }
    Ok(())
}
