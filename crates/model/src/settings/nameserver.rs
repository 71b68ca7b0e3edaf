//! Settings of the name server: written by the operator or a person, read once at start.
//! Invariant: after `validate` every value lies in the range that its documentation names.
//! Leaves what the values do to the name server.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use super::{Bytes, Duration, InvalidSetting, LogFormat, LogLevel, check_range, settings};

settings! {
    /// Settings of one name server.
    pub struct NameServerSettings {
        /// Address on which it listens. Default 0.0.0.0, every address.
        pub bind: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        /// Port of the remoting protocol; 0 takes any free one. Default 9876.
        pub port: u16 = 9876,
        /// Port of health and metrics; 0 takes any free one. Default 8080.
        pub http_port: u16 = 8080,
        /// Form of the log lines: text or json. Default text.
        pub log_format: LogFormat = LogFormat::Text,
        /// Least important lines that are logged: error, warn, info, debug or trace. Default info.
        pub log_level: LogLevel = LogLevel::Info,
        /// Folder that keeps the key-value configuration; without one it ends with the process. Default none.
        pub data_dir: Option<PathBuf> = None,
        /// Names of the brokers that must have registered before the server is ready. Default none.
        pub expected_brokers: Vec<String> = Vec::new(),
        /// Longest wait for the expected brokers; after it the server is ready without them.
        /// Default 10s, range 0s to 10m.
        pub ready_wait_max: Duration = Duration::from_secs(10),
        /// Silence after which a broker is forgotten, unless it registers a time of its own.
        /// Default 120s, range 1s to 1h.
        pub broker_expiry: Duration = Duration::from_secs(120),
        /// Time between two looks for silent brokers. Default 5s, range 100ms to 1m.
        pub scan_interval: Duration = Duration::from_secs(5),
        /// Largest registration after decompression. Default 64Mi, range 1Mi to 1Gi.
        pub register_bytes_max: Bytes = Bytes::mib(64),
        /// Most bytes of names, keys and values in the key-value configuration; its file is written
        /// anew at each change. Default 16Mi, range 64Ki to 1Gi.
        pub kv_bytes_max: Bytes = Bytes::mib(16),
        /// Whether routes carry the queue list of ordered topics. Default false.
        pub order_message_enable: bool = false,
        /// Whether the answer to a registration lists the ordered topics. Default true.
        pub return_order_topic_config_to_broker: bool = true,
        /// Whether topics that a broker's full registration no longer names lose that broker.
        /// Default false: topics are removed by name alone.
        pub delete_topic_with_broker_registration: bool = false,
        /// Whether lists of topics are answered. Default true.
        pub enable_topic_list: bool = true,
        /// Most connections at a time. Default 10000, range 1 to 1000000.
        pub connections_max: u32 = 10_000,
        /// Silence after which a connection is closed. Default 120s, range 1s to 1h.
        pub connection_idle: Duration = Duration::from_secs(120),
    }
}

impl NameServerSettings {
    /// Checks every range once, at start, so that the server may rely on them.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let seconds = Duration::from_secs;
        check_range("ready_wait_max", self.ready_wait_max, seconds(0)..=seconds(600))?;
        check_range("broker_expiry", self.broker_expiry, seconds(1)..=seconds(3_600))?;
        let scan = Duration::from_millis(100)..=seconds(60);
        check_range("scan_interval", self.scan_interval, scan)?;
        let register = Bytes::mib(1)..=Bytes::gib(1);
        check_range("register_bytes_max", self.register_bytes_max, register)?;
        check_range("kv_bytes_max", self.kv_bytes_max, Bytes::kib(64)..=Bytes::gib(1))?;
        check_range("connections_max", self.connections_max, 1..=1_000_000)?;
        check_range("connection_idle", self.connection_idle, seconds(1)..=seconds(3_600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_survive_a_yaml_round_trip() {
        let settings = NameServerSettings::default();
        assert_eq!(settings.validate(), Ok(()));
        let text = serde_yaml::to_string(&settings).unwrap();
        assert_eq!(serde_yaml::from_str::<NameServerSettings>(&text).unwrap(), settings);
    }

    #[test]
    fn value_out_of_range_is_refused_with_its_unit() {
        let settings = NameServerSettings {
            broker_expiry: Duration::from_millis(1),
            ..NameServerSettings::default()
        };
        let error = settings.validate().unwrap_err();
        assert_eq!(error.to_string(), "broker_expiry is 1ms, expected 1s to 1h");
    }
}
