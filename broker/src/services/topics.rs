//! Topics: who may make, change and delete which, and how a topic comes to be by its first message.
//! Invariant: names of the broker's own topics are changed by nobody but the broker; each change reaches the
//! name servers.
//! Leaves the definitions themselves to the store.

use std::sync::Arc;

use gantry_model::{
    GroupConfig, GroupName, NameError, Permission, TopicConfig, TopicConfigError, TopicName,
    is_system_topic, limits::QUEUES_MAX, settings::BrokerSettings,
};
use gantry_store::{AppendError, Now, Store, Ticket, Topic};

use super::changes::TopicChanges;

/// Template of topics that are made by their first message.
pub const TEMPLATE_TOPIC: &str = "TBW102";
/// Where messages with a delay level wait; queue number is level less 1.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where messages with a due time wait.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// Where parked messages end whose topic is gone.
pub const DROPPED_TOPIC: &str = "rmq_sys_dropped";
/// Where clients send traces.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

/// Why a topic was not made, changed, deleted or found.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The name cannot be a topic's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The topic is the broker's own.
    #[error("the topic[{topic}] is conflict with system reserved words")]
    System {
        /// Its name.
        topic: String,
    },
    /// The definition is out of range.
    #[error(transparent)]
    Config(#[from] TopicConfigError),
    /// There is no such topic, and it may not be made.
    #[error("topic[{topic}] not exist, apply first please!")]
    Unknown {
        /// The name asked for.
        topic: String,
    },
    /// The definition could not be stored.
    #[error("store the definition of topic {topic}")]
    Append {
        /// Its name.
        topic: TopicName,
        /// The cause.
        source: AppendError,
    },
}

/// Names of the topics that depend on how the broker is called.
#[derive(Debug, Clone)]
pub struct OwnTopics {
    /// Named after the cluster, so that tools find its brokers.
    pub cluster: TopicName,
    /// Named after the broker, so that tools find it.
    pub broker: TopicName,
    /// Where replies of request-reply are stored.
    pub reply: TopicName,
}

impl OwnTopics {
    /// The names for these settings.
    pub fn new(settings: &BrokerSettings) -> Result<Self, NameError> {
        Ok(Self {
            cluster: TopicName::new(&settings.cluster_name)?,
            broker: TopicName::new(&settings.broker_name)?,
            reply: TopicName::new(&format!("{}_REPLY_TOPIC", settings.cluster_name))?,
        })
    }
}

/// Topics of a broker.
pub struct Topics {
    store: Arc<Store>,
    settings: Arc<BrokerSettings>,
    own: OwnTopics,
    changes: Arc<TopicChanges>,
}

impl Topics {
    /// Topics in `store`; `changes` hears of each change.
    pub fn new(
        store: Arc<Store>,
        settings: Arc<BrokerSettings>,
        changes: Arc<TopicChanges>,
    ) -> Result<Self, NameError> {
        let own = OwnTopics::new(&settings)?;
        Ok(Self { store, settings, own, changes })
    }

