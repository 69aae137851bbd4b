//! Requests of the KV and Lease services, out of protobuf into `api`, in place.
//!
//! As in every protobuf reader, unknown fields are passed over and a field that comes twice
//! counts as it came last; a message that comes twice is merged.
#![forbid(unsafe_code)]

use super::method::Method;
use super::pb::{Fields, Malformed, Value};
use super::status::{Code, Status};
use crate::api::{
    AlarmAction, AlarmKind, AlarmRequest, CompactRequest, Compare, CompareResult, CompareTarget,
    DeleteRangeRequest, Error, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, Request, RequestOp, SortOrder, SortTarget,
    TxnRequest,
};

/// How deep transactions may nest in a message; decoding recurses. The store takes fewer.
const DEPTH_MAX: usize = 128;

/// How many compares and operations a message may hold in all.
const OPS_MAX: usize = 1 << 16;

/// Why a message is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is none.
    Malformed(Malformed),
    /// It says something that the store would refuse. Whatever else the store finds wrong with
    /// the request comes first, if there is a request.
    Api(Error),
    /// It says something that no answer of the store's fits.
    Status(&'static str),
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Refused {
        Refused::Malformed(malformed)
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        match refused {
            Refused::Malformed(what) => Status::new(
                Code::Internal,
                format!("grpc: error unmarshalling request: {what}"),
            ),
            Refused::Api(error) => error.into(),
            Refused::Status(text) => Status::new(Code::InvalidArgument, text),
        }
    }
}

impl Refused {
    /// What is told on a call, which depends on whether it is a stream of messages either way.
    pub fn on(self, method: Method) -> Status {
        let streams = method.is_stream() || method.gives_many();
        match self {
            Refused::Malformed(what) if streams => Status::new(
                Code::Internal,
                format!("grpc: failed to unmarshal the received message: {what}"),
            ),
            other => other.into(),
        }
    }
}

/// A decoded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// What is asked.
    pub request: Request<'a>,
    /// What `api` cannot express: to be answered unless [`Decoded::request`] is refused for
    /// something that etcd checks before.
    pub flaw: Option<Error>,
}

/// What a message says that `api` has no words for.
#[derive(Default)]
struct Flaws {
    ops: usize,
    first: Option<Error>,
}

impl Flaws {
    fn found(&mut self, error: Error) {
        self.first.get_or_insert(error);
    }

    fn count(&mut self) -> Result<(), Refused> {
        self.ops += 1;
        match self.ops <= OPS_MAX {
            true => Ok(()),
            false => Err(Refused::Api(Error::TooManyOps)),
        }
    }
}

/// Reads the message of a call of the KV or the Lease service; `None` if it is of another.
pub fn decode(method: Method, message: &[u8]) -> Result<Option<Decoded<'_>>, Refused> {
    let mut flaws = Flaws::default();
    let request = match method {
        Method::Range | Method::RangeStream => {
            let mut range = RangeRequest::default();
            merge_range(&mut range, message, &mut flaws)?;
            Request::Range(range)
        }
        Method::Put => {
            let mut put = PutRequest::default();
            merge_put(&mut put, message)?;
            Request::Put(put)
        }
        Method::DeleteRange => {
            let mut delete = DeleteRangeRequest::default();
            merge_delete(&mut delete, message)?;
            Request::DeleteRange(delete)
        }
        Method::Txn => {
            let mut txn = TxnRequest::default();
            merge_txn(&mut txn, message, DEPTH_MAX, &mut flaws)?;
            Request::Txn(txn)
        }
        Method::Compact => Request::Compact(compact(message)?),
        Method::LeaseGrant => {
            let (ttl, id) = two_numbers(message)?;
            Request::LeaseGrant(LeaseGrantRequest { ttl, id })
        }
        Method::LeaseRevoke => {
            let (id, _) = two_numbers(message)?;
            Request::LeaseRevoke(LeaseRevokeRequest { id })
        }
        Method::LeaseKeepAlive => {
            let (id, _) = two_numbers(message)?;
            Request::LeaseKeepAlive(LeaseKeepAliveRequest { id })
        }
        Method::LeaseTimeToLive => {
            let (id, keys) = two_numbers(message)?;
            Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
                id,
                keys: keys != 0,
                ..LeaseTimeToLiveRequest::default()
            })
        }
        Method::LeaseLeases => {
            two_numbers(message)?;
            Request::Leases
        }
        Method::Alarm => Request::Alarm(alarm(message)?),
        _ => return Ok(None),
    };
    Ok(Some(Decoded {
        request,
        flaw: flaws.first,
    }))
}

