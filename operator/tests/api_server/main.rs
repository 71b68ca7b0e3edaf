//! Promises of the operator that only a real API server can keep: writes, ownership, refusals, the Lease.
//! Invariant: each test has a namespace of its own, which goes with it; nothing here needs images or even a node.
//! Leaves clusters that serve to the end-to-end tests.
//!
//! They need a Kubernetes with Gantry's definitions: set `GANTRY_OPERATOR_TEST_KUBECONFIG` to its kubeconfig and run
//! `cargo test -p gantry-operator --test api_server -- --ignored`.

mod clusters;
mod definitions;
mod lease;
mod world;
