//! Black-box tests of the commands: the built program, against a `gantry standalone` on loopback.
//! Invariant: each test has a server and a folder of its own and leaves neither behind.
//! Leaves crashes to the tests of `kill` and single functions to the tests beside them.

mod bench;
mod cluster;
mod messages;
mod offsets;
mod program;
mod repair;
mod store;
mod topics;
mod world;
