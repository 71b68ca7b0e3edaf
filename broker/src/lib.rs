//! The broker: stores messages, delivers them, and tells the name servers where they are.
//! Invariant: a message is answered when it is as safe as the settings promise, and never before.
//! Services do the work, front doors translate, `broker` wires both and owns the threads.

mod broker;
mod grpc;
mod memory;
mod metrics;
mod registration;
mod remoting;
mod resolve;
mod scrub;
pub mod services;
mod upkeep;
mod words;

pub use broker::{Addresses, Broker, OpenStore, RunningBroker, StartError, StopError};
pub use resolve::{Resolve, SystemResolver};
