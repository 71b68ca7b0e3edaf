//! The operator: reconciles `BrokerCluster`, `Topic` and `ConsumerGroup` into what runs.
//! Invariant: reconcile is fetch, validate, render, apply, report; only fetch, apply and report do I/O; at rest nothing
//! is written but the Lease.
//! Leaves messages to the brokers: without an operator a cluster goes on serving.
//!
//! What a kind's folder builds on:
//! - [`Context`]: `caches` (read these), `client`/`api` (write through these), `events`, `retries`, `settings`.
//! - [`cache::Cache::changes`]: a stream for `Controller::for_shared_stream`, `owns_shared_stream` and
//!   `watches_shared_stream`. Controllers are polled when every cache is filled.
//! - [`conditions::Reason`]: the one table of reasons; [`conditions::conditions`] makes the list of a status.
//! - [`status::write`]: writes a status if it differs. [`apply::Applier::apply`]: the same for whole objects.
//! - [`controllers::drive`] and [`controllers::config`] for the controller itself, [`retries::Retries`] for its error
//!   policy.

pub mod apply;
pub mod broker_cluster;
pub mod brokers;
pub mod cache;
mod causes;
pub mod conditions;
pub mod consumer_group;
mod context;
pub mod controllers;
mod declared;
mod difference;
pub mod events;
pub mod labels;
pub mod leader;
pub mod quantity;
pub mod requests;
pub mod retries;
mod settings;
pub mod status;
pub mod topic;

pub use causes::with_causes;
pub use context::{Caches, Context};
pub use settings::{Labels, LabelsError, Settings};
