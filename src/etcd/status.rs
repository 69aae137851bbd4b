//! How a call failed, as gRPC says it: a code and a text.
#![forbid(unsafe_code)]

use crate::api::Error;
use std::borrow::Cow;

/// gRPC's codes, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are gRPC's")]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// Every code, by its number.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
}

/// A refusal. Clients match on the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What kind of refusal.
    pub code: Code,
    /// For people, and for clients of etcd.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status {
            code,
            message: message.into(),
        }
    }

    /// The text as `grpc-message` carries it: what is not printable ASCII, and `%`, as `%XX`.
    pub fn percent_encoded(&self) -> String {
        let mut text = String::with_capacity(self.message.len());
        for byte in self.message.bytes() {
            match byte {
                b'%' => text.push_str("%25"),
                b' '..=b'~' => text.push(char::from(byte)),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
        text
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        Status::new(code_of(error), error.message())
    }
}

/// The code that etcd answers with. `TooManyRequests` is "unknown" there: its server hands out
/// the error that is meant for clients, which has no code.
pub fn code_of(error: Error) -> Code {
    match error {
        Error::EmptyKey
        | Error::KeyNotFound
        | Error::ValueProvided
        | Error::LeaseProvided
        | Error::TooManyOps
        | Error::DuplicateKey
        | Error::InvalidSortOption
        | Error::RequestTooLarge => Code::InvalidArgument,
        Error::Compacted | Error::FutureRevision | Error::LeaseTtlTooLarge => Code::OutOfRange,
        Error::NoSpace | Error::ResponseTooLarge => Code::ResourceExhausted,
        Error::TooManyRequests => Code::Unknown,
        Error::LeaseNotFound => Code::NotFound,
        Error::LeaseExists => Code::FailedPrecondition,
        Error::Corrupt => Code::DataLoss,
        Error::NoLeader | Error::LeaderChanged | Error::Stopped | Error::Timeout => {
            Code::Unavailable
        }
        Error::Unimplemented => Code::Unimplemented,
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Status};
    use crate::api::Error;

    #[test]
    fn codes_are_those_of_etcd() {
        let of = |error: Error| Status::from(error);
        assert_eq!(
            of(Error::KeyNotFound),
            Status::new(Code::InvalidArgument, "etcdserver: key not found")
        );
        assert_eq!(of(Error::TooManyRequests).code as u8, 2);
        assert_eq!(of(Error::Compacted).code as u8, 11);
        assert_eq!(of(Error::NoSpace).code as u8, 8);
    }

    #[test]
    fn texts_are_escaped() {
        let status = Status::new(Code::Internal, "100 %\n\u{e4}");
        assert_eq!(status.percent_encoded(), "100 %25%0A%C3%A4");
    }
}
