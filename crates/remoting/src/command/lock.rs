//! Queue locks of ordered consumers: request codes 41 and 42.

use crate::json::{MessageQueue, body};

body! {
    /// Body of both requests.
    #[derive(Eq)]
    pub struct LockRequest: "lock request" {
        /// Id of the client.
        pub client_id: String,
        /// Group of the client.
        pub consumer_group: String,
        /// Queues to lock or unlock.
        pub mq_set: Vec<MessageQueue>,
        /// Whether the lock is this broker's matter alone; absent from older clients.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub only_this_broker: Option<bool>,
    }
}

body! {
    /// Body of the answer to a lock.
    #[derive(Eq)]
    pub struct LockAnswer: "lock answer" {
        /// Queues that the client holds.
        #[serde(rename = "lockOKMQSet")]
        pub locked: Vec<MessageQueue>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::body_matches;

    #[test]
    fn lock_bodies_match_the_reference() {
        let request: LockRequest = body_matches(
            r#"{"clientId":"cid","consumerGroup":"cg","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"T1"}],"onlyThisBroker":false}"#,
        );
        assert_eq!(request.mq_set[0].topic, "T1");
        let _: LockAnswer =
            body_matches(r#"{"lockOKMQSet":[{"brokerName":"broker-a","queueId":0,"topic":"T1"}]}"#);
        let _: LockRequest = body_matches(r#"{"clientId":"c","consumerGroup":"g","mqSet":[]}"#);
    }
}
