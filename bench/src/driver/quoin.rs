//! quoin's native protocol.

#![forbid(unsafe_code)]

use quoin::api::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, PutRequest, RangeRequest, Request, RequestOp, TxnRequest,
};
use quoin::wire::{
    self, Decoded, FrameDecoder, HelloStatus, Reply, SERVER_PREAMBLE_BYTES, client_preamble,
    read_server_preamble,
};

use super::stream::Codec;
use crate::record::Failure;
use crate::workload::Op;

/// One connection's state.
#[derive(Debug)]
pub struct Native {
    decoder: FrameDecoder,
    in_flight_max: usize,
}

impl Default for Native {
    fn default() -> Native {
        Native {
            decoder: FrameDecoder::replies(usize::MAX),
            in_flight_max: usize::MAX,
        }
    }
}

impl Codec for Native {
    const NAME: &'static str = "quoin";

    fn greeting(&self) -> Vec<u8> {
        client_preamble().to_vec()
    }

    fn welcome(&mut self, input: &[u8]) -> Result<Option<usize>, String> {
        let hello = read_server_preamble(input)
            .map_err(|error| format!("not a quoin server, or another version: {error}"))?;
        let Some(hello) = hello else { return Ok(None) };
        if hello.status != HelloStatus::Accepted {
            return Err(format!("it refuses the connection: {:?}", hello.status));
        }
        self.in_flight_max = hello.in_flight_max as usize;
        Ok(Some(SERVER_PREAMBLE_BYTES))
    }

    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    fn encode(&mut self, id: u32, op: &Op<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        // Id 0 means the connection as a whole.
        let id = u64::from(id) + 1;
        match op {
            Op::Put { key, value, lease } => {
                let put = PutRequest {
                    lease: *lease,
                    ..put(key, value)
                };
                wire::encode_request(&Request::Put(put), id, out)
            }
            Op::Delete { key } => {
                let delete = DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                };
                wire::encode_request(&Request::DeleteRange(delete), id, out)
            }
            Op::Grant { id: lease, ttl } => {
                let grant = LeaseGrantRequest {
                    ttl: *ttl,
                    id: *lease,
                };
                wire::encode_request(&Request::LeaseGrant(grant), id, out)
            }
            Op::KeepAlive { id: lease } => {
                let keep = LeaseKeepAliveRequest { id: *lease };
                wire::encode_request(&Request::LeaseKeepAlive(keep), id, out)
            }
            Op::Get { key, serializable } => {
                let range = RangeRequest {
                    serializable: *serializable,
                    ..get(key)
                };
                wire::encode_request(&Request::Range(range), id, out)
            }
            Op::Range {
                key,
                end,
                limit,
                serializable,
            } => {
                let range = RangeRequest {
                    range_end: end,
                    limit: i64::try_from(*limit).unwrap_or(i64::MAX),
                    serializable: *serializable,
                    ..get(key)
                };
                wire::encode_request(&Request::Range(range), id, out)
            }
            Op::Txn { key, value } => {
                let txn = TxnRequest {
                    compare: vec![Compare {
                        key,
                        range_end: b"",
                        result: CompareResult::Greater,
                        target: CompareTarget::Version(-1),
                    }],
                    success: vec![RequestOp::Put(put(key, value)), RequestOp::Range(get(key))],
                    failure: Vec::new(),
                };
                wire::encode_request(&Request::Txn(txn), id, out)
            }
        }
        .map_err(|error| format!("the request cannot be encoded: {error}"))
    }

    fn decode(
        &mut self,
        input: &[u8],
        done: &mut dyn FnMut(u32, Result<(), Failure>),
    ) -> Result<usize, String> {
        let mut at = 0;
        let malformed = |error| format!("a malformed reply: {error}");
        loop {
            let (frame, consumed) = match self.decoder.decode(&input[at..]).map_err(malformed)? {
                Decoded::NeedMore { .. } => return Ok(at),
                Decoded::Frame { frame, consumed } => (frame, consumed),
            };
            at += consumed;
            let (_, reply) = wire::decode_reply(&frame).map_err(malformed)?;
            let outcome = match reply {
                Reply::Refused(refusal) if frame.id == 0 => {
                    return Err(format!("closed by the server: {}", refusal.message));
                }
                Reply::Refused(refusal) => Err(refusal.message.to_string().into()),
                Reply::Range { kvs, .. } if kvs.is_empty() => Err("key not found".into()),
                Reply::LeaseKeepAlive(kept) if kept.ttl <= 0 => Err("the lease is gone".into()),
                Reply::Txn {
                    succeeded: false, ..
                } => Err("the condition did not hold".into()),
                _ => Ok(()),
            };
            // An id beyond 32 bits is none of ours, like the largest slot.
            done(u32::try_from(frame.id - 1).unwrap_or(u32::MAX), outcome);
        }
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> PutRequest<'a> {
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
}

