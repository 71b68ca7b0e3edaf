//! The `gantry-broker` program and its surroundings: signals, files, addresses.
//! Invariant: each test has its own folder and free ports, and leaves no process behind.
//! Leaves what a running broker answers to the tests of its front doors.

mod addresses;
mod cold;
mod data_dir;
mod disk_world;
mod faults;
mod faults_space;
mod faults_tmpfs;
mod generations;
mod health;
mod memory;
mod pause;
mod priorities;
mod program;
mod stop;
#[allow(dead_code, reason = "shared with the tests of the remoting port, which use all of it")]
#[path = "../remoting/world.rs"]
mod world;
