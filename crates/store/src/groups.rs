//! Consumer groups: the table in memory, changed as soon as a definition is appended.
//! Invariant: the version counts every change and never goes back.
//! Leaves the record to `state`, offsets to `offsets` and members to the broker.

use std::{collections::BTreeMap, sync::Arc};

use gantry_model::{GroupConfig, GroupName};

use crate::topics::DataVersion;

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct GroupTable {
    by_name: BTreeMap<GroupName, Arc<GroupConfig>>,
    version: DataVersion,
}

impl GroupTable {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<GroupConfig>> {
        self.by_name.get(name)
    }

    /// Sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<GroupConfig>> {
        self.by_name.values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn version(&self) -> DataVersion {
        self.version
    }

    pub(crate) fn put(&mut self, config: GroupConfig, version: DataVersion) -> Arc<GroupConfig> {
        let config = Arc::new(config);
        self.by_name.insert(config.group_name.clone(), Arc::clone(&config));
        self.note_version(version);
        config
    }

    pub(crate) fn remove(&mut self, name: &str, version: DataVersion) {
        self.by_name.remove(name);
        self.note_version(version);
    }

    pub(crate) fn note_version(&mut self, version: DataVersion) {
        self.version = self.version.newer(version);
    }
}
