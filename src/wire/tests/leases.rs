//! Messages about leases: samples, random ones, and what rkyv makes of them.

use proptest::prelude::*;
use rkyv::rancor::Error;

use crate::api::{
    self, GrantedLease, LeaseCheckpointRequest, LeaseExpireRequest, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LeasesResponse, Request, Response,
};
use crate::wire::archive::{
    Granted, Header, LeaseCheckpoint, LeaseExpire, LeaseGrant, LeaseGrantReply, LeaseId,
    LeaseKeepAliveReply, LeaseTimeToLive, LeaseTimeToLiveReply, LeaseTimeToLiveResult, LeasesReply,
    Name, Remaining,
};

macro_rules! to_bytes {
    ($value:expr) => {
        rkyv::to_bytes::<Error>(&$value).expect("small").to_vec()
    };
}

pub fn requests() -> Vec<Request<'static>> {
    let lease = |id| GrantedLease {
        id,
        granted_at: 0x0102_0304_0506_0708,
    };
    vec![
        Request::LeaseGrant(LeaseGrantRequest { ttl: 60, id: -7 }),
        Request::LeaseRevoke(LeaseRevokeRequest { id: i64::MAX }),
        Request::LeaseKeepAlive(LeaseKeepAliveRequest { id: 7 }),
        Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
            id: 7,
            keys: true,
            limit: 100,
            after: b"key",
        }),
        Request::LeaseTimeToLive(LeaseTimeToLiveRequest::default()),
        Request::Leases,
        Request::LeaseExpire(LeaseExpireRequest {
            leases: vec![lease(1), lease(-2)],
        }),
        Request::LeaseExpire(LeaseExpireRequest::default()),
        Request::LeaseCheckpoint(LeaseCheckpointRequest {
            leases: vec![(lease(1), 30), (lease(2), 0)],
        }),
    ]
}

pub fn responses() -> Vec<Response> {
    vec![
        Response::LeaseGrant(LeaseGrantResponse { id: 7, ttl: 60 }),
        Response::LeaseRevoke,
        Response::LeaseKeepAlive(LeaseKeepAliveResponse { id: 7, ttl: 60 }),
        Response::LeaseTimeToLive(LeaseTimeToLiveResponse {
            id: 7,
            ttl: 59,
            granted_ttl: 60,
            keys: vec![b"a".to_vec(), b"bcd".to_vec(), vec![]],
            more: true,
        }),
        Response::LeaseTimeToLive(LeaseTimeToLiveResponse::default()),
        Response::Leases(LeasesResponse { ids: vec![3, -1] }),
        Response::Leases(LeasesResponse::default()),
    ]
}

/// The body as rkyv makes it.
pub fn rkyv_request(request: &Request<'_>) -> Vec<u8> {
    match request {
        Request::LeaseGrant(LeaseGrantRequest { ttl, id }) => {
            to_bytes!(LeaseGrant { ttl: *ttl, id: *id })
        }
        Request::LeaseRevoke(LeaseRevokeRequest { id })
        | Request::LeaseKeepAlive(LeaseKeepAliveRequest { id }) => to_bytes!(LeaseId { id: *id }),
        Request::LeaseTimeToLive(ask) => to_bytes!(LeaseTimeToLive {
            after: ask.after.to_vec(),
            id: ask.id,
            limit: ask.limit,
            options: u8::from(ask.keys),
        }),
        Request::Leases => vec![],
        Request::LeaseExpire(expire) => {
            let leases = expire.leases.iter().map(|lease| Granted {
                id: lease.id,
                granted_at: lease.granted_at,
            });
            to_bytes!(LeaseExpire {
                leases: leases.collect()
            })
        }
        Request::LeaseCheckpoint(checkpoint) => {
            let leases = checkpoint.leases.iter().map(|(lease, left)| Remaining {
                id: lease.id,
                granted_at: lease.granted_at,
                remaining: *left,
            });
            to_bytes!(LeaseCheckpoint {
                leases: leases.collect()
            })
        }
        other => panic!("{other:?} is not about leases"),
    }
}

