//! Why a request is not carried out, as a code and a remark: the one place where errors become codes.
//! Invariant: every error of a service has a code that clients act on as the reference's.
//! Leaves the writing of answers to the families.

use std::error::Error;

use gantry_remoting::{HeaderError, ResponseCode, json::BodyError};
use gantry_store::{AppendError, ReadError};

use crate::{
    services::{
        commit::CommitError, groups::GroupError, offsets::CommitOffsetError, pull::PullError,
        retry::SendBackError, send::SendError, topics::TopicError,
    },
    words::{NOT_NOW, chain},
};

/// Longest remark: a topic's longest name and the reason around it.
const REMARK_BYTES_MAX: usize = 512;

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The code.
    pub(crate) code: ResponseCode,
    /// What a person reads.
    pub(crate) remark: String,
    /// Which permission is missing, for pulls.
    pub(crate) forbidden: Option<i32>,
}

impl Refusal {
    /// A refusal with this code and remark, which is cut where nobody reads on: it may repeat what the peer sent.
    pub(crate) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        let mut remark = remark.into();
        remark.truncate(remark.floor_char_boundary(REMARK_BYTES_MAX));
        Self { code, remark, forbidden: None }
    }

    /// A refusal whose remark is what an error and its causes say.
    pub(crate) fn of(code: ResponseCode, error: &dyn Error) -> Self {
        Self::new(code, chain(error))
    }

    /// Word for a producer to pause, with the tag of the reference for a queue that is full.
    pub(crate) fn busy(reason: &dyn Error) -> Self {
        let words =
            format!("[OVERLOAD]system busy, start flow control for a while: {}", chain(reason));
        Self::new(ResponseCode::SYSTEM_BUSY, words)
    }

    fn forbidden(self, kind: i32) -> Self {
        Self { forbidden: Some(kind), ..self }
    }
}

fn of_append(error: &AppendError) -> ResponseCode {
    match error {
        AppendError::Busy { .. } => ResponseCode::SYSTEM_BUSY,
        AppendError::Full(_) | AppendError::Stopped(_) => ResponseCode::SERVICE_NOT_AVAILABLE,
        AppendError::TopicGone { .. } => ResponseCode::TOPIC_NOT_EXIST,
        AppendError::RecordTooLarge(_) | AppendError::Encode(_) => ResponseCode::MESSAGE_ILLEGAL,
        // As the reference when its timers are under flow control.
        AppendError::PendingFull { .. }
        | AppendError::AlreadyEnded { .. }
        | AppendError::Views(_) => ResponseCode::SYSTEM_ERROR,
    }
}

impl From<&AppendError> for Refusal {
    fn from(error: &AppendError) -> Self {
        let code = of_append(error);
        let refusal = Self::of(code, error);
        match code {
            ResponseCode::SYSTEM_BUSY => Self::busy(error),
            ResponseCode::SERVICE_NOT_AVAILABLE => {
                Self { remark: format!("{NOT_NOW}: {}", refusal.remark), ..refusal }
            }
            _ => refusal,
        }
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self::of(ResponseCode::INVALID_PARAMETER, &error)
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::of(ResponseCode::SYSTEM_ERROR, &error)
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        Self::of(ResponseCode::SERVICE_NOT_AVAILABLE, &error)
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::of(ResponseCode::SYSTEM_ERROR, &error)
    }
}

impl From<TopicError> for Refusal {
    fn from(error: TopicError) -> Self {
        match &error {
            TopicError::Name(_) | TopicError::System { .. } | TopicError::Config(_) => {
                Self::of(ResponseCode::INVALID_PARAMETER, &error)
            }
            TopicError::Unknown { .. } => Self::of(ResponseCode::TOPIC_NOT_EXIST, &error),
            TopicError::Append { source, .. } => source.into(),
        }
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        match &error {
            GroupError::Name(_) | GroupError::System { .. } => {
                Self::of(ResponseCode::INVALID_PARAMETER, &error)
            }
            GroupError::Unknown { .. } => {
                Self::of(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, &error)
            }
            GroupError::Append { source, .. } => source.into(),
        }
    }
}

