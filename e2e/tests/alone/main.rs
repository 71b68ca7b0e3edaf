//! End-to-end tests that need the operator for themselves; run one after the other.
//! Invariant: each leaves the operator as it found it: installed, one replica, serving.

mod operator;
mod quiet;