/// The body as rkyv makes it.
pub fn rkyv_response(header: Header, response: &Response) -> Vec<u8> {
    match response {
        Response::LeaseGrant(api::LeaseGrantResponse { id, ttl }) => to_bytes!(LeaseGrantReply {
            header,
            id: *id,
            ttl: *ttl,
        }),
        Response::LeaseRevoke => to_bytes!(header),
        Response::LeaseKeepAlive(LeaseKeepAliveResponse { id, ttl }) => {
            to_bytes!(LeaseKeepAliveReply {
                header,
                id: *id,
                ttl: *ttl,
            })
        }
        Response::LeaseTimeToLive(answer) => {
            let keys = answer.keys.iter().map(|key| Name { key: key.clone() });
            let result = LeaseTimeToLiveResult {
                keys: keys.collect(),
                id: answer.id,
                ttl: answer.ttl,
                granted_ttl: answer.granted_ttl,
                more: u8::from(answer.more),
            };
            to_bytes!(LeaseTimeToLiveReply { header, result })
        }
        Response::Leases(leases) => to_bytes!(LeasesReply {
            header,
            ids: leases.ids.clone(),
        }),
        other => panic!("{other:?} is not about leases"),
    }
}

/// Random ones, with the bytes they borrow.
pub type OwnedLeaseRequest = (u8, [i64; 2], bool, Vec<u8>, Vec<(i64, u64, i64)>);

pub fn any_request() -> impl Strategy<Value = OwnedLeaseRequest> {
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    let leases = prop::collection::vec(any::<(i64, u64, i64)>(), 0..5);
    (0..7u8, any::<[i64; 2]>(), any::<bool>(), bytes, leases)
}

pub fn borrow(owned: &OwnedLeaseRequest) -> Request<'_> {
    let (which, [id, ttl], keys, after, leases) = owned;
    let (id, ttl) = (*id, *ttl);
    let leases = leases.iter().map(|&(id, granted_at, left)| {
        let lease = GrantedLease { id, granted_at };
        (lease, left)
    });
    match which {
        0 => Request::LeaseGrant(LeaseGrantRequest { ttl, id }),
        1 => Request::LeaseRevoke(LeaseRevokeRequest { id }),
        2 => Request::LeaseKeepAlive(LeaseKeepAliveRequest { id }),
        3 => Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
            id,
            keys: *keys,
            limit: ttl,
            after,
        }),
        4 => Request::Leases,
        5 => Request::LeaseExpire(LeaseExpireRequest {
            leases: leases.map(|(lease, _)| lease).collect(),
        }),
        _ => Request::LeaseCheckpoint(LeaseCheckpointRequest {
            leases: leases.collect(),
        }),
    }
}

pub fn any_response() -> impl Strategy<Value = Response> {
    let bytes = prop::collection::vec(any::<u8>(), 0..20);
    let keys = prop::collection::vec(bytes, 0..5);
    let time = (any::<[i64; 3]>(), keys, any::<bool>()).prop_map(|(numbers, keys, more)| {
        Response::LeaseTimeToLive(LeaseTimeToLiveResponse {
            id: numbers[0],
            ttl: numbers[1],
            granted_ttl: numbers[2],
            keys,
            more,
        })
    });
    prop_oneof![
        any::<(i64, i64)>()
            .prop_map(|(id, ttl)| Response::LeaseGrant(LeaseGrantResponse { id, ttl })),
        Just(Response::LeaseRevoke),
        any::<(i64, i64)>()
            .prop_map(|(id, ttl)| Response::LeaseKeepAlive(LeaseKeepAliveResponse { id, ttl })),
        time,
        prop::collection::vec(any::<i64>(), 0..9)
            .prop_map(|ids| Response::Leases(LeasesResponse { ids })),
    ]
}
