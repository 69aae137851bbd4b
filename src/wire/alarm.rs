//! Messages about alarms: bodies of requests and replies, written and read.

#![forbid(unsafe_code)]

use super::Malformed;
use super::archive::{ArchivedAlarm, ArchivedAlarmReply};
use super::layout::{ALARM_OF, ALARM_RESULT, ALARM_ROOT, HEADER};
use super::reply::write_header;
use super::reply_view::{Reply, header};
use super::walk::Walk;
use super::writer::Root;
use crate::api::{Alarm, AlarmAction, AlarmKind, AlarmRequest, AlarmResponse, Header};

/// As in etcd: 0 is none.
fn kind_code(kind: Option<AlarmKind>) -> u8 {
    match kind {
        None => 0,
        Some(AlarmKind::NoSpace) => 1,
        Some(AlarmKind::Corrupt) => 2,
    }
}

fn kind_of(code: u8) -> Result<Option<AlarmKind>, Malformed> {
    Ok(match code {
        0 => None,
        1 => Some(AlarmKind::NoSpace),
        2 => Some(AlarmKind::Corrupt),
        _ => return Err(Malformed::BadValue("alarm")),
    })
}

pub(super) fn write_request(request: &AlarmRequest, out: &mut Vec<u8>) {
    let action = match request.action {
        AlarmAction::Get => 0,
        AlarmAction::Activate => 1,
        AlarmAction::Deactivate => 2,
    };
    Root::<ALARM_ROOT>::at_end_of(out)
        .u64(request.member_id)
        .u8(action)
        .u8(kind_code(request.alarm))
        .done();
}

pub(super) fn decode_request(body: &[u8]) -> Result<AlarmRequest, Malformed> {
    let (root, walk) = Walk::open::<ArchivedAlarm>(body)?;
    walk.close(root)?;
    Ok(AlarmRequest {
        action: match root.action {
            0 => AlarmAction::Get,
            1 => AlarmAction::Activate,
            2 => AlarmAction::Deactivate,
            _ => return Err(Malformed::BadValue("action")),
        },
        member_id: root.member_id.to_native(),
        alarm: kind_of(root.alarm)?,
    })
}

pub(super) fn write_reply(header: &Header, response: &AlarmResponse, out: &mut Vec<u8>) {
    let start = out.len();
    for alarm in &response.alarms {
        Root::<ALARM_OF>::at_end_of(out)
            .u64(alarm.member_id)
            .u8(kind_code(Some(alarm.kind)))
            .done();
    }
    write_header(header, out);
    debug_assert_eq!(out.len() - start, response.alarms.len() * ALARM_OF + HEADER);
    Root::<ALARM_RESULT>::at_end_of(out)
        .vec(start, response.alarms.len())
        .done();
}

pub(super) fn decode_reply(body: &[u8]) -> Result<(Header, Reply<'_>), Malformed> {
    let (root, mut walk) = Walk::open::<ArchivedAlarmReply>(body)?;
    let mut alarms = Vec::with_capacity(root.alarms.len());
    for alarm in walk.vec(&root.alarms)? {
        let kind = kind_of(alarm.alarm)?.ok_or(Malformed::BadValue("alarm"))?;
        let member_id = alarm.member_id.to_native();
        alarms.push(Alarm { kind, member_id });
    }
    walk.close(root)?;
    Ok((header(&root.header), Reply::Alarm(AlarmResponse { alarms })))
}