fn three_numbers(message: &[u8]) -> Result<(u64, u64, u64), Malformed> {
    let mut numbers = [0; 3];
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        if let (1..=3, Some(value)) = (number, value.number()) {
            numbers[number as usize - 1] = value;
        }
    }
    let [a, b, c] = numbers;
    Ok((a, b, c))
}

/// An action that does not exist does nothing, as in etcd.
fn alarm(message: &[u8]) -> Result<AlarmRequest, Malformed> {
    let (action, member_id, alarm) = three_numbers(message)?;
    let alarm = match alarm {
        1 => Some(AlarmKind::NoSpace),
        2 => Some(AlarmKind::Corrupt),
        _ => None,
    };
    Ok(match action {
        0 => AlarmRequest {
            action: AlarmAction::Get,
            member_id,
            alarm,
        },
        1 => AlarmRequest {
            action: AlarmAction::Activate,
            member_id,
            alarm,
        },
        2 => AlarmRequest {
            action: AlarmAction::Deactivate,
            member_id,
            alarm,
        },
        _ => AlarmRequest {
            action: AlarmAction::Deactivate,
            member_id,
            alarm: None,
        },
    })
}

fn merge_range<'a>(
    range: &mut RangeRequest<'a>,
    message: &'a [u8],
    flaws: &mut Flaws,
) -> Result<(), Malformed> {
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_bytes(&mut range.key),
            2 => value.set_bytes(&mut range.range_end),
            3 => value.set_i64(&mut range.limit),
            4 => value.set_i64(&mut range.revision),
            5 => range.sort_order = sort_order(value, flaws).unwrap_or(range.sort_order),
            6 => range.sort_target = sort_target(value, flaws).unwrap_or(range.sort_target),
            7 => value.set_bool(&mut range.serializable),
            8 => value.set_bool(&mut range.keys_only),
            9 => value.set_bool(&mut range.count_only),
            10 => value.set_i64(&mut range.min_mod_revision),
            11 => value.set_i64(&mut range.max_mod_revision),
            12 => value.set_i64(&mut range.min_create_revision),
            13 => value.set_i64(&mut range.max_create_revision),
            _ => {}
        }
    }
    Ok(())
}

fn sort_order(value: Value<'_>, flaws: &mut Flaws) -> Option<SortOrder> {
    match enum_of(value)? {
        0 => Some(SortOrder::None),
        1 => Some(SortOrder::Ascend),
        2 => Some(SortOrder::Descend),
        _ => {
            flaws.found(Error::InvalidSortOption);
            None
        }
    }
}

fn sort_target(value: Value<'_>, flaws: &mut Flaws) -> Option<SortTarget> {
    match enum_of(value)? {
        0 => Some(SortTarget::Key),
        1 => Some(SortTarget::Version),
        2 => Some(SortTarget::Create),
        3 => Some(SortTarget::Mod),
        4 => Some(SortTarget::Value),
        _ => {
            flaws.found(Error::InvalidSortOption);
            None
        }
    }
}

fn enum_of(value: Value<'_>) -> Option<i32> {
    value.number().map(|number| number as i32)
}

fn merge_put<'a>(put: &mut PutRequest<'a>, message: &'a [u8]) -> Result<(), Malformed> {
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_bytes(&mut put.key),
            2 => value.set_bytes(&mut put.value),
            3 => value.set_i64(&mut put.lease),
            4 => value.set_bool(&mut put.prev_kv),
            5 => value.set_bool(&mut put.ignore_value),
            6 => value.set_bool(&mut put.ignore_lease),
            _ => {}
        }
    }
    Ok(())
}

fn merge_delete<'a>(
    delete: &mut DeleteRangeRequest<'a>,
    message: &'a [u8],
) -> Result<(), Malformed> {
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_bytes(&mut delete.key),
            2 => value.set_bytes(&mut delete.range_end),
            3 => value.set_bool(&mut delete.prev_kv),
            _ => {}
        }
    }
    Ok(())
}

