//! Settings of the servers: plain types, filled from a file, the environment and arguments.
//! Invariant: a key that no type names fails by name and source; nothing given is ever ignored in silence.
//! Reads no file and no environment by itself except in `from_process`; ranges are checked by each type's `validate`.
//!
//! The order is file, then `GANTRY_KEY`, then `--key`; the later one wins. `http_port` is
//! `GANTRY_HTTP_PORT` and `--http-port`; within a section, `log.level` is `GANTRY_LOG__LEVEL` and
//! `--log.level`. Lists are separated by commas outside the file.

mod broker;
mod load;
mod log;
mod memory;
mod nameserver;
mod node;
mod quantity;
mod reference;

pub use broker::{BrokerSettings, BrokerSettingsError, FlushMode, OnFull};
pub use load::{Origin, SettingsError, Start, from_process, load};
pub use log::{LogFormat, LogLevel};
pub use memory::{MEMORY_MIN, MEMORY_UNLIMITED, MemoryError, MemoryLimit, MemorySizes};
pub use nameserver::NameServerSettings;
pub use quantity::{Bytes, Duration, QuantityError};
pub(crate) use reference::settings;
pub use reference::{Field, Setting, reference};

/// A value outside the range that its setting allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}, expected {expected}")]
pub struct InvalidSetting {
    /// The setting, sections separated by dots.
    pub key: &'static str,
    /// The refused value.
    pub value: String,
    /// The range, with its unit.
    pub expected: String,
}

/// Checks that `value` lies within `range`; for `validate` of the types here.
pub fn check_range<V>(
    key: &'static str,
    value: V,
    range: std::ops::RangeInclusive<V>,
) -> Result<(), InvalidSetting>
where
    V: PartialOrd + std::fmt::Display + Copy,
{
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(InvalidSetting { key, value: value.to_string(), expected })
}
