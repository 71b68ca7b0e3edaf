//! Messages: found by the id of their place, by key and by the id that their producer gave.
//! Invariant: what a broker found by hash is checked by text before it is returned.
//! Leaves reading of queues to `pull`.

use gantry_record::OffsetMessageId;
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::query::{QueryMessage, ViewMessage},
};

use super::{Admin, AdminError};
use crate::{message::ReceivedMessage, pull::read_records};

impl Admin {
    /// The message that an offset id names; its broker is asked at the address within the id.
    pub async fn message_by_id(&self, id: &str) -> Result<ReceivedMessage, AdminError> {
        let operation = "read the message";
        let place: OffsetMessageId =
            id.parse().map_err(|source| AdminError::MessageId { id: id.to_owned(), source })?;
        let address = place.host.to_string();
        let fields = ViewMessage { offset: place.position.0 as i64, topic: None };
        let command = Command::request(RequestCode::VIEW_MESSAGE_BY_ID).with_header(&fields);
        let answer = self.call(operation, &address, &command).await?;
        let failed = |source| AdminError::Request { operation, source };
        let mut found = read_records(&address, &answer.body, "").map_err(failed)?;
        let absent = || crate::connections::unreadable(&address, "a body", "it holds no message");
        found.pop().ok_or_else(|| failed(absent()))
    }

    /// Messages of a topic with `key` among their keys, stored between two times in milliseconds.
    pub async fn messages_by_key(
        &self,
        topic: &str,
        key: &str,
        messages_max: u32,
        (begin_ms, end_ms): (u64, u64),
    ) -> Result<Vec<ReceivedMessage>, AdminError> {
        let fields = QueryMessage {
            topic,
            key,
            max_messages: messages_max as i32,
            begin_timestamp: begin_ms as i64,
            end_timestamp: end_ms.min(i64::MAX as u64) as i64,
            unique_key: Some(false),
        };
        let mut found = self.query(topic, &fields).await?;
        found.retain(|message| message.keys().any(|own| own == key));
        found.truncate(messages_max as usize);
        Ok(found)
    }

    /// Messages of a topic that carry a producer's unique id: more than one after retries.
    pub async fn messages_by_unique_id(
        &self,
        topic: &str,
        id: &str,
    ) -> Result<Vec<ReceivedMessage>, AdminError> {
        let fields = QueryMessage {
            topic,
            key: id,
            max_messages: 32,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
            unique_key: Some(true),
        };
        let mut found = self.query(topic, &fields).await?;
        found.retain(|message| message.id() == id);
        Ok(found)
    }

    async fn query(
        &self,
        topic: &str,
        fields: &QueryMessage<'_>,
    ) -> Result<Vec<ReceivedMessage>, AdminError> {
        let operation = "look for messages";
        let command = Command::request(RequestCode::QUERY_MESSAGE).with_header(fields);
        let mut found = Vec::new();
        for (broker_name, address) in self.brokers_of(operation, topic).await? {
            match self.call(operation, &address, &command).await {
                Ok(answer) => {
                    let records = read_records(&address, &answer.body, &broker_name);
                    found.extend(
                        records.map_err(|source| AdminError::Request { operation, source })?,
                    );
                }
                Err(AdminError::Request { source, .. })
                    if source.refusal() == Some(ResponseCode::QUERY_NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|message| message.store_time_ms);
        Ok(found)
    }
}
