//! Who calls: what every request says of its client beside the message.
//! Invariant: a call without a client id is refused, whatever it asks.
//! Leaves credentials alone: this version has no access control.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gantry_proto::v2::Code;
use tonic::Request;

use super::status::Refusal;

/// Metadata key of the client's id.
const CLIENT_ID: &str = "x-mq-client-id";

/// The client behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// Where it is.
    pub(super) address: SocketAddr,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Refusal> {
        let id = request.metadata().get(CLIENT_ID).and_then(|id| id.to_str().ok());
        if id.is_none_or(|id| id.trim().is_empty()) {
            return Err(Refusal::new(
                Code::ClientIdRequired,
                "the request has no x-mq-client-id, or a blank one",
            ));
        }
        let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Ok(Self { address: request.remote_addr().unwrap_or(unknown) })
    }
}
