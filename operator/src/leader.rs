//! Leader election: one process of the operator works at a time, by a Lease.
//! Invariant: a process that has not renewed for [`RENEW_WITHIN`] works no more, before anybody else may take over;
//! how old a holder is, is measured by our own clock from when its last renewal was seen, never by its time stamps.
//! Leaves what happens on loss to the program, which ends.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

/// Name of the Lease, in the operator's namespace.
pub const LEASE: &str = "gantry-operator";
/// How long a holder that does not renew keeps the Lease.
pub const LEASE_FOR: Duration = Duration::from_secs(15);
/// Time between two renewals.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Time without a renewal after which the holder gives up: well before the Lease is free to others.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks at a Lease that another process holds.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for one answer of the API server.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Why the Lease was lost.
#[derive(Debug, thiserror::Error)]
pub enum LostError {
    /// Another process holds it.
    #[error("the Lease {LEASE} is held by {holder}")]
    Taken {
        /// That process.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("the Lease {LEASE} was not renewed for {RENEW_WITHIN:?}")]
    NotRenewed(#[source] RenewError),
}

/// Why one renewal failed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The API server refused.
    #[error("renew the Lease")]
    Api(#[from] kube::Error),
    /// The API server did not answer.
    #[error("no answer within {ANSWER_WITHIN:?}")]
    Timeout,
}

/// A candidate for the Lease.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    /// The holder's last renewal that was seen, and when it was first seen.
    observed: Option<(LeaseSpec, Instant)>,
}

/// What one try brought.
enum Tried {
    Held,
    HeldBy(String),
}

impl Candidate {
    /// A candidate under a name that no other process has.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, observed: None }
    }

    /// Waits until this process holds the Lease.
    pub async fn acquire(&mut self) {
        let mut last_holder = None;
        loop {
            match self.try_once().await {
                Ok(Tried::Held) => return,
                Ok(Tried::HeldBy(holder)) if last_holder.as_ref() != Some(&holder) => {
                    tracing::info!(%holder, "stands by: another process works");
                    last_holder = Some(holder);
                }
                Ok(Tried::HeldBy(_)) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the Lease is tried again"
                    );
                }
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Renews the Lease until it is lost.
    pub async fn keep(&mut self) -> LostError {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW_EVERY.min(RENEW_WITHIN.saturating_sub(renewed.elapsed())))
                .await;
            let began = Instant::now();
            match self.try_once().await {
                Ok(Tried::Held) => renewed = began,
                Ok(Tried::HeldBy(holder)) => return LostError::Taken { holder },
                Err(error) if renewed.elapsed() >= RENEW_WITHIN => {
                    return LostError::NotRenewed(error);
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the Lease is renewed again"
                    );
                }
            }
        }
    }

    /// Gives the Lease back, so that the next process need not wait.
    pub async fn release(&mut self) {
        match self.try_release().await {
            Ok(()) => tracing::info!("released the Lease"),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the Lease runs out by itself"
                );
            }
        }
    }

    async fn try_release(&mut self) -> Result<(), RenewError> {
        let Some(mut lease) = answered(self.api.get_opt(LEASE)).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        answered(self.api.replace(LEASE, &PostParams::default(), &lease)).await?;
        Ok(())
    }

    async fn try_once(&mut self) -> Result<Tried, RenewError> {
        let Some(mut lease) = answered(self.api.get_opt(LEASE)).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(LEASE.into());
            lease.spec = Some(self.claim(None));
            return settle(answered(self.api.create(&PostParams::default(), &lease)).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if let Some(holder) = self.other_holder(&spec, Instant::now()) {
            return Ok(Tried::HeldBy(holder));
        }
        lease.spec = Some(self.claim(Some(&spec)));
        // The resource version that was read makes this a compare-and-swap.
        settle(answered(self.api.replace(LEASE, &PostParams::default(), &lease)).await)
    }

    /// The process that holds the Lease, if it is another one and not silent for too long.
    fn other_holder(&mut self, spec: &LeaseSpec, now: Instant) -> Option<String> {
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty())?;
        if holder == self.identity {
            return None;
        }
        let seen = match &self.observed {
            Some((observed, seen)) if observed == spec => *seen,
            _ => {
                self.observed = Some((spec.clone(), now));
                now
            }
        };
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let lease_for = seconds.map_or(LEASE_FOR, Duration::from_secs);
        (now.duration_since(seen) < lease_for).then_some(holder)
    }

    /// The Lease in our name.
    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_FOR.as_secs() as i32),
            acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(before.is_some() && ours.is_none())),
            ..LeaseSpec::default()
        }
    }
}

/// What a write brought. One that lost against another is no error.
fn settle(written: Result<Lease, RenewError>) -> Result<Tried, RenewError> {
    match written {
        Ok(_) => Ok(Tried::Held),
        Err(RenewError::Api(kube::Error::Api(refusal))) if refusal.code == 409 => {
            Ok(Tried::HeldBy("another process, just now".into()))
        }
        Err(error) => Err(error),
    }
}

async fn answered<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, RenewError> {
    match tokio::time::timeout(ANSWER_WITHIN, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RenewError::Timeout),
    }
}

// A renewal that begins last within the bound is answered before the Lease is free to others.
const _: () = assert!(RENEW_WITHIN.as_secs() + ANSWER_WITHIN.as_secs() < LEASE_FOR.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate() -> Candidate {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Candidate::new(client, "ns", "me".into())
    }

    fn held(holder: &str, renewed_second: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed_second).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test]
    async fn silent_holder_is_followed_only_after_its_whole_lease_was_seen() {
        let (mut candidate, start) = (candidate(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        // Its time stamp is years old: only what was seen counts.
        assert_eq!(candidate.other_holder(&held("a", 1), start).as_deref(), Some("a"));
        assert_eq!(candidate.other_holder(&held("a", 1), after(14)).as_deref(), Some("a"));
        assert_eq!(candidate.other_holder(&held("a", 2), after(15)).as_deref(), Some("a"));
        assert_eq!(candidate.other_holder(&held("a", 2), after(29)).as_deref(), Some("a"));
        assert_eq!(candidate.other_holder(&held("a", 2), after(30)), None);
    }

    #[tokio::test]
    async fn released_lease_and_our_own_are_free_at_once() {
        let mut candidate = candidate();
        assert_eq!(candidate.other_holder(&held("", 1), Instant::now()), None);
        assert_eq!(candidate.other_holder(&held("me", 1), Instant::now()), None);
    }

    #[tokio::test]
    async fn takeover_counts_a_transition_and_a_renewal_does_not() {
        let candidate = candidate();
        let taken = candidate.claim(Some(&held("a", 1)));
        assert_eq!(taken.lease_transitions, Some(1));
        let renewed = candidate.claim(Some(&taken));
        assert_eq!(renewed.lease_transitions, Some(1));
        assert_eq!(renewed.acquire_time, taken.acquire_time);
    }
}
