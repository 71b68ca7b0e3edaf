//! Client of RocketMQ's remoting protocol: producer, consumer, pull reader and administration.
//! Invariant: every wait has an end, every queue and retry a bound, and what fails says which server
//! failed and why.
//! Knows no store and no Kubernetes; needs a tokio runtime.

mod admin;
mod client;
mod connections;
mod consumer;
mod error;
mod message;
mod producer;
mod pull;
mod rebalance;
mod route;

pub use admin::{
    Admin, AdminError, BrokerAdmin, BrokerProgress, GroupProgress, Members, Primary, QueueBounds,
    QueueLag,
};
pub use client::{Client, ClientError, ClientSettings};
pub use consumer::{
    Consumed, Consumer, ConsumerError, ConsumerSettings, MessageModel, StartFrom, Subscription,
};
pub use error::{Cause, RequestError, RouteError};
pub use gantry_remoting::ResponseCode;
pub use message::{Compression, Message, MessageQueue, ReceivedMessage};
pub use producer::{Producer, ProducerSettings, SendError, SendReceipt, SendStatus};
pub use pull::{PullBatch, PullError, PullReader, PullStatus};
pub use rebalance::share;
pub use route::{BrokerGroup, Route};
