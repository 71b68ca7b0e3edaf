//! What a broker does: typed request in, typed outcome out.
//! Invariant: no protocol types and no sockets; both front doors call the same services.
//! Leaves threads to `upkeep` and the wiring to `broker`.

pub mod attributes;
pub mod backlog;
pub(crate) mod behind;
pub mod changes;
pub mod clock;
pub mod commit;
pub mod compose;
pub mod counters;
pub mod durations;
pub mod figures;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod groups;
pub mod hold;
pub mod jumps;
pub mod lifecycle;
pub mod locks;
pub mod members;
pub mod offsets;
pub mod outbox;
pub mod pull;
pub mod query;
pub mod resets;
pub mod retry;
pub mod send;
pub mod signal;
pub mod stats;
pub mod timers;
pub mod topics;
pub mod waiting;

use std::{net::SocketAddr, sync::Arc};

use gantry_model::{
    NameError,
    settings::{BrokerSettings, MemorySizes},
};
use gantry_record::UniqueIds;
use gantry_store::Store;

use self::{
    backlog::Backlog,
    behind::Behind,
    changes::TopicChanges,
    clock::Clock,
    commit::Commits,
    compose::Stamp,
    counters::Counters,
    figures::Figures,
    groups::Groups,
    hold::Holds,
    lifecycle::Lifecycle,
    locks::QueueLocks,
    members::Members,
    offsets::Offsets,
    outbox::StoreHost,
    pull::Pulls,
    query::Queries,
    resets::Resets,
    send::Sends,
    signal::Signal,
    stats::Stats,
    timers::{TimerSignal, Timers},
    topics::Topics,
};

/// Everything that a broker does, shared by its front doors and its threads.
pub struct Services {
    /// The settings it was started with.
    pub settings: Arc<BrokerSettings>,
    /// The log and its views.
    pub store: Arc<Store>,
    /// The clock.
    pub clock: Clock,
    /// Whether messages are taken.
    pub lifecycle: Arc<Lifecycle>,
    /// Topics.
    pub topics: Arc<Topics>,
    /// Changes of topics on their way to the name servers.
    pub changes: Arc<TopicChanges>,
    /// Consumer groups.
    pub groups: Arc<Groups>,
    /// Who is online.
    pub members: Arc<Members>,
    /// Queue locks of ordered consumers.
    pub locks: Arc<QueueLocks>,
    /// Sends and send-backs.
    pub sends: Sends,
    /// Pulls.
    pub pulls: Pulls,
    /// Look-ups of messages.
    pub queries: Queries,
    /// Reads that wait for a message.
    pub holds: Arc<Holds>,
    /// Consumer offsets and queue bounds.
    pub offsets: Offsets,
    /// Resets that consumers have not seen.
    pub resets: Arc<Resets>,
    /// Sends whose answers wait.
    pub backlog: Arc<Backlog>,
    /// Waiting for the disk.
    pub commits: Arc<Commits>,
    /// The deliverer of delayed messages.
    pub timers: Timers,
    /// Wakes the deliverer.
    pub timer_signal: Arc<TimerSignal>,
    /// Raised after each sync of the log.
    pub synced: Arc<Signal>,
    /// Raised when a sync is due by bytes.
    pub flush_due: Arc<Signal>,
    /// Counts for metrics.
    pub counters: Arc<Counters>,
    /// Rates of what is counted.
    pub stats: Stats,
    /// Rates and totals of the whole broker.
    pub figures: Figures,
    /// Address that clients connect to.
    pub store_host: Arc<StoreHost>,
}

impl Services {
    /// Services on `store`. `address` is the one that clients connect to.
    pub fn new(
        settings: Arc<BrokerSettings>,
        memory: MemorySizes,
        store: Arc<Store>,
        clock: Clock,
        address: SocketAddr,
    ) -> Result<Self, NameError> {
        let changes = Arc::new(TopicChanges::default());
        let lifecycle = Arc::new(Lifecycle::default());
        let counters = Arc::new(Counters::default());
        let members = Arc::new(Members::default());
        let locks = Arc::new(QueueLocks::default());
        let holds = Arc::new(Holds::new(settings.held_pulls_max as usize));
        let store_host = Arc::new(StoreHost::new(address));
        let synced = Arc::new(Signal::default());
        let flush_due = Arc::new(Signal::default());
        let timer_signal = Arc::new(TimerSignal::default());
        let topics =
            Arc::new(Topics::new(Arc::clone(&store), Arc::clone(&settings), Arc::clone(&changes))?);
        let groups = Arc::new(Groups::new(Arc::clone(&store), Arc::clone(&settings)));
        let commits = Arc::new(Commits::new(
            Arc::clone(&store),
            Arc::clone(&synced),
            clock,
            Arc::clone(&lifecycle),
        ));
        let backlog = Arc::new(Backlog::new(memory.waiting_sends.get() as usize));
        let unique_ids = UniqueIds::new(address.ip(), std::process::id(), rand::random());
        let sends = Sends {
            store: Arc::clone(&store),
            clock,
            settings: Arc::clone(&settings),
            lifecycle: Arc::clone(&lifecycle),
            backlog: Arc::clone(&backlog),
            topics: Arc::clone(&topics),
            groups: Arc::clone(&groups),
            locks: Arc::clone(&locks),
            holds: Arc::clone(&holds),
            timers: Arc::clone(&timer_signal),
            flush_due: Arc::clone(&flush_due),
            counters: Arc::clone(&counters),
            stamp: Stamp::new(&settings.cluster_name, unique_ids),
            store_host: Arc::clone(&store_host),
        };
        let resets = Arc::new(Resets::new(Arc::clone(&store), Arc::clone(&holds)));
        let pulls = Pulls {
            store: Arc::clone(&store),
            clock,
            settings: Arc::clone(&settings),
            topics: Arc::clone(&topics),
            groups: Arc::clone(&groups),
            members: Arc::clone(&members),
            counters: Arc::clone(&counters),
            resets: Arc::clone(&resets),
            behind: Behind::new(),
        };
        let queries = Queries { store: Arc::clone(&store) };
        let timers = Timers::new(
            Arc::clone(&store),
            Arc::clone(&topics),
            Arc::clone(&commits),
            Arc::clone(&holds),
            Arc::clone(&counters),
            clock,
            Arc::clone(&timer_signal),
        );
        let figures = Figures::new(Arc::clone(&counters), clock.now());
        let stats = Stats::new(Arc::clone(&counters), &settings.cluster_name, clock.now());
        let offsets = Offsets::new(
            Arc::clone(&store),
            Arc::clone(&topics),
            Arc::clone(&groups),
            Arc::clone(&resets),
        );
        Ok(Self {
            settings,
            store,
            clock,
            lifecycle,
            topics,
            changes,
            groups,
            members,
            locks,
            sends,
            pulls,
            queries,
            holds,
            offsets,
            resets,
            backlog,
            commits,
            timers,
            timer_signal,
            synced,
            flush_due,
            counters,
            stats,
            figures,
            store_host,
        })
    }
}
