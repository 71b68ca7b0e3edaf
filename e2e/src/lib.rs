//! What the end-to-end tests share: a stage for each test, waits, objects, pods, and a report when a test fails.
//! Invariant: a test leaves nothing behind: all it makes lives in a namespace of its own, which goes with it.
//! Leaves the cluster, the images and the operator to `scripts/e2e`, which starts the tests.

pub mod metrics;
pub mod objects;
pub mod pods;
mod report;
pub mod settings;
mod shop;
pub mod stage;
pub mod wait;

pub use objects::Ready;
pub use pods::{Program, after};
pub use shop::{cluster, topic};
pub use stage::{Stage, play, together};
pub use wait::until;
