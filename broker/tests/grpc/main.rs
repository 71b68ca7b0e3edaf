//! Black-box tests of the gRPC front door: a real broker, a tonic client, and the remoting port beside it.
//! Invariant: what an application did wrong is answered in band; gRPC errors mean that a call is not served.
//! Leaves single checks of messages to the unit tests of the door.

mod client;
mod full;
mod overload;
mod refusals;
mod route;
mod send;
#[allow(dead_code, reason = "shared with the tests of the remoting port, which use all of it")]
#[path = "../remoting/world.rs"]
mod world;
