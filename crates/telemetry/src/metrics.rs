//! The process's one metrics recorder and the buckets of its histograms.
//! Invariant: there is one recorder for each process, whoever asks first.
//! Leaves names and labels to the components; RocketMQ's own names keep RocketMQ's buckets.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Why there is no recorder.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecorderError {
    /// Some other library already records the metrics of this process.
    #[error("the process already has a metrics recorder")]
    Taken,
    /// A bucket list is refused, which only a mistake in this file can cause.
    #[error("build the metrics recorder: {0}")]
    Build(String),
}

/// Buckets by the end of a metric's name: seconds, for whatever is measured in them.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
/// Buckets of RocketMQ's own histograms (RocketMQ 5 metrics, in the unit of each).
const ROCKETMQ: &[(&str, &[f64])] = &[
    ("rocketmq_message_size", &[KIB, 4.0 * KIB, 512.0 * KIB, MIB, 2.0 * MIB, 4.0 * MIB]),
    ("rocketmq_topic_create_execution_time", &[10.0, 100.0, 1_000.0, 3_000.0, 5_000.0]),
    ("rocketmq_consumer_group_create_execution_time", &[10.0, 100.0, 1_000.0, 3_000.0, 5_000.0]),
    ("rocketmq_finish_message_latency", &[5.0, 60.0, 600.0, 3_600.0, 43_200.0, 86_400.0]),
    ("rocketmq_rpc_latency", &[1.0, 3.0, 5.0, 7.0, 10.0, 100.0, 1_000.0, 2_000.0, 3_000.0]),
    ("rocketmq_delay_message_latency", &[60.0, 600.0, 3_600.0, 43_200.0, 86_400.0, 259_200.0]),
];

/// Reads what the `metrics` macros recorded.
#[derive(Clone)]
pub(crate) struct Recorder(PrometheusHandle);

static OF_PROCESS: OnceLock<Result<PrometheusHandle, RecorderError>> = OnceLock::new();

impl Recorder {
    pub(crate) fn of_process() -> Result<Self, RecorderError> {
        OF_PROCESS.get_or_init(install).clone().map(Self)
    }

    pub(crate) fn render(&self) -> String {
        self.0.render()
    }

    /// Moves recorded samples into their buckets: without it they pile up between scrapes.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

fn install() -> Result<PrometheusHandle, RecorderError> {
    let recorder = builder().map_err(|e| RecorderError::Build(e.to_string()))?.build_recorder();
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|_| RecorderError::Taken)?;
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    let seconds = Matcher::Suffix("_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, SECONDS)?;
    ROCKETMQ.iter().try_fold(builder, |builder, (name, buckets)| {
        builder.set_buckets_for_metric(Matcher::Full((*name).into()), buckets)
    })
}
