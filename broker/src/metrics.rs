//! The broker's metrics under RocketMQ 5's names, copied from plain counters when somebody scrapes.
//! Invariant: nothing here runs while messages are handled.
//! Leaves the counting to the services. Source: RocketMQ 5's metric names for brokers and stores.

use std::sync::{Arc, atomic::Ordering};

use gantry_model::{Permission, RETRY_PREFIX, is_system_group};
use gantry_remoting::server::Server;
use metrics::{Label, counter, gauge};

use crate::{
    memory::Memory,
    remoting::{Front, RemotingCounters},
    services::Services,
};

/// What a scrape reads.
pub(crate) struct Metrics {
    pub(crate) services: Arc<Services>,
    pub(crate) remoting: Arc<RemotingCounters>,
    pub(crate) server: Server<Front>,
    pub(crate) memory: Memory,
}

impl Metrics {
    /// Copies every counter.
    pub(crate) fn export(&self) {
        self.messages();
        self.store();
        self.tables();
        self.connections();
        self.memory();
    }

    /// The labels that each series has.
    fn common(&self) -> Vec<Label> {
        let settings = &self.services.settings;
        vec![
            Label::new("cluster", settings.cluster_name.clone()),
            Label::from_static_parts("node_type", "broker"),
            Label::new("node_id", settings.broker_name.clone()),
        ]
    }

