//! The Lease, between two candidates.
//! Invariant: what is waited for is the Lease itself, never a time.
//! Leaves the arithmetic of expiry to the unit tests.

use gantry_operator::leader::{Candidate, LEASE, LostError};
use k8s_openapi::api::coordination::v1::Lease;

use crate::world::{PATIENCE, World};

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn lease_has_one_holder_and_is_free_at_once_when_released() {
    let world = World::new("lease").await;
    let candidate =
        |name: &str| Candidate::new(world.client.clone(), &world.namespace, name.to_owned());
    let (mut first, mut second) = (candidate("first"), candidate("second"));
    first.acquire().await;
    let taking_over = tokio::spawn(async move {
        second.acquire().await;
        second
    });
    let acquired = world.api::<Lease>().get(LEASE).await.expect("the Lease").spec;
    let renewed = world.wait(LEASE, "renewal", |lease: &Lease| lease.spec != acquired);
    tokio::select! {
        lost = first.keep() => panic!("the holder renews: {lost}"),
        renewed = renewed => {
            assert_eq!(renewed.spec.and_then(|spec| spec.holder_identity).as_deref(), Some("first"));
        }
    }
    assert!(!taking_over.is_finished(), "nobody else has it meanwhile");
    first.release().await;
    let second =
        tokio::time::timeout(PATIENCE, taking_over).await.expect("in time").expect("no panic");
    drop(second);
    let lost = tokio::time::timeout(PATIENCE, first.keep()).await.expect("in time");
    assert!(matches!(&lost, LostError::Taken { holder } if holder == "second"), "{lost}");
}
