//! What both clients offer, and what they make of replies.

#![forbid(unsafe_code)]

use super::error::ClientError;
use super::raw::RawReply;
use crate::api::{AlarmAction, Error, Header, Request, RequestOp, Response, TxnRequest};
use crate::wire::{self, Reply, Unencodable};

/// An answer, and who gave it at what point in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// Who answered, and when in history.
    pub header: Header,
    /// The answer.
    pub body: T,
}

/// Everything that can be asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call<'a> {
    Request(&'a Request<'a>),
    Ping,
    Status,
}

impl Call<'_> {
    pub fn encode(&self, id: u64, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        match self {
            Call::Request(request) => return wire::encode_request(request, id, out),
            Call::Ping => wire::encode_ping(id, out),
            Call::Status => wire::encode_status(id, out),
        }
        Ok(())
    }

    /// Whether it may change the store, so that it must not be repeated unasked.
    pub fn is_write(&self) -> bool {
        match self {
            Call::Request(Request::Range(_)) | Call::Ping | Call::Status => false,
            Call::Request(Request::Txn(txn)) => txn_writes(txn),
            // To renew a lease twice is to renew it.
            Call::Request(
                Request::LeaseKeepAlive(_) | Request::LeaseTimeToLive(_) | Request::Leases,
            ) => false,
            Call::Request(Request::Alarm(alarm)) => alarm.action != AlarmAction::Get,
            Call::Request(_) => true,
        }
    }
}

fn txn_writes(txn: &TxnRequest<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        RequestOp::Range(_) => false,
        RequestOp::Put(_) | RequestOp::DeleteRange(_) => true,
        RequestOp::Txn(txn) => txn_writes(txn),
    })
}

/// What an answer can be, owned.
#[derive(Debug)]
pub(super) enum Body {
    Response(Response),
    Ping,
    Status(String),
}

/// A reply as it goes to whoever waits for it.
#[derive(Debug)]
pub(super) struct Settled {
    header: Header,
    body: Result<Body, (u16, String)>,
}

impl Settled {
    pub fn new(reply: &RawReply<'_>) -> Settled {
        let body = match &reply.body {
            Reply::Refused(refusal) => Err((refusal.code, refusal.message.to_owned())),
            Reply::Status { version } => Ok(Body::Status((*version).to_owned())),
            Reply::Ping => Ok(Body::Ping),
            // The three that are no response stand above.
            body => Ok(body.to_response().map_or(Body::Ping, Body::Response)),
        };
        Settled {
            header: reply.header,
            body,
        }
    }

    /// The verdict on the request.
    pub fn verdict(self, write: bool) -> Result<Answer<Body>, ClientError> {
        let (code, message) = match self.body {
            Ok(body) => {
                return Ok(Answer {
                    header: self.header,
                    body,
                });
            }
            Err(refusal) => refusal,
        };
        match Error::from_code(code) {
            Some(error) if write && error.outcome_unknown() => {
                Err(ClientError::Refused(error).unknown())
            }
            Some(error) => Err(ClientError::Refused(error)),
            None => Err(ClientError::RefusedOther { code, message }),
        }
    }
}