    fn labels<const N: usize>(&self, own: [(&'static str, String); N]) -> Vec<Label> {
        let mut labels = self.common();
        labels.extend(own.into_iter().map(|(key, value)| Label::new(key, value)));
        labels
    }

    fn messages(&self) {
        let Services { counters, topics, .. } = &*self.services;
        counters.each_in(|topic, kind, messages, bytes| {
            let labels = self.labels([
                ("topic", topic.to_string()),
                ("message_type", kind.name().into()),
                ("is_system", topics.is_system(topic).to_string()),
            ]);
            counter!("rocketmq_messages_in_total", labels.clone()).absolute(messages);
            counter!("rocketmq_throughput_in_total", labels).absolute(bytes);
        });
        counters.each_out(|topic, group, messages, bytes| {
            let labels = self.labels([
                ("topic", topic.to_string()),
                ("consumer_group", group.to_string()),
                ("is_system", topics.is_system(topic).to_string()),
                ("is_retry", topic.starts_with(RETRY_PREFIX).to_string()),
            ]);
            counter!("rocketmq_messages_out_total", labels.clone()).absolute(messages);
            counter!("rocketmq_throughput_out_total", labels).absolute(bytes);
        });
        counters.each_dead_letter(|topic, group, messages| {
            let labels = self.labels([
                ("topic", topic.to_string()),
                ("consumer_group", group.to_string()),
                ("is_system", is_system_group(group).to_string()),
            ]);
            counter!("rocketmq_send_to_dlq_messages_total", labels).absolute(messages);
        });
        let plain = [
            ("gantry_sends_refused_total", &counters.refused_sends),
            ("gantry_sends_late_total", &counters.late_sends),
            ("gantry_timers_fired_total", &counters.timers_fired),
            ("gantry_timers_dropped_total", &counters.timers_dropped),
            ("gantry_pulls_held_total", &counters.held_pulls),
            ("gantry_pulls_cold_total", &counters.cold_pulls),
            ("gantry_background_failures_total", &counters.failures),
        ];
        for (name, value) in plain {
            counter!(name, self.common()).absolute(value.load(Ordering::Relaxed));
        }
    }

    fn store(&self) {
        let status = self.services.store.status();
        let labels =
            self.labels([("storage_type", "local".into()), ("storage_medium", "disk".into())]);
        let behind = |front: u64, back: u64| front.saturating_sub(back) as f64;
        let values = [
            ("rocketmq_storage_size", status.log_bytes as f64),
            ("rocketmq_storage_flush_behind_bytes", behind(status.written.0, status.synced.0)),
            ("rocketmq_storage_dispatch_behind_bytes", behind(status.written.0, status.applied.0)),
            ("gantry_sends_waiting_bytes", self.services.backlog.bytes() as f64),
            ("gantry_storage_segments", status.segments as f64),
            ("gantry_storage_file_bytes", status.file_bytes as f64),
            ("gantry_storage_leaving_bytes", status.leaving_bytes as f64),
            ("gantry_storage_spare_files", status.spare_files as f64),
            ("gantry_storage_full", f64::from(u8::from(status.shortage.is_some()))),
            ("gantry_storage_ring_bytes", status.ring_bytes as f64),
            ("gantry_storage_view_bytes", status.view_bytes as f64),
            ("gantry_storage_damaged_records", status.damaged_records as f64),
            (
                "gantry_storage_views_failing",
                f64::from(!self.services.lifecycle.are_views_written()),
            ),
            ("gantry_storage_stopped", f64::from(self.services.store.stopped().is_some())),
            ("gantry_storage_damaged_files", status.damaged_files as f64),
            ("gantry_scrub_last_pass_timestamp_seconds", status.scrub.last_pass_ms as f64 / 1e3),
            ("gantry_scrub_position_bytes", status.scrub.position.0 as f64),
        ];
        for (name, value) in values {
            gauge!(name, labels.clone()).set(value);
        }
        if let Some(bytes) = self.services.store.pending_bytes() {
            gauge!("gantry_timers_pending_bytes", self.common()).set(bytes as f64);
        }
        if let Some(limit) = self.services.settings.log_size_max {
            gauge!("gantry_storage_limit_bytes", labels).set(limit.get() as f64);
        }
        counter!("gantry_storage_removed_bytes_total", self.common())
            .absolute(status.removed_bytes);
        counter!("gantry_storage_key_read_bytes_total", self.common())
            .absolute(status.key_read_bytes);
        counter!("gantry_storage_keys_forgotten_total", self.common())
            .absolute(status.keys_forgotten);
        counter!("gantry_scrubbed_bytes_total", self.common()).absolute(status.scrub.bytes);
        gauge!("rocketmq_topic_number", self.common()).set(status.topics as f64);
        gauge!("rocketmq_consumer_group_number", self.common()).set(status.groups as f64);
        let writable = self.services.lifecycle.ready().is_ok() && status.shortage.is_none();
        let permission = if writable { Permission::READ_WRITE.0 } else { Permission::READ };
        gauge!("rocketmq_broker_permission", self.common()).set(f64::from(permission));
    }

    fn tables(&self) {
        let Services { members, holds, .. } = &*self.services;
        gauge!("gantry_pulls_held", self.common()).set(holds.len() as f64);
        for group in members.consumer_group_names() {
            let online = members
                .with_consumer_group(&group, |group| group.map_or(0, |group| group.members.len()));
            let labels = self.labels([
                ("consumer_group", group.to_string()),
                ("protocol_type", "remoting".into()),
                ("is_system", is_system_group(&group).to_string()),
            ]);
            gauge!("rocketmq_consumer_connections", labels).set(online as f64);
        }
    }

    /// What the parts may use: the bounds, to be held against the process's own memory.
    fn memory(&self) {
        for (part, bytes) in self.memory.sizes.parts() {
            let labels = self.labels([("part", part.to_owned())]);
            gauge!("gantry_memory_bound_bytes", labels).set(bytes.get() as f64);
        }
        if let Some(bytes) = self.memory.limit.bytes() {
            gauge!("gantry_memory_limit_bytes", self.common()).set(bytes.get() as f64);
        }
    }

    fn connections(&self) {
        let remoting = &self.remoting;
        let counters = [
            ("gantry_connections_accepted_total", &remoting.accepted_connections),
            ("gantry_connections_refused_total", &remoting.refused_connections),
            ("gantry_broken_frames_total", &remoting.broken_frames),
            ("gantry_slow_readers_closed_total", &remoting.slow_readers_closed),
            ("gantry_holders_closed_total", &remoting.holders_closed),
            ("gantry_received_bytes_total", &remoting.bytes_read),
            ("gantry_sent_bytes_total", &remoting.bytes_written),
        ];
        for (name, value) in counters {
            counter!(name, self.common()).absolute(value.load(Ordering::Relaxed));
        }
        let open = remoting.connections.load(Ordering::Relaxed);
        gauge!("gantry_connections", self.common()).set(open as f64);
        let held = self.server.held_bytes();
        gauge!("gantry_connections_held_bytes", self.common()).set(held as f64);
    }
}