fn get(key: &[u8]) -> RangeRequest<'_> {
    RangeRequest {
        key,
        ..RangeRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use quoin::api::{Error, Header, PutResponse, RangeResponse, Response};
    use quoin::wire::{Kind, ServerHello, decode_request, encode_error, encode_response};

    use super::*;

    #[test]
    fn requests_are_those_of_the_protocol() {
        let mut native = Native::default();
        let mut out = Vec::new();
        let ops = [
            Op::Put {
                key: b"k",
                value: b"v",
                lease: 0,
            },
            Op::Get {
                key: b"k",
                serializable: true,
            },
            Op::Range {
                key: b"a",
                end: b"b",
                limit: 7,
                serializable: false,
            },
            Op::Txn {
                key: b"k",
                value: b"v",
            },
        ];
        for (id, op) in ops.iter().enumerate() {
            native.encode(id as u32, op, &mut out).unwrap();
        }
        let (mut at, mut kinds) = (0, Vec::new());
        while let Decoded::Frame { frame, consumed } = FrameDecoder::requests(usize::MAX)
            .decode(&out[at..])
            .unwrap()
        {
            at += consumed;
            kinds.push(frame.kind);
            assert_eq!(frame.id, kinds.len() as u64);
            match decode_request(frame.kind, frame.body).unwrap() {
                Request::Put(put) => assert_eq!((put.key, put.value), (&b"k"[..], &b"v"[..])),
                Request::Range(range) if range.serializable => assert_eq!(range.key, b"k"),
                Request::Range(range) => assert_eq!((range.range_end, range.limit), (&b"b"[..], 7)),
                Request::Txn(txn) => assert_eq!((txn.compare.len(), txn.success.len()), (1, 2)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(kinds, [Kind::Put, Kind::Range, Kind::Range, Kind::Txn]);
        assert_eq!(at, out.len());
    }

    #[test]
    fn replies_find_their_requests() {
        let header = Header::default();
        let mut bytes = Vec::new();
        let put = Response::Put(PutResponse::default());
        encode_response(&header, &put, 3, &mut bytes).unwrap();
        encode_error(&header, Error::NoSpace, 1, &mut bytes);
        let nothing = Response::Range(RangeResponse::default());
        encode_response(&header, &nothing, 2, &mut bytes).unwrap();
        let mut seen = Vec::new();
        let used = Native::default()
            .decode(&bytes, &mut |id, end| seen.push((id, end)))
            .unwrap();
        assert_eq!(used, bytes.len());
        assert_eq!(seen[0], (2, Ok(())));
        assert_eq!(seen[1], (0, Err(Error::NoSpace.message().into())));
        assert_eq!(seen[2], (1, Err("key not found".into())));
        let none = Native::default()
            .decode(&bytes[..5], &mut |_, _| ())
            .unwrap();
        assert_eq!(none, 0);
        bytes[30] ^= 1;
        assert!(Native::default().decode(&bytes, &mut |_, _| ()).is_err());
    }

    #[test]
    fn the_welcome_tells_the_limits_or_why_not() {
        let mut hello = ServerHello {
            status: HelloStatus::Accepted,
            frame_bytes_max: 1 << 20,
            in_flight_max: 77,
            cluster_id: 1,
            member_id: 2,
        };
        let mut native = Native::default();
        let bytes = wire::server_preamble(&hello);
        assert_eq!(native.welcome(&bytes[..9]), Ok(None));
        assert_eq!(native.welcome(&bytes), Ok(Some(SERVER_PREAMBLE_BYTES)));
        assert_eq!(native.in_flight_max(), 77);
        hello.status = HelloStatus::Busy;
        assert!(
            native
                .welcome(&wire::server_preamble(&hello))
                .unwrap_err()
                .contains("Busy")
        );
        assert!(
            native
                .welcome(b"HTTP/1.1 400")
                .unwrap_err()
                .contains("not a quoin server")
        );
    }
}
