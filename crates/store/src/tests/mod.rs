//! Promises of the whole store, each kept on views in memory and on views in RocksDB.
//! Invariant: a world has its own folder and its own clock, and leaves nothing behind.
//! Leaves the log's own promises to the log.

mod bit_flips;
mod crash_states;
mod derived;
mod expiry;
mod faults_clock;
mod faults_files;
mod faults_io;
mod faults_space;
mod faults_tmpfs;
mod faults_unlink;
mod faults_unreadable;
mod faults_views;
mod faults_world;
mod gaps;
mod generations;
mod idle;
mod inspect;
mod keys;
mod offsets;
mod orphans;
mod pending;
mod power_cut;
mod queues;
mod recovery;
mod removed;
mod retention;
mod timers;
mod topics;
mod verify;
mod world;
