//! Consumer groups: made, changed, deleted, listed, and who is in them.
//! Invariant: a group that is the same on all brokers is listed once.
//! Leaves their offsets to `offsets`.

use std::collections::BTreeMap;

use gantry_model::{GroupConfig, GroupName};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::{
        groups::{ClientConnection, ConsumerConnections, DeleteGroup, GroupRequest},
        heartbeat::{ConsumerGroup, SubscriptionData},
    },
    json::JsonBody,
};

use super::{Admin, AdminError};

/// Members of a group and what they read.
pub type Members = (Vec<ClientConnection>, BTreeMap<String, SubscriptionData>);

impl Admin {
    /// Makes a group on every broker group, or changes it there.
    pub async fn create_group(&self, config: &GroupConfig) -> Result<(), AdminError> {
        let command = Command::request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP)
            .with_body(config.to_json());
        self.tell_all("create the group", &command).await
    }

    /// Deletes a group from every broker group, with its offsets if `clean_offsets`.
    pub async fn delete_group(
        &self,
        group: &GroupName,
        clean_offsets: bool,
    ) -> Result<(), AdminError> {
        let fields = DeleteGroup { group_name: group, clean_offset: Some(clean_offsets) };
        let command = Command::request(RequestCode::DELETE_SUBSCRIPTIONGROUP).with_header(&fields);
        self.tell_all("delete the group", &command).await
    }

    /// Definitions of a group, by broker name. Empty when no broker has it.
    pub async fn group(&self, group: &str) -> Result<Vec<(String, GroupConfig)>, AdminError> {
        let operation = "read the group";
        let command = Command::request(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG)
            .with_header(&GroupRequest { group });
        let mut configs = Vec::new();
        for primary in self.primaries(None).await? {
            match self.get(operation, &primary.address, &command).await {
                Ok(config) => configs.push((primary.broker_name, config)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(configs)
    }

    /// All groups by name, those of the system among them.
    pub async fn groups(&self) -> Result<BTreeMap<String, GroupConfig>, AdminError> {
        let mut groups = BTreeMap::new();
        for primary in self.primaries(None).await? {
            groups.extend(self.groups_of_broker(&primary.address).await?);
        }
        Ok(groups)
    }

    /// Members of a group that are online, and what they read.
    pub async fn group_members(&self, group: &str) -> Result<Members, AdminError> {
        let command = Command::request(RequestCode::GET_CONSUMER_CONNECTION_LIST)
            .with_header(&ConsumerGroup { consumer_group: group });
        let (mut members, mut subscriptions) = (Vec::<ClientConnection>::new(), BTreeMap::new());
        for primary in self.primaries(None).await? {
            let answer: Result<ConsumerConnections, _> =
                self.get("list the members", &primary.address, &command).await;
            match answer {
                Ok(connections) => {
                    members.extend(connections.connection_set);
                    subscriptions.extend(connections.subscription_table);
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
        members.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        members.dedup_by(|a, b| a.client_id == b.client_id);
        Ok((members, subscriptions))
    }
}

/// Whether a broker said that the group is unknown or has nobody online.
fn is_absent(error: &AdminError) -> bool {
    const ABSENT: [ResponseCode; 2] =
        [ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, ResponseCode::CONSUMER_NOT_ONLINE];
    let AdminError::Request { source, .. } = error else { return false };
    source.refusal().is_some_and(|code| ABSENT.contains(&code))
}
