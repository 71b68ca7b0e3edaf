//! The controller of one kind.

#[cfg(test)]
mod fixture;
mod names;
mod render;
mod validate;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::Context;

/// Runs the controller until `stop` is cancelled.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    drop(ctx);
    stop.cancelled().await;
}
