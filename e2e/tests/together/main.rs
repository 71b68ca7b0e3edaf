//! End-to-end tests that do not disturb each other: each has its own namespace, so several run at once.
//! Invariant: none touches the operator or another's objects; those that do are in `tests/alone`.

mod clients;
mod resources;
mod rolls;
mod scaling;
