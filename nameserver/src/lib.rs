//! Topic route registry: brokers register, clients ask; instances share nothing.
//! Invariant: what it answers comes from registrations alone, and goes with the broker that made them.
//! Leaves messages, offsets and everything durable to brokers, the key-value configuration excepted.

pub mod bodies;
mod call;
pub mod kv;
pub mod register;
pub mod routes;
mod server;
mod service;

pub use server::{NameServer, RunningNameServer, StartError};
pub use service::{Clock, NameService};