impl From<SendError> for Refusal {
    fn from(error: SendError) -> Self {
        use ResponseCode as Code;
        match error {
            SendError::Topic(error) => error.into(),
            SendError::Group(error) => error.into(),
            SendError::Append(error) => (&error).into(),
            SendError::Busy(error) => Self::busy(&error),
            SendError::Unavailable { .. } => Self::of(Code::SERVICE_NOT_AVAILABLE, &error),
            SendError::Reserved { .. } | SendError::Transaction => {
                Self::of(Code::NO_PERMISSION, &error)
            }
            SendError::Queue { .. } | SendError::Name(_) => {
                Self::of(Code::INVALID_PARAMETER, &error)
            }
            SendError::BodyTooLarge { .. }
            | SendError::PropertiesTooLarge { .. }
            | SendError::Batch(_)
            | SendError::BatchText { .. }
            | SendError::BatchKind { .. }
            | SendError::InnerBatch
            | SendError::Due(_)
            | SendError::Encode(_) => Self::of(Code::MESSAGE_ILLEGAL, &error),
        }
    }
}

impl From<SendBackError> for Refusal {
    fn from(error: SendBackError) -> Self {
        use ResponseCode as Code;
        match error {
            SendBackError::Group(error) => error.into(),
            SendBackError::Topic(error) => error.into(),
            // The client then sends the message to the retry topic itself.
            SendBackError::Append(ref source) => Self::of(Code::SYSTEM_ERROR, source),
            SendBackError::GroupUnknown { .. } => {
                Self::of(Code::SUBSCRIPTION_GROUP_NOT_EXIST, &error)
            }
            SendBackError::Forbidden { .. } => Self::of(Code::NO_PERMISSION, &error),
            SendBackError::NotFound { .. }
            | SendBackError::Read { .. }
            | SendBackError::Parse { .. }
            | SendBackError::Encode(_) => Self::of(Code::SYSTEM_ERROR, &error),
        }
    }
}

impl From<PullError> for Refusal {
    fn from(error: PullError) -> Self {
        use ResponseCode as Code;
        match error {
            PullError::Group(error) => error.into(),
            PullError::Topic(error) => error.into(),
            PullError::LitePullDisabled => Self::of(Code::NO_PERMISSION, &error).forbidden(1),
            PullError::GroupDisabled { .. } => Self::of(Code::NO_PERMISSION, &error).forbidden(2),
            PullError::TopicUnreadable { .. } => Self::of(Code::NO_PERMISSION, &error).forbidden(3),
            PullError::BroadcastDisabled { .. } => {
                Self::of(Code::NO_PERMISSION, &error).forbidden(4)
            }
            PullError::Queue { .. } => Self::of(Code::INVALID_PARAMETER, &error),
            PullError::Filter(_) => Self::of(Code::SUBSCRIPTION_PARSE_FAILED, &error),
            PullError::NotOnline { .. } | PullError::NotSubscribed { .. } => {
                Self::of(Code::SUBSCRIPTION_NOT_EXIST, &error)
            }
            PullError::NotLatest { .. } => Self::of(Code::SUBSCRIPTION_NOT_LATEST, &error),
            PullError::Language { .. } => Self::of(Code::SYSTEM_ERROR, &error),
        }
    }
}

impl From<CommitOffsetError> for Refusal {
    fn from(error: CommitOffsetError) -> Self {
        match error {
            CommitOffsetError::Topic(error) => error.into(),
            CommitOffsetError::GroupUnknown { .. } => {
                Self::of(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, &error)
            }
            CommitOffsetError::Name(_) | CommitOffsetError::Range { .. } => {
                Self::of(ResponseCode::INVALID_PARAMETER, &error)
            }
            CommitOffsetError::Append { source, .. } => (&source).into(),
        }
    }
}
