//! Consumer groups: who may make, change and delete which, and how one comes to be by its first use.
//! Invariant: the groups that every broker has cannot be deleted.
//! Leaves definitions and offsets to the store, and members to `members`.

use std::sync::Arc;

use gantry_model::{GroupConfig, GroupName, NameError, is_system_group, settings::BrokerSettings};
use gantry_store::{AppendError, Now, Store, Ticket};

/// Groups that a broker has from the start.
const PREDEFINED: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// Why a group was not made, changed, deleted or found.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The name cannot be a group's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The group is the broker's own.
    #[error("the group {group} belongs to the broker")]
    System {
        /// Its name.
        group: GroupName,
    },
    /// There is no such group, and it may not be made.
    #[error("subscription group [{group}] does not exist")]
    Unknown {
        /// The name asked for.
        group: String,
    },
    /// The definition could not be stored.
    #[error("store the definition of group {group}")]
    Append {
        /// Its name.
        group: GroupName,
        /// The cause.
        source: AppendError,
    },
}

/// Consumer groups of a broker.
pub struct Groups {
    store: Arc<Store>,
    settings: Arc<BrokerSettings>,
}

impl Groups {
    /// Groups in `store`.
    pub fn new(store: Arc<Store>, settings: Arc<BrokerSettings>) -> Self {
        Self { store, settings }
    }

    /// The group of that name.
    pub fn get(&self, name: &str) -> Option<Arc<GroupConfig>> {
        self.store.group(name)
    }

    /// All groups, sorted by name.
    pub fn all(&self) -> Vec<Arc<GroupConfig>> {
        self.store.groups()
    }

    /// The group of that name, made with defaults if that is allowed.
    pub fn for_use(&self, name: &str, now: Now) -> Result<Arc<GroupConfig>, GroupError> {
        if let Some(group) = self.get(name) {
            return Ok(group);
        }
        let group = GroupName::new(name)?;
        if !self.settings.auto_create_groups && !is_system_group(name) {
            return Err(GroupError::Unknown { group: name.into() });
        }
        Ok(self.put(GroupConfig::new(group), now)?.0)
    }

    /// Makes or changes a group. An equal definition changes nothing.
    pub fn put(
        &self,
        config: GroupConfig,
        now: Now,
    ) -> Result<(Arc<GroupConfig>, Ticket), GroupError> {
        let group = config.group_name.clone();
        self.store.put_group(config, now).map_err(|source| GroupError::Append { group, source })
    }

    /// Deletes a group, its offsets too if asked; `None`: there was none.
    pub fn delete(
        &self,
        name: &str,
        clean_offsets: bool,
        now: Now,
    ) -> Result<Option<Ticket>, GroupError> {
        let group = GroupName::new(name)?;
        if is_system_group(name) {
            return Err(GroupError::System { group });
        }
        self.store
            .delete_group(name, clean_offsets, now)
            .map_err(|source| GroupError::Append { group, source })
    }

    /// Makes the groups that a broker has from the start.
    pub fn make_own(&self, now: Now) -> Result<(), GroupError> {
        for name in PREDEFINED {
            if self.get(name).is_none() {
                self.put(GroupConfig::new(GroupName::new(name)?), now)?;
            }
        }
        Ok(())
    }
}
