//! Promises of a connection between the real server and the real client, or a raw socket.
//! Invariant: each test has a server of its own on a port of its own.
//! Leaves the budget of memory, and fairness between connections, to tests of their own.

mod calls;
mod closing;
mod requests;
mod world;
