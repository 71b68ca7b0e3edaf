//! Errors that all operations share: a request that brought no good answer, a topic without route.
//! Invariant: an error names the server it is about; a refusal carries the server's code and remark.
//! Leaves the error of each operation to the file of that operation.

use gantry_remoting::{
    ResponseCode,
    client::{CallError, ConnectError},
};

/// Why one request to one server failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no connection to the server.
    #[error("no server answers at {address}")]
    Connect {
        /// Where the server should be.
        address: String,
        /// The cause.
        source: ConnectError,
    },
    /// The connection broke, or no answer came in time. The request may have been carried out.
    #[error("no answer from {address}")]
    Call {
        /// The server.
        address: String,
        /// The cause.
        source: CallError,
    },
    /// The server answered that it will not.
    #[error("{address} answered {code}: {remark}")]
    Refused {
        /// The server.
        address: String,
        /// Its answer code.
        code: ResponseCode,
        /// Its words.
        remark: String,
    },
    /// The server's answer cannot be read.
    #[error("the answer of {address} has {what} that cannot be read: {detail}")]
    Answer {
        /// The server.
        address: String,
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl RequestError {
    /// The code with which the server refused.
    pub fn refusal(&self) -> Option<ResponseCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the server could not be reached, or did not answer.
    pub fn is_transport(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Call { .. })
    }
}

/// Why there is no route to a topic.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No broker has the topic.
    #[error("topic {topic} does not exist")]
    TopicNotFound {
        /// The topic.
        topic: String,
    },
    /// Brokers have the topic, but none offers what is needed.
    #[error("no broker {offers} topic {topic}")]
    NoQueue {
        /// The topic.
        topic: String,
        /// `accepts messages for` or `lets consumers read`.
        offers: &'static str,
    },
    /// The broker group is not, or no longer, known to the name servers.
    #[error("broker {broker_name} is not known to the name servers")]
    BrokerNotFound {
        /// Name of the broker group.
        broker_name: String,
    },
    /// No name server could be asked.
    #[error("ask the name servers")]
    NameServer {
        /// The last failure.
        #[from]
        source: RequestError,
    },
}

/// What kind of cause lies behind an error, for callers that treat all operations alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The topic, group, broker or message does not exist.
    NotFound,
    /// No server could be reached.
    Unreachable,
    /// A server refused.
    Refused,
}

impl Cause {
    /// The cause of `error`: of its own kind, or found along its sources.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let own = error
                .downcast_ref::<RequestError>()
                .map(Self::of_request)
                .or_else(|| error.downcast_ref::<RouteError>().and_then(Self::of_route));
            if own.is_some() {
                return own;
            }
            next = error.source();
        }
        None
    }

    fn of_request(error: &RequestError) -> Self {
        const ABSENT: [ResponseCode; 4] = [
            ResponseCode::TOPIC_NOT_EXIST,
            ResponseCode::QUERY_NOT_FOUND,
            ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            ResponseCode::CONSUMER_NOT_ONLINE,
        ];
        match error {
            RequestError::Connect { .. } | RequestError::Call { .. } => Self::Unreachable,
            RequestError::Refused { code, .. } if ABSENT.contains(code) => Self::NotFound,
            RequestError::Refused { .. } | RequestError::Answer { .. } => Self::Refused,
        }
    }

    fn of_route(error: &RouteError) -> Option<Self> {
        match error {
            RouteError::NameServer { .. } => None,
            RouteError::NoQueue { .. } => Some(Self::Refused),
            RouteError::TopicNotFound { .. } | RouteError::BrokerNotFound { .. } => {
                Some(Self::NotFound)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ResponseCode) -> RequestError {
        RequestError::Refused { address: "b:1".into(), code, remark: "no".into() }
    }

    #[test]
    fn cause_is_found_behind_the_error_of_an_operation() {
        let error = RouteError::from(refused(ResponseCode::TOPIC_NOT_EXIST));
        assert_eq!(Cause::of(&error), Some(Cause::NotFound));
        let error = RouteError::from(refused(ResponseCode::SYSTEM_BUSY));
        assert_eq!(Cause::of(&error), Some(Cause::Refused));
        assert_eq!(Cause::of(&std::fmt::Error), None);
    }

    #[test]
    fn refusal_says_server_code_and_remark() {
        let text = refused(ResponseCode::NO_PERMISSION).to_string();
        assert_eq!(text, "b:1 answered NO_PERMISSION(16): no");
    }
}