/// The calls of a client, `async` or not. Expects `fn send(&self, Call) -> Result<Answer<Body>>`.
macro_rules! calls {
    ([$($async:tt)?] [$($await:tt)*]) => {
        /// Sends any request.
        pub $($async)? fn request(
            &self,
            request: &$crate::api::Request<'_>,
        ) -> Result<Answer<$crate::api::Response>, ClientError> {
            let answer = self.send(Call::Request(request))$($await)*?;
            match answer.body {
                Body::Response(body) => Ok(Answer { header: answer.header, body }),
                Body::Ping | Body::Status(_) => Err(ClientError::WrongReply),
            }
        }

        /// Reads keys.
        pub $($async)? fn range(
            &self,
            range: $crate::api::RangeRequest<'_>,
        ) -> Result<Answer<$crate::api::RangeResponse>, ClientError> {
            let answer = self.request(&$crate::api::Request::Range(range))$($await)*?;
            match answer.body {
                $crate::api::Response::Range(body) => Ok(Answer { header: answer.header, body }),
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Reads one key, linearizably; `None` if it does not exist.
        pub $($async)? fn get(
            &self,
            key: impl AsRef<[u8]>,
        ) -> Result<Answer<Option<$crate::api::OwnedKeyValue>>, ClientError> {
            let range = $crate::api::RangeRequest { key: key.as_ref(), ..Default::default() };
            let mut answer = self.range(range)$($await)*?;
            Ok(Answer { header: answer.header, body: answer.body.kvs.pop() })
        }

        /// Writes one key.
        pub $($async)? fn put(
            &self,
            key: impl AsRef<[u8]>,
            value: impl AsRef<[u8]>,
        ) -> Result<Answer<$crate::api::PutResponse>, ClientError> {
            let (key, value) = (key.as_ref(), value.as_ref());
            self.put_with($crate::api::PutRequest { key, value, ..Default::default() })$($await)*
        }

        /// Writes one key, with options.
        pub $($async)? fn put_with(
            &self,
            put: $crate::api::PutRequest<'_>,
        ) -> Result<Answer<$crate::api::PutResponse>, ClientError> {
            let answer = self.request(&$crate::api::Request::Put(put))$($await)*?;
            match answer.body {
                $crate::api::Response::Put(body) => Ok(Answer { header: answer.header, body }),
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Deletes one key.
        pub $($async)? fn delete(
            &self,
            key: impl AsRef<[u8]>,
        ) -> Result<Answer<$crate::api::DeleteRangeResponse>, ClientError> {
            let delete = $crate::api::DeleteRangeRequest { key: key.as_ref(), ..Default::default() };
            self.delete_range(delete)$($await)*
        }

        /// Deletes a key or an interval of keys.
        pub $($async)? fn delete_range(
            &self,
            delete: $crate::api::DeleteRangeRequest<'_>,
        ) -> Result<Answer<$crate::api::DeleteRangeResponse>, ClientError> {
            let answer = self.request(&$crate::api::Request::DeleteRange(delete))$($await)*?;
            match answer.body {
                $crate::api::Response::DeleteRange(body) => {
                    Ok(Answer { header: answer.header, body })
                }
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Compares, then runs one of two lists of operations.
        pub $($async)? fn txn(
            &self,
            txn: $crate::api::TxnRequest<'_>,
        ) -> Result<Answer<$crate::api::TxnResponse>, ClientError> {
            let answer = self.request(&$crate::api::Request::Txn(txn))$($await)*?;
            match answer.body {
                $crate::api::Response::Txn(body) => Ok(Answer { header: answer.header, body }),
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Drops the history before a revision.
        pub $($async)? fn compact(
            &self,
            compact: $crate::api::CompactRequest,
        ) -> Result<$crate::api::Header, ClientError> {
            let answer = self.request(&$crate::api::Request::Compact(compact))$($await)*?;
            match answer.body {
                $crate::api::Response::Compact => Ok(answer.header),
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Makes a lease for so many seconds, with an id of the server's choice. The answer says
        /// for how many seconds it was granted: the server has a least.
        pub $($async)? fn lease_grant(
            &self,
            ttl: i64,
        ) -> Result<Answer<$crate::api::LeaseGrantResponse>, ClientError> {
            let grant = $crate::api::LeaseGrantRequest { ttl, id: 0 };
            self.lease_grant_with(grant)$($await)*
        }

        /// Makes a lease, with options.
        pub $($async)? fn lease_grant_with(
            &self,
            grant: $crate::api::LeaseGrantRequest,
        ) -> Result<Answer<$crate::api::LeaseGrantResponse>, ClientError> {
            let answer = self.request(&$crate::api::Request::LeaseGrant(grant))$($await)*?;
            match answer.body {
                $crate::api::Response::LeaseGrant(body) => {
                    Ok(Answer { header: answer.header, body })
                }
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Ends a lease, and deletes every key that hangs on it.
        pub $($async)? fn lease_revoke(
            &self,
            id: i64,
        ) -> Result<$crate::api::Header, ClientError> {
            let revoke = $crate::api::LeaseRevokeRequest { id };
            let answer = self.request(&$crate::api::Request::LeaseRevoke(revoke))$($await)*?;
            match answer.body {
                $crate::api::Response::LeaseRevoke => Ok(answer.header),
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Renews a lease, once. If it is gone, the answer's `ttl` is 0.
        pub $($async)? fn lease_keep_alive(
            &self,
            id: i64,
        ) -> Result<Answer<$crate::api::LeaseKeepAliveResponse>, ClientError> {
            let renew = $crate::api::LeaseKeepAliveRequest { id };
            let answer = self.request(&$crate::api::Request::LeaseKeepAlive(renew))$($await)*?;
            match answer.body {
                $crate::api::Response::LeaseKeepAlive(body) => {
                    Ok(Answer { header: answer.header, body })
                }
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Asks how long a lease has left, and for its keys. If it is gone, the answer's `ttl`
        /// is -1.
        pub $($async)? fn lease_time_to_live(
            &self,
            ask: $crate::api::LeaseTimeToLiveRequest<'_>,
        ) -> Result<Answer<$crate::api::LeaseTimeToLiveResponse>, ClientError> {
            let answer = self.request(&$crate::api::Request::LeaseTimeToLive(ask))$($await)*?;
            match answer.body {
                $crate::api::Response::LeaseTimeToLive(body) => {
                    Ok(Answer { header: answer.header, body })
                }
                _ => Err(ClientError::WrongReply),
            }
        }

        /// The ids of all leases; the first expires first.
        pub $($async)? fn leases(&self) -> Result<Answer<Vec<i64>>, ClientError> {
            let answer = self.request(&$crate::api::Request::Leases)$($await)*?;
            match answer.body {
                $crate::api::Response::Leases(leases) => {
                    Ok(Answer { header: answer.header, body: leases.ids })
                }
                _ => Err(ClientError::WrongReply),
            }
        }

        /// The alarms that are raised.
        pub $($async)? fn alarms(
            &self,
        ) -> Result<Answer<Vec<$crate::api::Alarm>>, ClientError> {
            self.alarm($crate::api::AlarmRequest::default())$($await)*
        }

        /// Takes an alarm back; says whether it was raised. For `NoSpace` first delete, and
        /// compact: else the next write that adds raises it again.
        pub $($async)? fn disarm(
            &self,
            alarm: $crate::api::Alarm,
        ) -> Result<Answer<bool>, ClientError> {
            let request = $crate::api::AlarmRequest {
                action: $crate::api::AlarmAction::Deactivate,
                member_id: alarm.member_id,
                alarm: Some(alarm.kind),
            };
            let answer = self.alarm(request)$($await)*?;
            Ok(Answer { header: answer.header, body: !answer.body.is_empty() })
        }

        /// Asks about alarms, raises one, or takes one back.
        pub $($async)? fn alarm(
            &self,
            request: $crate::api::AlarmRequest,
        ) -> Result<Answer<Vec<$crate::api::Alarm>>, ClientError> {
            let answer = self.request(&$crate::api::Request::Alarm(request))$($await)*?;
            match answer.body {
                $crate::api::Response::Alarm(alarms) => {
                    Ok(Answer { header: answer.header, body: alarms.alarms })
                }
                _ => Err(ClientError::WrongReply),
            }
        }

        /// Asks whether the server is there.
        pub $($async)? fn ping(&self) -> Result<$crate::api::Header, ClientError> {
            let answer = self.send(Call::Ping)$($await)*?;
            match answer.body {
                Body::Ping => Ok(answer.header),
                Body::Response(_) | Body::Status(_) => Err(ClientError::WrongReply),
            }
        }

        /// Asks for the server's version and ids.
        pub $($async)? fn status(&self) -> Result<Answer<String>, ClientError> {
            let answer = self.send(Call::Status)$($await)*?;
            match answer.body {
                Body::Status(body) => Ok(Answer { header: answer.header, body }),
                Body::Response(_) | Body::Ping => Err(ClientError::WrongReply),
            }
        }
    };
}
pub(super) use calls;
