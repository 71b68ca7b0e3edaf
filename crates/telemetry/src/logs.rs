//! Where log lines go and how they look.
//! Invariant: lines go to standard error, so that standard output keeps what a command promises to print.
//! Leaves what is logged to whoever handles the event.

use std::{io::IsTerminal, str::FromStr};

use tracing_subscriber::EnvFilter;

/// Form of the log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format { text: text.into() }),
        }
    }
}

/// Why logs were not set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The format has no such name.
    #[error("log format is {text:?}, expected text or json")]
    Format {
        /// The refused name.
        text: String,
    },
    /// The level is no filter.
    #[error(
        "log level is {level:?}, expected error, warn, info, debug, trace or a list of target=level"
    )]
    Level {
        /// The refused level.
        level: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process already writes logs.
    #[error("logs are already set up")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends log lines of `level` and above to standard error. Once for each process.
///
/// `level` is `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,gantry_store=debug`.
pub fn init_logs(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|source| LogError::Level { level: level.into(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).try_init(),
    }
    .map_err(LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_format_or_level_is_refused_by_name() {
        let error = "xml".parse::<LogFormat>().unwrap_err().to_string();
        assert!(error.contains("xml"), "{error}");
        let error = init_logs(LogFormat::Text, "gantry=loud").unwrap_err().to_string();
        assert!(error.contains("loud"), "{error}");
    }
}
