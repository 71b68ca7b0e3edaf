//! What the commands of `gantry bench` are asked for.
//! Invariant: numbers that nothing could run with are refused here.
//! Leaves what is done with them to the commands.

use std::time::Duration;

use clap::Args;

use super::measure::Window;

/// How long to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct WindowArgs {
    /// Time that is measured.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) duration: Duration,
    /// Load before that.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,
}

impl WindowArgs {
    pub(super) fn window(&self) -> Window {
        Window { warm_up: self.warm_up, duration: self.duration }
    }
}

/// What to send.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Topic; it is created when missing.
    #[arg(long, default_value = "gantry-bench")]
    pub(super) topic: String,
    /// Queues of the topic.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) queues: u32,
    /// Topics used in turn, named TOPIC-000000, TOPIC-000001 and so on; 1 uses TOPIC itself.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) topics: u32,
    /// Bytes of each body.
    #[arg(long, default_value_t = 1024)]
    pub(super) body_bytes: usize,
    /// Messages of one request: more than one are sent as a batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "rate")]
    pub(super) batch: u32,
    /// Tags used in turn; none with 0.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(super) tags: u32,
    /// Connections, each with a thread of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) connections: u32,
    /// Requests in flight on each connection, without --rate.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) in_flight: u32,
    /// Messages a second, all connections together.
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// End after so many messages.
    #[arg(long)]
    pub(super) count: Option<u64>,
    /// Leave out `KEYS` and `UNIQ_KEY`.
    #[arg(long)]
    pub(super) no_keys: bool,
    /// Process whose CPU time, memory and system calls are measured.
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    #[command(flatten)]
    pub(super) window: WindowArgs,
}

/// What to read.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConsumeArgs {
    /// Topic.
    #[arg(long, default_value = "gantry-bench")]
    pub(super) topic: String,
    /// Consumer group.
    #[arg(long, default_value = "gantry-bench")]
    pub(super) group: String,
    /// Connections; the queues are shared out among them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) connections: u32,
    /// Subscription expression.
    #[arg(long, default_value = "*")]
    pub(super) tag: String,
    /// Whether offsets are committed on the way.
    #[arg(long)]
    pub(super) commit: bool,
    /// Count what the server looked at, not only what matched the expression.
    #[arg(long)]
    pub(super) scanned: bool,
    /// End after so many messages.
    #[arg(long)]
    pub(super) count: Option<u64>,
    /// Process whose CPU time, memory and system calls are measured.
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    #[command(flatten)]
    pub(super) window: WindowArgs,
}

/// What to compare with.
#[derive(Debug, Clone, Args)]
pub(crate) struct EchoArgs {
    /// Core on which the other side runs.
    #[arg(long, default_value_t = 0)]
    pub(super) server_core: u32,
    /// Round trips a second; without it, one after the other.
    #[arg(long)]
    pub(super) rate: Option<f64>,
    #[command(flatten)]
    pub(super) window: WindowArgs,
}
