//! Bits of a record's sys flag.
//! Invariant: the numbers are RocketMQ's `MessageSysFlag`; the two host bits belong to the encoder alone.
//! Leaves what a bit means for delivery to the broker.

/// The body is compressed.
pub const COMPRESSED: i32 = 0x001;
/// The topic's messages may have several tags.
pub const MULTI_TAGS: i32 = 0x002;
/// The two bits that say which part a record plays in a transaction.
pub const TRANSACTION: i32 = 0x00C;
/// Half message, waiting for its transaction's decision.
pub const TRANSACTION_PREPARED: i32 = 0x004;
/// Message of a committed transaction.
pub const TRANSACTION_COMMIT: i32 = 0x008;
/// Message of a transaction rolled back.
pub const TRANSACTION_ROLLBACK: i32 = 0x00C;
/// The born host is an IPv6 address.
pub const BORN_HOST_V6: i32 = 0x010;
/// The store host is an IPv6 address.
pub const STORE_HOST_V6: i32 = 0x020;
/// The body is an inner batch that the consumer has to unwrap.
pub const NEEDS_UNWRAP: i32 = 0x040;
/// The record is an inner batch.
pub const INNER_BATCH: i32 = 0x080;
/// The three bits that name the compression.
pub const COMPRESSION: i32 = 0x700;
/// Compressed with LZ4, frame format.
pub const COMPRESSION_LZ4: i32 = 0x100;
/// Compressed with ZSTD.
pub const COMPRESSION_ZSTD: i32 = 0x200;
/// Compressed with ZLIB. Old clients leave the bits at 0 and mean ZLIB too.
pub const COMPRESSION_ZLIB: i32 = 0x300;
