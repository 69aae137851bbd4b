//! Messages about alarms: samples, and what rkyv makes of them.

use rkyv::rancor::Error;

use crate::api::{self, AlarmAction, AlarmKind, AlarmRequest, AlarmResponse, Request, Response};
use crate::wire::archive::{Alarm, AlarmOf, AlarmReply, Header};

const KINDS: [Option<AlarmKind>; 3] = [None, Some(AlarmKind::NoSpace), Some(AlarmKind::Corrupt)];
const ACTIONS: [AlarmAction; 3] = [
    AlarmAction::Get,
    AlarmAction::Activate,
    AlarmAction::Deactivate,
];

pub fn requests() -> Vec<Request<'static>> {
    let each = |action| {
        KINDS.map(|alarm| {
            Request::Alarm(AlarmRequest {
                action,
                member_id: 0x0102_0304_0506_0708,
                alarm,
            })
        })
    };
    ACTIONS.into_iter().flat_map(each).collect()
}

pub fn responses() -> Vec<Response> {
    let alarm = |kind, member_id| api::Alarm { kind, member_id };
    let alarms = vec![
        alarm(AlarmKind::NoSpace, 7),
        alarm(AlarmKind::Corrupt, u64::MAX),
    ];
    vec![
        Response::Alarm(AlarmResponse::default()),
        Response::Alarm(AlarmResponse { alarms }),
    ]
}

fn code(kind: Option<AlarmKind>) -> u8 {
    KINDS.iter().position(|of| *of == kind).expect("listed") as u8
}

/// The body as rkyv makes it.
pub fn rkyv_request(request: &AlarmRequest) -> Vec<u8> {
    let action = ACTIONS.iter().position(|of| *of == request.action);
    let archive = Alarm {
        member_id: request.member_id,
        action: action.expect("listed") as u8,
        alarm: code(request.alarm),
    };
    rkyv::to_bytes::<Error>(&archive).expect("small").to_vec()
}

/// The body as rkyv makes it.
pub fn rkyv_response(header: Header, response: &AlarmResponse) -> Vec<u8> {
    let alarms = response.alarms.iter().map(|alarm| AlarmOf {
        member_id: alarm.member_id,
        alarm: code(Some(alarm.kind)),
    });
    let archive = AlarmReply {
        header,
        alarms: alarms.collect(),
    };
    rkyv::to_bytes::<Error>(&archive).expect("small").to_vec()
}
