//! Services for the tests of this crate, without threads and without front doors.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use gantry_model::settings::{BrokerSettings, Bytes, MemoryLimit};
use gantry_store::{Store, StoreOptions};

use super::{Services, clock::Clock};

/// Where they say that they are; nobody listens there.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Services on a store in `dir`.
pub(crate) fn services_with(dir: &Path, change: impl FnOnce(&mut StoreOptions)) -> Services {
    let settings = BrokerSettings { data_dir: dir.to_owned(), ..BrokerSettings::default() };
    let memory = settings.memory_sizes(&MemoryLimit::Setting(Bytes::gib(1))).unwrap();
    let mut options = StoreOptions { segment_bytes: 1 << 20, ..StoreOptions::new(dir) };
    change(&mut options);
    let clock = Clock::new();
    let (store, _) = Store::open(options, clock.now()).unwrap();
    Services::new(Arc::new(settings), memory, store, clock, ADDRESS).unwrap()
}
