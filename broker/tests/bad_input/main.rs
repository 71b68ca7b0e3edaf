//! What a broken or hostile peer may send to a broker, item by item: frames, names, sizes and numbers.
//! Invariant: each is answered by its code, or ends its own connection and is counted; nothing is stored or made,
//! no memory is taken on the peer's word, and others are served on.
//! Leaves the settings file and the data folder to the tests of the program, where they are read.

#[allow(dead_code, reason = "shared with the tests of the gRPC port, which use all of it")]
#[path = "../grpc/client.rs"]
mod client;
mod frames;
mod grpc;
mod memory;
mod requests;
#[allow(dead_code, reason = "shared with the tests of the remoting port, which use all of it")]
#[path = "../remoting/world.rs"]
mod world;
