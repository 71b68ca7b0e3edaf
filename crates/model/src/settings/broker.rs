//! Settings of a broker: written by the operator and by `gantry standalone`, read once at start.
//! Invariant: after `validate` every value lies in the range that its documentation names.
//! Leaves what the values do to the broker.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    Bytes, Duration, InvalidSetting, LogFormat, LogLevel, MemoryError, MemoryLimit, Setting,
    check_range,
    memory::{CONNECTION_RANGE, MEMORY_MIN, RING_RANGE, VIEW_CACHE_RANGE, VIEW_WRITE_RANGE},
    settings,
};
use crate::{NameError, TopicName, limits};

/// When a message is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushMode {
    /// After it has reached the disk.
    Sync,
    /// As soon as it is written; the disk follows soon.
    #[default]
    Async,
}

impl Setting for FlushMode {}

/// What happens when the log has its size, or the disk is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Messages are refused until retention has made room.
    #[default]
    Refuse,
    /// The oldest messages go, whatever their age.
    DeleteOldest,
}

impl Setting for OnFull {}

settings! {
    /// Settings of one broker.
    pub struct BrokerSettings {
        /// RocketMQ cluster name; also the name of a system topic. Default `DefaultCluster`.
        pub cluster_name: String = "DefaultCluster".into(),
        /// RocketMQ broker name; also the name of a system topic. Default broker-a.
        pub broker_name: String = "broker-a".into(),
        /// Folder of log and views, used by one broker at a time. Default data.
        pub data_dir: PathBuf = "data".into(),
        /// Address on which it listens. Default 0.0.0.0, every address.
        pub bind: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        /// Host name or address that clients connect to: routes, store hosts and message ids carry the
        /// address that it resolves to. Default none, the bind address, which must then be a single one.
        pub advertise: Option<String> = None,
        /// Port of the remoting protocol; 0 takes any free one. Default 10911.
        pub remoting_port: u16 = 10_911,
        /// Whether the same service listens two ports below too, for clients that use the VIP channel.
        /// Default true.
        pub vip_channel: bool = true,
        /// Port of the gRPC protocol; 0 takes any free one. Default 8081.
        pub grpc_port: u16 = 8081,
        /// Port of health and metrics; 0 takes any free one. Default 8080.
        pub http_port: u16 = 8080,
        /// Form of the log lines: text or json. Default text.
        pub log_format: LogFormat = LogFormat::Text,
        /// Least important lines that are logged: error, warn, info, debug or trace. Default info.
        pub log_level: LogLevel = LogLevel::Info,
        /// Name servers to register with, as host:port. Names are resolved again before each
        /// registration, and a name with several addresses stands for all of them. Default none.
        pub name_servers: Vec<String> = Vec::new(),
        /// Time between two registrations. Default 30s, range 1s to 1m.
        pub register_interval: Duration = Duration::from_secs(30),
        /// When a message is answered: sync, after it has reached the disk, or async. Default async.
        pub flush: FlushMode = FlushMode::Async,
        /// Longest time that a byte stays off the disk with async flush. Default 100ms, range 1ms to 1m.
        pub flush_interval: Duration = Duration::from_millis(100),
        /// Bytes off the disk that trigger an early sync with async flush. Default 16Mi, range 64Ki to 1Gi.
        pub dirty_bytes_max: Bytes = Bytes::mib(16),
        /// Size of a log segment. Default 1Gi, range 16Mi to 4Gi.
        pub segment_size: Bytes = Bytes::gib(1),
        /// Age at which messages may go. Default 72h, range 1m to 36500d.
        pub retention: Duration = Duration::from_hours(72),
        /// Size of the log beyond which the oldest messages go, at least two segments. Default none.
        pub retention_size: Option<Bytes> = None,
        /// Size of the log's files beyond which messages are refused or the oldest go, as the next setting says. Two
        /// segments of it are a reserve for offsets and other state. Where the oldest go, a sender that outruns
        /// that takes up to three segments more, until they are gone. At least eight segments, and four more
        /// than the size before. Default none: as much as the disk takes.
        pub log_size_max: Option<Bytes> = None,
        /// What happens when the log has its size, or the disk is full: refuse messages until retention has made
        /// room, or delete the oldest messages, whatever their age. One of `refuse` and `delete_oldest`. Default
        /// `refuse`.
        pub on_full: OnFull = OnFull::Refuse,
        /// Memory that the whole process may use: the four sizes below follow from it where they are not set, and
        /// with the log's last blocks (a 32nd, at most 16Mi), keys that are in no file yet (a 16th, at most 32Mi),
        /// sends that wait for the disk (a 16th) and 16Mi for the process itself they are its bound. The rest is for
        /// topics, groups, clients and the system's file cache. Default none: the limit of the container, or
        /// 512Mi where there is none. Range 64Mi to 1024Gi.
        pub memory: Option<Bytes> = None,
        /// Memory for entries that wait for the views. Default an eighth of memory. Range 1Mi to 4Gi.
        pub ring_size: Option<Bytes> = None,
        /// Memory of the views' block cache. Default a 16th of memory. Range 1Mi to 64Gi.
        pub view_cache_size: Option<Bytes> = None,
        /// Memory of the views' write buffers. Default an eighth of memory. Range 4Mi to 4Gi.
        pub view_write_size: Option<Bytes> = None,
        /// Memory for what all connections hold together: requests that have not arrived as a whole, and answers
        /// that their clients did not take yet. Default a quarter of memory. Range 16Mi to 64Gi.
        pub connection_memory: Option<Bytes> = None,
        /// A group without an offset starts at 0 in a queue whose first message lies within the last so
        /// many bytes of the log. Default 1Gi, range 0 to 1024Ti.
        pub young_size: Bytes = Bytes::gib(1),
        /// Whether a message to an unknown topic makes it from the template TBW102. Default true.
        pub auto_create_topics: bool = true,
        /// Queues of the template, so most queues of a topic made by its first message. Default 8,
        /// range 1 to 1024.
        pub auto_create_queues_max: u32 = 8,
        /// Whether an unknown consumer group is made when it is first used. Default true.
        pub auto_create_groups: bool = true,
        /// Whether the topic of message traces exists. Default true.
        pub trace_topic: bool = true,
        /// Whether consumers of the lite pull kind are served. Default true.
        pub lite_pull: bool = true,
        /// Largest body of a message or a batch. Default 4Mi, range 1Ki to 15Mi.
        pub body_size_max: Bytes = Bytes::new(limits::BODY_BYTES_MAX as u64),
        /// Farthest due time of a timed message. Default 72h, range 1s to 30d.
        pub timer_delay_max: Duration = Duration::from_hours(72),
        /// Most pulls that wait for a message at a time. Default 100000, range 1 to 10000000.
        pub held_pulls_max: u32 = 100_000,
        /// Distance behind the end of the log from which a read is cold; cold reads have threads of their
        /// own. Default 256Mi, range 1Mi to 1024Ti.
        pub cold_read_distance: Bytes = Bytes::mib(256),
        /// Most cold reads at a time. Default 4, range 1 to 64.
        pub cold_reads_max: u32 = 4,
        /// Most connections at a time, of both remoting ports together, and as many of the gRPC port.
        /// Default 20000, range 1 to 1000000.
        pub connections_max: u32 = 20_000,
        /// Bytes a second that a scrub reads, which looks for damage in log, key index and views.
        /// Default 8Mi, 0 for no scrub, range 0 to 4Gi.
        pub scrub_rate: Bytes = Bytes::mib(8),
        /// Time from the begin of one scrub to the next one's. Default 24h, range 1m to 365d.
        pub scrub_interval: Duration = Duration::from_hours(24),
        /// Longest time that a stopping broker serves open connections. Default 500ms, range 0s to 10m.
        pub drain: Duration = Duration::from_millis(500),
    }
}

