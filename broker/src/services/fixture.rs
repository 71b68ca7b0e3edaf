//! Services for the tests of this crate, without threads and without front doors.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use gantry_model::{
    PhysicalOffset, QueueId,
    properties::KEYS,
    settings::{BrokerSettings, Bytes, MemoryLimit},
};
use gantry_record::{Draft, properties};
use gantry_store::{Batch, Index, KeySource, Store, StoreOptions, Topic};

use super::{Services, clock::Clock};

/// Where they say that they are; nobody listens there.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Services on a store in `dir`.
pub(crate) fn services_with(dir: &Path, change: impl FnOnce(&mut StoreOptions)) -> Services {
    let mut options = StoreOptions { segment_bytes: 1 << 20, ..StoreOptions::new(dir) };
    change(&mut options);
    let clock = Clock::new();
    let (store, _) = Store::open(options, clock.now()).unwrap();
    services_on(store, clock)
}

/// Services as a start finds them on a store that is open.
pub(crate) fn services_on(store: Arc<Store>, clock: Clock) -> Services {
    let settings = BrokerSettings::default();
    let memory = settings.memory_sizes(&MemoryLimit::Setting(Bytes::gib(1))).unwrap();
    Services::new(Arc::new(settings), memory, store, clock, ADDRESS).unwrap()
}

/// Appends a message with these properties and syncs it.
pub(crate) fn store_message(
    services: &Services,
    topic: &Arc<Topic>,
    entries: &[(&str, &str)],
    timer_due_ms: Option<u64>,
) -> PhysicalOffset {
    let mut raw = Vec::new();
    for (key, value) in entries {
        properties::put(&mut raw, key, value).unwrap();
    }
    let draft = Draft {
        topic: topic.name(),
        queue: QueueId(0),
        flag: 0,
        sys_flag: 0,
        born_time_ms: 0,
        born_host: ADDRESS,
        store_host: ADDRESS,
        reconsume_times: 0,
        prepared_offset: 0,
        body: b"body",
        properties: &raw,
    };
    let keys = entries.iter().find(|(key, _)| *key == KEYS).map(|(_, words)| *words);
    let keys = KeySource { unique: None, keys };
    let mut batch = Batch::new();
    batch.push(topic, &draft, Index { keys, timer_due_ms, ..Index::default() }).unwrap();
    services.store.append(&mut batch, services.clock.now()).unwrap();
    services.store.sync().unwrap();
    batch.placed(0).position
}
