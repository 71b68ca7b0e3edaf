//! Black-box tests of the remoting front door: a real broker on a free port, a real connection, a folder of its own.
//! Invariant: a test waits for conditions, never for time.
//! Leaves the inside of services to their own tests.

mod admin_progress;
mod admin_query;
mod admin_status;
mod admin_topics;
mod clients;
mod delay;
mod offsets;
mod pull;
mod registration;
mod retry;
mod robust;
mod send;
mod stop;
mod world;
