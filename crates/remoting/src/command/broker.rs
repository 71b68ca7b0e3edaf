//! Configuration and state of a broker: request codes 25, 26, 28 and 315.

use std::collections::BTreeMap;

use crate::ext::header;
use crate::json::body;

header! {
    /// Fields of the answer to request code 26; the body is [`properties_text`].
    pub struct BrokerConfigAnswer<'a> {
        /// Data version of the configuration, as JSON.
        pub version: &'a str = "version",
    }
}

header! {
    /// Fields of request code 315.
    pub struct StatsRequest<'a> {
        /// Name of the series, such as `TOPIC_PUT_NUMS`.
        pub stats_name: &'a str = "statsName",
        /// Topic, `topic@group` or cluster name.
        pub stats_key: &'a str = "statsKey",
    }
}

body! {
    /// Names and values: answers to 28 and 219.
    #[derive(Eq)]
    pub struct KeyValueTable: "table of values" {
        /// The values, all text.
        pub table: BTreeMap<String, String>,
    }
}

body! {
    /// Answer to 315.
    pub struct BrokerStats: "statistics" {
        /// Of the last day.
        pub stats_day: StatsWindow,
        /// Of the last hour.
        pub stats_hour: StatsWindow,
        /// Of the last minute.
        pub stats_minute: StatsWindow,
    }
}

body! {
    /// One window of a series.
    #[derive(Copy)]
    pub struct StatsWindow: "statistics of a window" {
        /// Average of one call.
        pub avgpt: f64,
        /// Count.
        pub sum: i64,
        /// Rate per second.
        pub tps: f64,
    }
}

/// Writes `key=value` lines, as configuration is shown.
pub fn properties_text<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in entries {
        text.extend([key, "=", value, "\n"]);
    }
    text
}

/// Reads `key=value` lines; blank ones and comments are passed over, a line without `=` is a key
/// with an empty value.
pub fn parse_properties(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])).map(|line| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        (key.trim_end(), value.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{assert_round_trips, body_matches};

    #[test]
    fn broker_commands_round_trip() {
        assert_round_trips!(BrokerConfigAnswer { version: "{}" }, BrokerConfigAnswer<'_>);
        let stats = StatsRequest { stats_name: "TOPIC_PUT_NUMS", stats_key: "T" };
        assert_round_trips!(stats, StatsRequest<'_>);
    }

    #[test]
    fn broker_bodies_match_the_reference() {
        let _: KeyValueTable = body_matches(r#"{"table":{"k":"v"}}"#);
        let window = r#"{"avgpt":0.0,"sum":0,"tps":0.0}"#;
        let _: BrokerStats = body_matches(&format!(
            r#"{{"statsDay":{window},"statsHour":{window},"statsMinute":{window}}}"#
        ));
    }

    #[test]
    fn properties_text_is_read_back_without_comments() {
        let text = properties_text([("a", "1"), ("b", "x=y")]);
        assert_eq!(text, "a=1\nb=x=y\n");
        let read: Vec<_> = parse_properties("# no\n\n a = 1\r\nb=x=y\nc").collect();
        assert_eq!(read, [("a", "1"), ("b", "x=y"), ("c", "")]);
    }
}
