//! Bounds of names, bodies and properties, as clients of RocketMQ know them.
//! Each is the reference's default; those that an operator may change are settings elsewhere.

/// Longest topic name that a client may use, in bytes.
pub const TOPIC_BYTES_MAX: usize = 127;
/// Longest retry or dead-letter topic name, in bytes.
pub const INTERNAL_TOPIC_BYTES_MAX: usize = 255;
/// Longest group name, in bytes: with `%RETRY%` before it, it still is a topic name of 127.
pub const GROUP_BYTES_MAX: usize = 120;
/// Largest body of one message, or of one batch, in bytes. A default: settings may change it.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest encoded properties of one message, in bytes: their length is a signed 16-bit number.
pub const PROPERTIES_BYTES_MAX: usize = 32_767;
/// Most queues that one topic may have on one broker group.
pub const QUEUES_MAX: u32 = 65_536;
/// Most messages that one pull may ask for.
pub const PULL_MESSAGES_MAX: u32 = 32;
/// Most bytes that one pull answer carries, if its first message is not larger.
pub const PULL_BYTES_MAX: usize = 256 * 1024;
