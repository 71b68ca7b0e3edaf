//! RocketMQ's gRPC protocol, version 2: the schema, compiled.
//! Invariant: package, field numbers and names are those of the protocol, so that its SDKs need no change.
//! Leaves meaning to the broker: nothing here checks a value.

/// Messages and services of package `apache.rocketmq.v2`.
pub mod v2 {
    #![expect(
        missing_docs,
        clippy::pedantic,
        reason = "generated from the schema, which carries the explanations"
    )]
    tonic::include_proto!("apache.rocketmq.v2");
}
