//! Offsets: bounds of queues, progress of groups, and moving it.
//! Invariant: an offset that is not there is `None`, never 0.
//! Leaves the choice of the offset to the caller.

use gantry_remoting::{
    Command, Header, RequestCode, ResponseCode,
    command::{
        offsets::{OffsetAnswer, QueryOffset, QueueBound, SearchOffset, UpdateOffset},
        progress::{ConsumeStats, ConsumeStatsRequest, ResetOffset},
    },
};

use super::{Admin, AdminError};
use crate::{connections::unreadable, message::MessageQueue};

/// Progress of a group in one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProgress {
    /// The queue.
    pub queue: MessageQueue,
    /// Next offset to be written.
    pub max_offset: u64,
    /// Next offset to be consumed.
    pub offset: u64,
    /// Store time of the last consumed message, in milliseconds since 1970; 0 without.
    pub last_store_time_ms: u64,
}

impl GroupProgress {
    /// Messages that wait.
    pub fn lag(&self) -> u64 {
        self.max_offset.saturating_sub(self.offset)
    }
}

impl Admin {
    /// Progress of a group in the queues of one topic, or of all topics on which it has offsets.
    pub async fn group_progress(
        &self,
        group: &str,
        topic: Option<&str>,
    ) -> Result<Vec<GroupProgress>, AdminError> {
        let fields =
            ConsumeStatsRequest { consumer_group: group, topic, ..ConsumeStatsRequest::default() };
        let command = Command::request(RequestCode::GET_CONSUME_STATS).with_header(&fields);
        let mut progress = Vec::new();
        for primary in self.primaries(None).await? {
            let stats: ConsumeStats =
                self.get("read the progress", &primary.address, &command).await?;
            progress.extend(stats.offset_table.0.into_iter().map(|(queue, at)| GroupProgress {
                queue: queue.into(),
                max_offset: at.broker_offset.max(0) as u64,
                offset: at.consumer_offset.max(0) as u64,
                last_store_time_ms: at.last_timestamp.max(0) as u64,
            }));
        }
        progress.sort_unstable_by(|a, b| a.queue.cmp(&b.queue));
        Ok(progress)
    }

    /// The committed offset of a group in a queue.
    pub async fn offset(
        &self,
        group: &str,
        queue: &MessageQueue,
    ) -> Result<Option<u64>, AdminError> {
        let fields = QueryOffset {
            consumer_group: group,
            topic: &queue.topic,
            queue_id: queue.queue_id as i32,
            set_zero_if_not_found: Some(false),
        };
        let found = self.queue_offset(RequestCode::QUERY_CONSUMER_OFFSET, queue, &fields).await;
        match found {
            Err(AdminError::Request { source, .. })
                if source.refusal() == Some(ResponseCode::QUERY_NOT_FOUND) =>
            {
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// Commits an offset for a group in a queue.
    pub async fn set_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), AdminError> {
        let operation = "set the offset";
        let fields = UpdateOffset {
            consumer_group: group,
            topic: &queue.topic,
            queue_id: queue.queue_id as i32,
            commit_offset: offset as i64,
        };
        let command = Command::request(RequestCode::UPDATE_CONSUMER_OFFSET).with_header(&fields);
        let address = self.primary_of(operation, queue).await?;
        self.call(operation, &address, &command).await.map(|_| ())
    }

    /// Moves a group to an offset in a queue, online members included. Brokers that can do so only
    /// with members online get a plain commit when there are none.
    pub async fn reset_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), AdminError> {
        let operation = "reset the offset";
        let fields = ResetOffset {
            topic: &queue.topic,
            group,
            queue_id: Some(queue.queue_id as i32),
            offset: Some(offset as i64),
            timestamp: 0,
            is_force: true,
        };
        let command =
            Command::request(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET).with_header(&fields);
        let address = self.primary_of(operation, queue).await?;
        match self.call(operation, &address, &command).await {
            Err(AdminError::Request { source, .. })
                if source.refusal() == Some(ResponseCode::CONSUMER_NOT_ONLINE) =>
            {
                self.set_offset(group, queue, offset).await
            }
            answer => answer.map(|_| ()),
        }
    }

    /// Smallest offset of a queue.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<u64, AdminError> {
        self.queue_offset(RequestCode::GET_MIN_OFFSET, queue, &bound(queue)).await
    }

    /// Next offset to be written to a queue.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<u64, AdminError> {
        self.queue_offset(RequestCode::GET_MAX_OFFSET, queue, &bound(queue)).await
    }

    /// Offset of the first message stored at or after a time, in milliseconds since 1970.
    pub async fn offset_at(&self, queue: &MessageQueue, time_ms: u64) -> Result<u64, AdminError> {
        let fields = SearchOffset {
            topic: &queue.topic,
            queue_id: queue.queue_id as i32,
            timestamp: time_ms as i64,
            boundary_type: None,
        };
        self.queue_offset(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, queue, &fields).await
    }

    async fn queue_offset<'h>(
        &self,
        code: RequestCode,
        queue: &MessageQueue,
        fields: &impl Header<'h>,
    ) -> Result<u64, AdminError> {
        let operation = "ask for an offset";
        let address = self.primary_of(operation, queue).await?;
        let command = Command::request(code).with_header(fields);
        let answer = self.call(operation, &address, &command).await?;
        let fields: OffsetAnswer = answer.fields().map_err(|error| AdminError::Request {
            operation,
            source: unreadable(&address, "an offset", error),
        })?;
        Ok(fields.offset.max(0) as u64)
    }
}

fn bound(queue: &MessageQueue) -> QueueBound<'_> {
    QueueBound { topic: &queue.topic, queue_id: queue.queue_id as i32, committed: None }
}
