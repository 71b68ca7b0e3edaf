//! Consumer groups as administrators see them: request codes 200, 201, 207, 225, 352.
//! Invariant: a change is answered when it is confirmed; of a list with a fault nothing is stored.
//! Leaves the rules to the services. Source: RocketMQ remoting, request codes 200, 201, 207, 225, 352.

use gantry_model::GroupConfig;
use gantry_remoting::{
    RequestCode, ResponseCode,
    command::groups::{
        AllGroupsAnswer, AllGroupsRequest, DeleteGroup, GroupConfigs, GroupRequest, GroupTable,
    },
    json::JsonBody,
};
use gantry_store::Ticket;

use super::{
    super::{Call, versions},
    Refusal, end_with, parts,
};
use crate::services::groups::GroupError;

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(call: &mut Call<'_, '_>) -> bool {
    match call.view.request_code() {
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => {
            let group = read::<GroupConfig>(call.body);
            let changed = group.and_then(|group| put(call, vec![group]));
            confirmed(call, changed);
        }
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
            let groups = read::<GroupConfigs>(call.body);
            let changed = groups.and_then(|groups| put(call, groups.group_config_list));
            confirmed(call, changed);
        }
        RequestCode::DELETE_SUBSCRIPTIONGROUP => {
            let changed = delete(call);
            confirmed(call, changed);
        }
        RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG => {
            let group = find(call);
            end_with(call, group);
        }
        RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => {
            if let Err(refusal) = all(call) {
                call.refuse(&refusal);
            }
        }
        _ => return false,
    }
    true
}

fn confirmed(call: &mut Call<'_, '_>, changed: Result<Option<Ticket>, Refusal>) {
    match changed {
        Ok(Some(ticket)) => call.confirmed(ticket, || ()),
        Ok(None) => call.success(),
        Err(refusal) => call.refuse(&refusal),
    }
}

/// Names are checked while a body is read, so a body that cannot be read is a bad parameter.
fn read<T: JsonBody>(body: &[u8]) -> Result<T, Refusal> {
    T::from_json(body).map_err(|error| Refusal::of(ResponseCode::INVALID_PARAMETER, &error))
}

/// Carries out 200 and 225.
fn put(call: &Call<'_, '_>, groups: Vec<GroupConfig>) -> Result<Option<Ticket>, Refusal> {
    let mut last = None;
    for group in groups {
        last = Some(call.services().groups.put(group, call.now)?.1);
    }
    Ok(last)
}

/// Carries out 207; a group that is not there is as good as deleted.
fn delete(call: &Call<'_, '_>) -> Result<Option<Ticket>, Refusal> {
    let DeleteGroup { group_name, clean_offset } = call.view.fields()?;
    let clean = clean_offset.unwrap_or(false);
    Ok(call.services().groups.delete(group_name, clean, call.now)?)
}

/// Answers 352.
fn find(call: &Call<'_, '_>) -> Result<GroupConfig, Refusal> {
    let GroupRequest { group } = call.view.fields()?;
    let found = call.services().groups.get(group);
    let found = found.ok_or_else(|| GroupError::Unknown { group: group.into() })?;
    Ok(GroupConfig::clone(&found))
}

/// Answers 201 with the whole table, or with the part of it that is asked for.
fn all(call: &mut Call<'_, '_>) -> Result<(), Refusal> {
    let AllGroupsRequest { group_seq, data_version, max_groups } = call.view.fields()?;
    let services = call.services();
    let version = versions::to_protocol(services.store.groups_version());
    let groups = services.groups.all();
    let wanted = parts::Wanted { first: group_seq, version: data_version, entries_max: max_groups };
    let part = wanted.of(groups.len(), version);
    let entry = |group: &std::sync::Arc<GroupConfig>| {
        (group.group_name.to_string(), GroupConfig::clone(group))
    };
    let table = GroupTable {
        data_version: version,
        subscription_group_table: groups[part].iter().map(entry).collect(),
        ..GroupTable::default()
    };
    let header = AllGroupsAnswer { total_groups: u32::try_from(groups.len()).ok() };
    let body = table.to_json();
    call.answers.begin(call.view.reply_to(), ResponseCode::SUCCESS).header(&header).body(&body);
    Ok(())
}
