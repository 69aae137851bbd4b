//! What can become of a request that did not succeed.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::Arc;

use super::raw::Fault;
use crate::api;
use crate::wire::{HelloStatus, Malformed, Unencodable};

/// Why a request has no answer. Cheap to clone: one broken connection fails many requests.
#[derive(Debug, Clone)]
pub enum ClientError {
    /// The server refused the request; it did not take place.
    Refused(api::Error),
    /// The server refused the request for a reason that this version does not know.
    RefusedOther {
        /// The number of the reason.
        code: u16,
        /// The reason.
        message: String,
    },
    /// A write left and no answer came: it may have taken place, or may still. It is never
    /// repeated here; only the application knows whether that is safe.
    OutcomeUnknown {
        /// What came in place of the answer.
        cause: Box<ClientError>,
    },
    /// The request never left: no connection could be had in time.
    NotSent {
        /// What kept it.
        cause: Box<ClientError>,
    },
    /// A read was not answered in time.
    Deadline,
    /// The request cannot be put into a frame.
    Unencodable(Unencodable),
    /// The server sent bytes that break the protocol.
    Malformed(Malformed),
    /// The server sent an answer of another kind than was asked for.
    WrongReply,
    /// The server does not serve this client.
    NotServed(HelloStatus),
    /// The server closed the connection and said why.
    Closed {
        /// The number of the reason.
        code: u16,
        /// The reason.
        message: String,
    },
    /// The connection failed.
    Io(Arc<io::Error>),
}

impl ClientError {
    /// The connection broke, so the same request may fare better on another.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            ClientError::Io(_) | ClientError::Closed { .. } | ClientError::Malformed(_) => true,
            ClientError::NotServed(status) => {
                matches!(status, HelloStatus::Busy | HelloStatus::Stopping)
            }
            ClientError::Refused(_)
            | ClientError::RefusedOther { .. }
            | ClientError::OutcomeUnknown { .. }
            | ClientError::NotSent { .. }
            | ClientError::Deadline
            | ClientError::Unencodable(_)
            | ClientError::WrongReply => false,
        }
    }

    /// Another connection would fare no better: who does not speak the protocol will not learn it
    /// by the deadline.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, ClientError::Malformed(_)) || !self.is_lost_connection()
    }

    /// The verdict on a request whose connection broke with this error.
    pub(super) fn for_request(&self, write: bool, left: bool) -> ClientError {
        match (write, left) {
            (true, true) => self.clone().unknown(),
            (_, false) => self.clone().not_sent(),
            (false, true) => self.clone(),
        }
    }

    pub(super) fn unknown(self) -> ClientError {
        ClientError::OutcomeUnknown {
            cause: Box::new(self),
        }
    }

    pub(super) fn not_sent(self) -> ClientError {
        ClientError::NotSent {
            cause: Box::new(self),
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError::Io(Arc::new(error))
    }
}

impl From<Fault> for ClientError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(malformed) => ClientError::Malformed(malformed),
            Fault::NotServed(status) => ClientError::NotServed(status),
            Fault::Closed { code, message } => ClientError::Closed { code, message },
        }
    }
}

impl From<Unencodable> for ClientError {
    fn from(unencodable: Unencodable) -> Self {
        ClientError::Unencodable(unencodable)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Refused(error) => write!(f, "{error}"),
            ClientError::RefusedOther { code, message } => write!(f, "{message} ({code:#06x})"),
            ClientError::OutcomeUnknown { cause } => {
                write!(f, "it is unknown whether the write took place: {cause}")
            }
            ClientError::NotSent { cause } => write!(f, "the request was not sent: {cause}"),
            ClientError::Deadline => write!(f, "no answer in time"),
            ClientError::Unencodable(why) => write!(f, "{why}"),
            ClientError::Malformed(why) => write!(f, "the server breaks the protocol: {why}"),
            ClientError::WrongReply => write!(f, "the server's answer is of the wrong kind"),
            ClientError::NotServed(status) => write!(f, "the server refuses to serve: {status:?}"),
            ClientError::Closed { code, message } => {
                write!(
                    f,
                    "the server closed the connection: {message} ({code:#06x})"
                )
            }
            ClientError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ClientError {}
