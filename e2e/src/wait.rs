//! Waiting for a condition, with a deadline that says what was seen last.
//! Invariant: a wait ends as soon as its condition holds; time alone never lets a test pass.

use std::{future::Future, time::Duration};

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

/// Pause between two looks; each is one request to the API server.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Longest wait for something that takes the cluster seconds: two cores may run four tests at once.
pub const SOON: Duration = Duration::from_mins(2);

/// Longest wait for something that takes minutes, such as a roll of several pods.
pub const LATER: Duration = Duration::from_mins(5);

/// Looks again and again until `look` succeeds, and returns what it found. Its error is what is so instead.
///
/// # Errors
/// After `longest`, with what `look` saw last.
pub async fn until<T, F, Fut>(what: &str, longest: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let end = Instant::now() + longest;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= end => {
                return Err(anyhow!("not so after {longest:?}: {what}; last seen: {seen:#}"));
            }
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

/// Looks again and again for `length` and fails as soon as `look` does: what must hold all the time.
///
/// # Errors
/// With what `look` saw when it failed.
pub async fn throughout<F, Fut>(what: &str, length: Duration, mut look: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let end = Instant::now() + length;
    while Instant::now() < end {
        look().await.map_err(|seen| anyhow!("broken: {what}; seen: {seen:#}"))?;
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
