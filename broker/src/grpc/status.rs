//! Statuses: the one place where errors of the services become codes of the gRPC protocol.
//! Invariant: every refusal has a code that the SDKs act on as with the reference, and a text for people.
//! Leaves transport errors to tonic.

use gantry_proto::v2::{Code, Status};
use gantry_store::AppendError;

use crate::{
    services::{commit::CommitError, send::SendError, timers::DueError, topics::TopicError},
    words::{NOT_NOW, chain},
};

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What the client acts on.
    pub(super) code: Code,
    /// What a person reads.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Success.
pub(super) fn ok() -> Status {
    Status { code: Code::Ok.into(), message: "OK".into() }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code.into(), message: refusal.message }
    }
}

impl From<&AppendError> for Refusal {
    fn from(error: &AppendError) -> Self {
        let code = match error {
            // No code is for a full log; this one alone makes the SDKs wait before they try again.
            AppendError::Busy { .. } | AppendError::Full(_) => Code::TooManyRequests,
            AppendError::TopicGone { .. } => Code::TopicNotFound,
            AppendError::RecordTooLarge(_) | AppendError::Encode(_) => Code::MessageBodyTooLarge,
            AppendError::Stopped(_)
            | AppendError::PendingFull { .. }
            | AppendError::AlreadyEnded { .. }
            | AppendError::Views(_) => Code::InternalServerError,
        };
        let message = match error {
            // Which limit it is, and what is used of it, in the words of the remoting port.
            AppendError::Full(_) => format!("{NOT_NOW}: {}", chain(error)),
            _ => error.to_string(),
        };
        Self::new(code, message)
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        Self::new(Code::InternalServerError, error.to_string())
    }
}

impl From<&TopicError> for Refusal {
    fn from(error: &TopicError) -> Self {
        let code = match error {
            TopicError::Name(_) | TopicError::System { .. } | TopicError::Config(_) => {
                Code::IllegalTopic
            }
            TopicError::Unknown { .. } => Code::TopicNotFound,
            TopicError::Append { source, .. } => return source.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<&SendError> for Refusal {
    fn from(error: &SendError) -> Self {
        let code = match error {
            SendError::Append(error) => return error.into(),
            SendError::Busy(_) => Code::TooManyRequests,
            SendError::Topic(error) => return error.into(),
            SendError::Reserved { .. } | SendError::Name(_) => Code::IllegalTopic,
            SendError::Group(_) => Code::ConsumerGroupNotFound,
            SendError::BodyTooLarge { .. } | SendError::Encode(_) => Code::MessageBodyTooLarge,
            SendError::PropertiesTooLarge { .. } => Code::MessagePropertiesTooLarge,
            SendError::Due(DueError::TooFar { .. } | DueError::Number { .. }) => {
                Code::IllegalDeliveryTime
            }
            SendError::Due(DueError::Cancel) => Code::IllegalMessagePropertyKey,
            SendError::Transaction | SendError::InnerBatch => Code::NotImplemented,
            SendError::Batch(_)
            | SendError::BatchText { .. }
            | SendError::BatchKind { .. }
            | SendError::Queue { .. } => Code::MessageCorrupted,
            SendError::Unavailable { .. } => Code::InternalServerError,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use gantry_store::{Shortage, log};

    use super::*;

    #[test]
    fn full_log_says_which_limit_it_met_and_what_is_used_of_it() {
        let shortage = Shortage::Limit { log_bytes: 4096, bytes_max: 5000 };
        let refusal = Refusal::from(&AppendError::Full(log::AppendError::Short(shortage)));
        assert_eq!(refusal.code, Code::TooManyRequests);
        let words = &refusal.message;
        assert!(words.contains("4096 bytes") && words.contains("its limit of 5000"), "{words}");
    }
}