    /// The topic of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.store.topic(name)
    }

    /// The topic of that name, or the error that says it is unknown.
    pub fn find(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        self.get(name).ok_or_else(|| TopicError::Unknown { topic: name.into() })
    }

    /// All topics, sorted by name, the broker's internal ones without queues for clients included.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.store.topics()
    }

    /// Whether the topic belongs to the broker itself.
    pub fn is_system(&self, name: &str) -> bool {
        is_system_topic(name)
            || [&self.own.cluster, &self.own.broker, &self.own.reply]
                .iter()
                .any(|own| own.as_str() == name)
    }

    /// Makes or changes a topic as an administrator asks. An equal definition changes nothing.
    pub fn put(&self, config: TopicConfig, now: Now) -> Result<(Arc<Topic>, Ticket), TopicError> {
        self.check_not_system(&config.topic_name)?;
        config.validate()?;
        self.store_topic(config, now)
    }

    /// Deletes a topic with its offsets and timers; `None`: there was none.
    pub fn delete(&self, name: &str, now: Now) -> Result<Option<Ticket>, TopicError> {
        let topic = TopicName::new(name)?;
        self.check_not_system(&topic)?;
        self.delete_any(topic, now)
    }

    /// The topic for a message to `name`, made from the template if that is allowed.
    pub fn for_send(
        &self,
        name: &str,
        template: &str,
        queues_wanted: u32,
        now: Now,
    ) -> Result<Arc<Topic>, TopicError> {
        if let Some(topic) = self.get(name) {
            return Ok(topic);
        }
        let topic = TopicName::new(name)?;
        let unknown = || TopicError::Unknown { topic: name.into() };
        if topic.retry_group().is_some() {
            return Ok(self.store_topic(TopicConfig::new(topic, 1), now)?.0);
        }
        // Only the one template: the cluster's and the broker's topics are inheritable too, and
        // would get around the switch.
        if !self.settings.auto_create_topics || template != TEMPLATE_TOPIC {
            return Err(unknown());
        }
        let template = self.get(template).filter(|template| template.config.perm.inheritable());
        let template = template.ok_or_else(unknown)?;
        let config = made_from(&template.config, topic, queues_wanted);
        Ok(self.store_topic(config, now)?.0)
    }

    /// The retry topic of a group, made if it is not there.
    pub fn retry_topic(&self, group: &GroupConfig, now: Now) -> Result<Arc<Topic>, TopicError> {
        let queues = u32::try_from(group.retry_queue_nums).unwrap_or(0).clamp(1, QUEUES_MAX);
        self.ensure(TopicConfig::new(group.group_name.retry_topic(), queues), now)
    }

    /// The dead-letter topic of a group, made if it is not there.
    pub fn dead_letter_topic(&self, group: &GroupName, now: Now) -> Result<Arc<Topic>, TopicError> {
        self.ensure(TopicConfig::new(group.dead_letter_topic(), 1), now)
    }

    /// Makes the topics that a broker has from the start.
    pub fn make_own(&self, now: Now) -> Result<(), TopicError> {
        for config in self.own_configs() {
            self.ensure(config, now)?;
        }
        if !self.settings.auto_create_topics && self.get(TEMPLATE_TOPIC).is_some() {
            self.delete_any(name_of(TEMPLATE_TOPIC), now)?;
        }
        Ok(())
    }

    /// The topic, made if it is not there; an existing one is left as it is.
    pub fn ensure(&self, config: TopicConfig, now: Now) -> Result<Arc<Topic>, TopicError> {
        match self.get(&config.topic_name) {
            Some(topic) => Ok(topic),
            None => Ok(self.store_topic(config, now)?.0),
        }
    }

    fn own_configs(&self) -> Vec<TopicConfig> {
        let plain = |name: &str, queues| TopicConfig::new(name_of(name), queues);
        let OwnTopics { cluster, broker, reply } = &self.own;
        let mut configs = vec![
            plain("SELF_TEST_TOPIC", 1),
            plain("OFFSET_MOVED_EVENT", 1),
            plain("BenchmarkTest", 1024),
            plain(SCHEDULE_TOPIC, super::timers::DELAY_LEVELS_MS.len() as u32),
            plain(TIMER_TOPIC, 1),
            dropped_topic(),
            TopicConfig::new(cluster.clone(), 16).with_permission(Permission::TEMPLATE),
            TopicConfig::new(broker.clone(), 1).with_permission(Permission::TEMPLATE),
            TopicConfig::new(reply.clone(), 1),
        ];
        if self.settings.trace_topic {
            configs.push(plain(TRACE_TOPIC, 1));
        }
        if self.settings.auto_create_topics {
            let queues = self.settings.auto_create_queues_max;
            configs.push(plain(TEMPLATE_TOPIC, queues).with_permission(Permission::TEMPLATE));
        }
        configs
    }

    fn check_not_system(&self, name: &TopicName) -> Result<(), TopicError> {
        if self.is_system(name) {
            return Err(TopicError::System { topic: name.to_string() });
        }
        Ok(())
    }

    fn store_topic(
        &self,
        config: TopicConfig,
        now: Now,
    ) -> Result<(Arc<Topic>, Ticket), TopicError> {
        let topic = config.topic_name.clone();
        let before = self.store.topics_version();
        let stored = self.store.put_topic(config, now);
        let stored =
            stored.map_err(|source| TopicError::Append { topic: topic.clone(), source })?;
        if self.store.topics_version() != before {
            self.changes.note(topic);
        }
        Ok(stored)
    }

    fn delete_any(&self, topic: TopicName, now: Now) -> Result<Option<Ticket>, TopicError> {
        let deleted = self.store.delete_topic(&topic, now);
        let deleted =
            deleted.map_err(|source| TopicError::Append { topic: topic.clone(), source })?;
        if deleted.is_some() {
            self.changes.note(topic);
        }
        Ok(deleted)
    }
}

/// Definition of the topic for messages whose own topic is gone.
pub fn dropped_topic() -> TopicConfig {
    TopicConfig::new(name_of(DROPPED_TOPIC), 1).with_permission(Permission(Permission::READ))
}

fn made_from(template: &TopicConfig, topic: TopicName, queues_wanted: u32) -> TopicConfig {
    let queues = queues_wanted.clamp(1, template.write_queues.max(1));
    let perm = Permission(template.perm.0 & !Permission::INHERIT);
    let topic_filter_type = template.topic_filter_type;
    TopicConfig { topic_filter_type, ..TopicConfig::new(topic, queues).with_permission(perm) }
}

/// A name written in this source, which is why it is valid.
fn name_of(name: &str) -> TopicName {
    TopicName::new(name).expect("the broker's own names are valid")
}