fn compact(message: &[u8]) -> Result<CompactRequest, Malformed> {
    let mut compact = CompactRequest::default();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_i64(&mut compact.revision),
            2 => value.set_bool(&mut compact.physical),
            _ => {}
        }
    }
    Ok(compact)
}

/// A message whose fields 1 and 2 are numbers, or that has none.
pub(super) fn two_numbers(message: &[u8]) -> Result<(i64, i64), Malformed> {
    let (mut first, mut second) = (0, 0);
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_i64(&mut first),
            2 => value.set_i64(&mut second),
            _ => {}
        }
    }
    Ok((first, second))
}

fn merge_txn<'a>(
    txn: &mut TxnRequest<'a>,
    message: &'a [u8],
    depth: usize,
    flaws: &mut Flaws,
) -> Result<(), Refused> {
    let depth = depth
        .checked_sub(1)
        .ok_or(Refused::Api(Error::TooManyOps))?;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        let Some(bytes) = value.bytes() else {
            continue;
        };
        match number {
            1 => {
                flaws.count()?;
                txn.compare.push(compare(bytes)?);
            }
            2 | 3 => {
                flaws.count()?;
                let op = op(bytes, depth, flaws)?;
                match number {
                    2 => txn.success.push(op),
                    _ => txn.failure.push(op),
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// An operation without a request stands in the list as a range without a key, so that it is
/// counted; what is answered is the flaw.
fn op<'a>(message: &'a [u8], depth: usize, flaws: &mut Flaws) -> Result<RequestOp<'a>, Refused> {
    let mut op = None;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        let Some(bytes) = value.bytes() else {
            continue;
        };
        op = Some(match (number, op.take()) {
            (1, op) => {
                let mut range = match op {
                    Some(RequestOp::Range(range)) => range,
                    _ => RangeRequest::default(),
                };
                merge_range(&mut range, bytes, flaws)?;
                RequestOp::Range(range)
            }
            (2, op) => {
                let mut put = match op {
                    Some(RequestOp::Put(put)) => put,
                    _ => PutRequest::default(),
                };
                merge_put(&mut put, bytes)?;
                RequestOp::Put(put)
            }
            (3, op) => {
                let mut delete = match op {
                    Some(RequestOp::DeleteRange(delete)) => delete,
                    _ => DeleteRangeRequest::default(),
                };
                merge_delete(&mut delete, bytes)?;
                RequestOp::DeleteRange(delete)
            }
            (4, op) => {
                let mut txn = match op {
                    Some(RequestOp::Txn(txn)) => txn,
                    _ => TxnRequest::default(),
                };
                merge_txn(&mut txn, bytes, depth, flaws)?;
                RequestOp::Txn(txn)
            }
            (_, Some(op)) => op,
            (_, None) => continue,
        });
    }
    Ok(op.unwrap_or_else(|| {
        flaws.found(Error::KeyNotFound);
        RequestOp::Range(RangeRequest::default())
    }))
}

fn compare(message: &[u8]) -> Result<Compare<'_>, Refused> {
    let (mut result, mut target) = (0, 0);
    let (mut key, mut range_end) = (&b""[..], &b""[..]);
    // The operand: the field of the oneof that came last.
    let mut operand = None;
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => value.set_enum(&mut result),
            2 => value.set_enum(&mut target),
            3 => value.set_bytes(&mut key),
            4..=6 | 8 if value.number().is_some() => operand = Some((number, value)),
            7 if value.bytes().is_some() => operand = Some((number, value)),
            64 => value.set_bytes(&mut range_end),
            _ => {}
        }
    }
    // An operand of another field than the target's counts as none.
    let number = |field: u32| match operand {
        Some((number, value)) if number == field => value.number().unwrap_or(0) as i64,
        _ => 0,
    };
    let target = match target {
        0 => CompareTarget::Version(number(4)),
        1 => CompareTarget::Create(number(5)),
        2 => CompareTarget::Mod(number(6)),
        3 => CompareTarget::Value(match operand {
            Some((7, value)) => value.bytes().unwrap_or(b""),
            _ => b"",
        }),
        4 => CompareTarget::Lease(number(8)),
        _ => return Err(Refused::Status("etcdserver: invalid compare target")),
    };
    let result = match result {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => return Err(Refused::Status("etcdserver: invalid compare result")),
    };
    Ok(Compare {
        key,
        range_end,
        result,
        target,
    })
}
