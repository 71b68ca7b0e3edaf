//! What several kinds share.
//! Invariant: a `Duration` that was deserialised is one that the schema accepts.

use std::{borrow::Cow, fmt, str::FromStr};

use kube_derive::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The `BrokerCluster` that an object belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ClusterRef {
    /// Name of the `BrokerCluster`, in the same namespace.
    #[schemars(length(min = 1, max = 30))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("clusterRef.name must be the name of a BrokerCluster: a-z, 0-9 and '-', and begin with a letter"))]
    pub name: String,
}

/// A span of time, written as a whole number and a unit: `30s`, `15m`, `72h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    seconds: u64,
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurationError {
    text: String,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no duration: write a number and s, m, h or d, such as 72h", self.text)
    }
}

impl std::error::Error for DurationError {}

impl Duration {
    /// Most digits of the number, so that it cannot overflow: 999,999,999 days are 86 × 10¹² seconds.
    const DIGITS_MAX: usize = 9;

    /// So many hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self { seconds: hours * 3600 }
    }

    /// Length in seconds.
    pub const fn as_secs(self) -> u64 {
        self.seconds
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let error = || DurationError { text: text.into() };
        let unit = text.chars().last().ok_or_else(error)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(error()),
        };
        let digits = &text[..text.len() - 1];
        let legal = !digits.is_empty() && digits.len() <= Self::DIGITS_MAX;
        if !legal || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let number: u64 = digits.parse().map_err(|_| error())?;
        Ok(Self { seconds: number * seconds })
    }
}

impl TryFrom<String> for Duration {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, DurationError> {
        text.parse()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
        let whole =
            units.iter().find(|(unit, _)| self.seconds > 0 && self.seconds.is_multiple_of(*unit));
        match whole {
            // Hours read better than days where the example says hours.
            Some((86_400, _)) if self.seconds <= 7 * 86_400 => {
                write!(f, "{}h", self.seconds / 3600)
            }
            Some((unit, letter)) => write!(f, "{}{letter}", self.seconds / unit),
            None => write!(f, "{}s", self.seconds),
        }
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": Self::DIGITS_MAX + 1,
            // A rule and no pattern, for the sentence that a pattern cannot have.
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[0-9]{1,9}(s|m|h|d)$')",
                "message": "must be a whole number and s, m, h or d, such as 72h",
            }],
        })
    }
}

/// Schema of processor and memory: that of Kubernetes without claims, with the rules that it has for pods, so that a
/// mistake is refused where it is made and not when a pod is.
pub(crate) fn resource_requirements(_: &mut SchemaGenerator) -> Schema {
    let amounts = |description: &str, rules: Value| {
        json!({
            "type": "object",
            "description": description,
            "maxProperties": 16,
            "additionalProperties": { "x-kubernetes-int-or-string": true, "maxLength": 32 },
            "x-kubernetes-validations": rules,
        })
    };
    let quantities = "self.all(name, isQuantity(string(self[name])))";
    let least = "!('memory' in self) || !isQuantity(string(self['memory'])) \
                 || quantity(string(self['memory'])).compareTo(quantity('32Mi')) >= 0";
    let within = "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) \
                  || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) \
                  || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)";
    let limits = amounts(
        "The most that it may use.",
        json!([
            { "rule": quantities, "message": "limits must be quantities, such as cpu: 500m and memory: 1Gi" },
            { "rule": least, "message": "limits.memory must be at least 32Mi: write a unit, such as 512Mi" },
        ]),
    );
    let requests = amounts(
        "What is kept free for it on its node.",
        json!([{ "rule": quantities, "message": "requests must be quantities, such as cpu: 100m and memory: 256Mi" }]),
    );
    json_schema!({
        "type": "object",
        "properties": { "limits": limits, "requests": requests },
        "x-kubernetes-validations": [
            { "rule": within, "message": "requests must not be above limits" },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_in_the_unit_that_fits() {
        for text in ["0s", "30s", "90s", "15m", "72h", "30d"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        assert_eq!("120s".parse::<Duration>().unwrap().to_string(), "2m");
        assert_eq!("999999999d".parse::<Duration>().unwrap().as_secs(), 86_399_999_913_600);
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "s", "72", "72 h", "-1h", "1.5h", "1w", "9999999999s", "１h"] {
            let error = text.parse::<Duration>().expect_err(text).to_string();
            assert!(error.contains("72h"), "{error}");
        }
    }
}