/// Why settings were refused; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerSettingsError {
    /// A value is out of its range.
    #[error(transparent)]
    Range(#[from] InvalidSetting),
    /// A cluster or broker name cannot be a topic name, which it has to be as well.
    #[error("{key} is {value:?}")]
    Name {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// The broker binds to a wildcard address and was not told what clients connect to.
    #[error("bind is {bind}, every address: set advertise to the host that clients connect to")]
    Advertise {
        /// The bind address.
        bind: IpAddr,
    },
    /// An item of the list of name servers is not `host:port`.
    #[error("name_servers has {item:?}, expected host:port")]
    NameServer {
        /// The item.
        item: String,
    },
    /// The parts of its memory do not fit into it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The VIP channel needs a port of its own two below.
    #[error("remoting_port is {0}, with vip_channel it must be 0 or at least 3")]
    VipPort(u16),
}

impl BrokerSettings {
    /// Checks every setting once, at start, so that the broker may rely on them.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn validate(&self) -> Result<(), BrokerSettingsError> {
        self.validate_names()?;
        if self.vip_channel && matches!(self.remoting_port, 1..=2) {
            return Err(BrokerSettingsError::VipPort(self.remoting_port));
        }
        self.validate_times()?;
        self.validate_sizes()?;
        if let Some(memory) = self.memory {
            self.memory_sizes(&MemoryLimit::Setting(memory))?;
        }
        Ok(self.validate_counts()?)
    }

    /// Host that clients connect to.
    pub fn advertised_host(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.bind.to_string())
    }

    /// Name servers as `host:port`. An item may hold several, separated by `;`, as RocketMQ writes them.
    pub fn name_server_list(&self) -> impl Iterator<Item = &str> {
        let items = self.name_servers.iter().flat_map(|item| item.split(';'));
        items.map(str::trim).filter(|item| !item.is_empty())
    }

    fn validate_names(&self) -> Result<(), BrokerSettingsError> {
        for (key, value) in
            [("cluster_name", &self.cluster_name), ("broker_name", &self.broker_name)]
        {
            TopicName::new(value).map_err(|source| BrokerSettingsError::Name {
                key,
                value: value.clone(),
                source,
            })?;
        }
        let blank = self.advertise.as_ref().is_none_or(|host| host.trim().is_empty());
        if blank && self.bind.is_unspecified() {
            return Err(BrokerSettingsError::Advertise { bind: self.bind });
        }
        let wrong = |item: &&str| {
            item.rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        };
        match self.name_server_list().find(wrong) {
            Some(item) => Err(BrokerSettingsError::NameServer { item: item.into() }),
            None => Ok(()),
        }
    }

    fn validate_times(&self) -> Result<(), InvalidSetting> {
        let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
        check_range("register_interval", self.register_interval, seconds(1)..=seconds(60))?;
        check_range("flush_interval", self.flush_interval, millis(1)..=seconds(60))?;
        let century = Duration::from_hours(36_500 * 24);
        check_range("retention", self.retention, seconds(60)..=century)?;
        let month = Duration::from_hours(30 * 24);
        check_range("timer_delay_max", self.timer_delay_max, seconds(1)..=month)?;
        let year = Duration::from_hours(365 * 24);
        check_range("scrub_interval", self.scrub_interval, seconds(60)..=year)?;
        check_range("drain", self.drain, seconds(0)..=seconds(600))
    }

    fn validate_sizes(&self) -> Result<(), InvalidSetting> {
        let (kib, mib, gib) = (Bytes::kib, Bytes::mib, Bytes::gib);
        let any = gib(1 << 20);
        check_range("dirty_bytes_max", self.dirty_bytes_max, kib(64)..=gib(1))?;
        check_range("segment_size", self.segment_size, mib(16)..=gib(4))?;
        self.validate_log_size(any)?;
        if let Some(memory) = self.memory {
            check_range("memory", memory, MEMORY_MIN..=gib(1024))?;
        }
        let set = |key, value: Option<Bytes>, range| {
            value.map_or(Ok(()), |value| check_range(key, value, range))
        };
        set("ring_size", self.ring_size, RING_RANGE)?;
        set("view_cache_size", self.view_cache_size, VIEW_CACHE_RANGE)?;
        set("view_write_size", self.view_write_size, VIEW_WRITE_RANGE)?;
        set("connection_memory", self.connection_memory, CONNECTION_RANGE)?;
        check_range("scrub_rate", self.scrub_rate, kib(0)..=gib(4))?;
        check_range("young_size", self.young_size, kib(0)..=any)?;
        check_range("body_size_max", self.body_size_max, kib(1)..=mib(15))?;
        check_range("cold_read_distance", self.cold_read_distance, mib(1)..=any)
    }

    fn validate_log_size(&self, any: Bytes) -> Result<(), InvalidSetting> {
        let segment = self.segment_size;
        let segments = |count: u64| Bytes::new(count * segment.get());
        // Who meets such a bound does not find its numbers in the reference: they follow from other settings.
        let check = |key, size: Option<Bytes>, range, rule: &str| {
            let outcome = size.map_or(Ok(()), |size| check_range(key, size, range));
            outcome.map_err(|error| InvalidSetting {
                expected: format!("{}: {rule}, and segment_size is {segment}", error.expected),
                ..error
            })
        };
        let rule = "at least eight times segment_size";
        check("log_size_max", self.log_size_max, segments(8)..=any, rule)?;
        // Retention by size comes before the log is full: beside it there are the reserve and segments being made.
        let most = self.log_size_max.map_or(any, |size| Bytes::new(size.get() - segments(4).get()));
        let rule = "at least twice segment_size, at most log_size_max less four times that";
        check("retention_size", self.retention_size, segments(2)..=most, rule)
    }

    fn validate_counts(&self) -> Result<(), InvalidSetting> {
        check_range("auto_create_queues_max", self.auto_create_queues_max, 1..=1024)?;
        check_range("held_pulls_max", self.held_pulls_max, 1..=10_000_000)?;
        check_range("cold_reads_max", self.cold_reads_max, 1..=64)?;
        check_range("connections_max", self.connections_max, 1..=1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> BrokerSettings {
        BrokerSettings { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), ..BrokerSettings::default() }
    }

    #[test]
    fn defaults_are_valid_once_clients_have_an_address() {
        assert_eq!(settings().validate(), Ok(()));
        let wildcard = BrokerSettings::default();
        assert!(matches!(wildcard.validate(), Err(BrokerSettingsError::Advertise { .. })));
        let advertised = BrokerSettings { advertise: Some("shop-broker-0".into()), ..wildcard };
        assert_eq!(advertised.validate(), Ok(()));
    }

    #[test]
    fn value_out_of_range_is_refused_by_its_key() {
        let wrong = BrokerSettings { flush_interval: Duration::from_millis(0), ..settings() };
        let text = wrong.validate().unwrap_err().to_string();
        assert_eq!(text, "flush_interval is 0s, expected 1ms to 1m");
        let wrong = BrokerSettings { retention_size: Some(Bytes::mib(1)), ..settings() };
        assert!(wrong.validate().unwrap_err().to_string().contains("retention_size"));
    }

    #[test]
    fn log_has_room_for_its_reserve_and_for_retention_by_size() {
        let of = |log_mib, retention_mib| BrokerSettings {
            segment_size: Bytes::mib(16),
            log_size_max: Some(Bytes::mib(log_mib)),
            retention_size: Some(Bytes::mib(retention_mib)),
            ..settings()
        };
        let refused = |settings: BrokerSettings| settings.validate().unwrap_err().to_string();
        assert_eq!(of(128, 64).validate(), Ok(()));
        let rule = "at least eight times segment_size, and segment_size is 16Mi";
        let expected = format!("log_size_max is 127Mi, expected 128Mi to 1024Ti: {rule}");
        assert_eq!(refused(of(127, 32)), expected);
        let rule = "at least twice segment_size, at most log_size_max less four times that, \
                    and segment_size is 16Mi";
        let expected = format!("retention_size is 65Mi, expected 32Mi to 64Mi: {rule}");
        assert_eq!(refused(of(128, 65)), expected);
        let wish = serde_yaml::from_str::<BrokerSettings>("on_full: delete_oldest").unwrap();
        assert_eq!(wish.on_full, OnFull::DeleteOldest);
    }

    #[test]
    fn memory_and_its_parts_are_refused_by_their_keys() {
        let (mib, gib) = (Bytes::mib, Bytes::gib);
        let of = |memory| BrokerSettings { memory: Some(memory), ..settings() };
        for memory in [mib(64), gib(1024)] {
            assert_eq!(of(memory).validate(), Ok(()));
        }
        assert!(of(mib(63)).validate().unwrap_err().to_string().starts_with("memory is 63Mi"));
        let wrong = BrokerSettings { view_write_size: Some(mib(1)), ..settings() };
        assert!(wrong.validate().unwrap_err().to_string().starts_with("view_write_size is 1Mi"));
        let wrong = BrokerSettings { ring_size: Some(mib(64)), ..of(mib(64)) };
        assert!(matches!(wrong.validate(), Err(BrokerSettingsError::Memory(_))));
    }

    #[test]
    fn misspelt_key_is_refused_by_name() {
        let error = serde_yaml::from_str::<BrokerSettings>("flush_intervall: 5s").unwrap_err();
        assert!(error.to_string().contains("flush_intervall"), "{error}");
    }

    #[test]
    fn name_server_without_a_port_is_refused_and_the_classic_form_is_read() {
        let name_servers = vec!["a:1; b:2;".into(), "c:3".into()];
        let list = BrokerSettings { name_servers, ..settings() };
        assert_eq!(list.validate(), Ok(()));
        assert_eq!(list.name_server_list().collect::<Vec<_>>(), ["a:1", "b:2", "c:3"]);
        for wrong in ["a", ":1", "a:x", "a:70000"] {
            let list = BrokerSettings { name_servers: vec![wrong.into()], ..settings() };
            assert!(matches!(list.validate(), Err(BrokerSettingsError::NameServer { .. })));
        }
    }

    #[test]
    fn settings_survive_a_round_trip() {
        let text = serde_yaml::to_string(&settings()).unwrap();
        assert_eq!(serde_yaml::from_str::<BrokerSettings>(&text).unwrap(), settings());
    }
}
