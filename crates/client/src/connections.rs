//! Connections to servers: one for each address, made when it is needed and again when it broke.
//! Invariant: at most one connection to an address; callers that wait for it share the attempt.
//! Leaves the choice of the address to `name_servers`, `route` and the operations.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use gantry_remoting::{
    Command, ResponseCode,
    client::{Channel, ChannelHandler, ChannelSettings},
};
use parking_lot::Mutex;

use crate::error::RequestError;

type Slot = Arc<tokio::sync::Mutex<Option<Channel>>>;

/// All connections of one client.
pub(crate) struct Connections {
    settings: ChannelSettings,
    handler: Arc<dyn ChannelHandler>,
    /// Bounded by the servers that routes and the caller name.
    slots: Mutex<HashMap<String, Slot>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("servers", &self.slots.lock().len())
            .finish_non_exhaustive()
    }
}

impl Connections {
    pub(crate) fn new(settings: ChannelSettings, handler: Arc<dyn ChannelHandler>) -> Self {
        Self { settings, handler, slots: Mutex::default() }
    }

    /// The connection to `address`.
    pub(crate) async fn channel(&self, address: &str) -> Result<Channel, RequestError> {
        let slot = Arc::clone(self.slots.lock().entry(address.to_owned()).or_default());
        let mut slot = slot.lock().await;
        if let Some(channel) = slot.as_ref().filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        let connected = Channel::connect(address, &self.settings, Arc::clone(&self.handler)).await;
        let channel = connected
            .map_err(|source| RequestError::Connect { address: address.to_owned(), source })?;
        *slot = Some(channel.clone());
        Ok(channel)
    }

    /// Sends `command` and returns the answer, whatever its code.
    pub(crate) async fn ask(
        &self,
        address: &str,
        command: &Command,
        within: Duration,
    ) -> Result<Command, RequestError> {
        let channel = self.channel(address).await?;
        channel
            .call(command, within)
            .await
            .map_err(|source| RequestError::Call { address: address.to_owned(), source })
    }

    /// Sends `command` and returns the answer if it says success.
    pub(crate) async fn call(
        &self,
        address: &str,
        command: &Command,
        within: Duration,
    ) -> Result<Command, RequestError> {
        let answer = self.ask(address, command, within).await?;
        if answer.response_code() == ResponseCode::SUCCESS {
            Ok(answer)
        } else {
            Err(refused(address, &answer))
        }
    }

    /// Sends a request that is never answered.
    pub(crate) async fn one_way(
        &self,
        address: &str,
        command: &Command,
    ) -> Result<(), RequestError> {
        let channel = self.channel(address).await?;
        channel
            .one_way(command)
            .map_err(|source| RequestError::Call { address: address.to_owned(), source })
    }

    /// Closes all connections; later requests make new ones.
    pub(crate) async fn close(&self) {
        let slots: Vec<_> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            if let Some(channel) = slot.lock().await.take() {
                channel.close();
            }
        }
    }
}

/// The error that an answer other than success is.
pub(crate) fn refused(address: &str, answer: &Command) -> RequestError {
    RequestError::Refused {
        address: address.to_owned(),
        code: answer.response_code(),
        remark: answer.remark.clone().unwrap_or_else(|| "no reason given".into()),
    }
}

/// The error that an answer is whose parts cannot be read.
pub(crate) fn unreadable(
    address: &str,
    what: &'static str,
    detail: impl fmt::Display,
) -> RequestError {
    RequestError::Answer { address: address.to_owned(), what, detail: detail.to_string() }
}
