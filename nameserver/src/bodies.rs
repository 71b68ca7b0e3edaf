//! Bodies of answers, in the name server's forms of RocketMQ's JSON.
//! Invariant: text is compact and keys ascend, for there are clients that take routes apart as text.
//! Leaves which form a client gets to the service.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_remoting::json::{to_ascii_json, to_json, to_legacy_json};
use serde::Serialize;

use crate::{
    kv,
    routes::{Group, Queues, RouteTable},
};

/// Form of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteForm {
    /// Broker ids as keys without quotes, which is no JSON; for clients before 4.9.4, and Go.
    Legacy,
    /// JSON of ASCII characters.
    Standard,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BrokerData<'t> {
    broker_addrs: &'t BTreeMap<u64, String>,
    broker_name: &'t str,
    cluster: &'t str,
    enable_acting_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_name: Option<&'t str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueData<'t> {
    broker_name: &'t str,
    perm: u32,
    read_queue_nums: u32,
    topic_sys_flag: u32,
    write_queue_nums: u32,
}

#[derive(Serialize)]
struct NoServers {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteData<'t> {
    broker_datas: Vec<BrokerData<'t>>,
    /// Filter servers ended with RocketMQ 4; clients still expect the key.
    filter_server_table: NoServers,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_topic_conf: Option<&'t str>,
    queue_datas: Vec<QueueData<'t>>,
}

fn broker_data<'t>(broker_name: &'t str, group: &'t Group) -> BrokerData<'t> {
    BrokerData {
        broker_addrs: &group.addrs,
        broker_name,
        cluster: &group.cluster,
        enable_acting_master: group.acting_master,
        zone_name: group.zone.as_deref(),
    }
}

/// Route of a topic (RocketMQ remoting, request code 105).
pub fn route<'t>(
    entries: impl Iterator<Item = (&'t str, &'t Group, &'t Queues)>,
    order_topic_conf: Option<&'t str>,
    form: RouteForm,
) -> Bytes {
    let (broker_datas, queue_datas) = entries
        .map(|(name, group, queues)| {
            let queues = QueueData {
                broker_name: name,
                perm: queues.perm.0,
                read_queue_nums: queues.read_queues,
                topic_sys_flag: queues.sys_flag,
                write_queue_nums: queues.write_queues,
            };
            (broker_data(name, group), queues)
        })
        .unzip();
    let data = RouteData {
        broker_datas,
        filter_server_table: NoServers {},
        order_topic_conf,
        queue_datas,
    };
    match form {
        RouteForm::Legacy => to_legacy_json(&data),
        RouteForm::Standard => to_ascii_json(&data),
    }
}

/// All broker groups and clusters (request code 106); always in the legacy form.
pub fn cluster_info(routes: &RouteTable) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ClusterInfo<'t> {
        broker_addr_table: BTreeMap<&'t str, BrokerData<'t>>,
        cluster_addr_table: BTreeMap<&'t str, Vec<&'t str>>,
    }
    let mut cluster_addr_table = BTreeMap::<_, Vec<_>>::new();
    for (name, group) in routes.groups() {
        cluster_addr_table.entry(group.cluster.as_str()).or_default().push(name);
    }
    let groups = routes.groups().map(|(name, group)| (name, broker_data(name, group)));
    to_legacy_json(&ClusterInfo { broker_addr_table: groups.collect(), cluster_addr_table })
}

/// Members of one broker group (request code 901); always in the legacy form.
pub fn member_group(cluster: &str, broker: &str, group: Option<&Group>) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Members<'t> {
        broker_addrs: &'t BTreeMap<u64, String>,
        broker_name: &'t str,
        cluster: &'t str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct MemberGroup<'t> {
        broker_member_group: Members<'t>,
    }
    let nobody = BTreeMap::new();
    let broker_addrs =
        group.filter(|group| group.cluster == cluster).map_or(&nobody, |group| &group.addrs);
    let broker_member_group = Members { broker_addrs, broker_name: broker, cluster };
    to_legacy_json(&MemberGroup { broker_member_group })
}

/// A list of topics (request codes 206, 224, 304, 311 to 313), in alphabetical order.
pub fn topic_list<'t>(
    topics: impl Iterator<Item = &'t str>,
    broker_addr: Option<&'t str>,
) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct TopicList<'t> {
        #[serde(skip_serializing_if = "Option::is_none")]
        broker_addr: Option<&'t str>,
        topic_list: Vec<&'t str>,
    }
    let mut topic_list: Vec<_> = topics.collect();
    topic_list.sort_unstable();
    topic_list.dedup();
    to_json(&TopicList { broker_addr, topic_list })
}

/// Keys and values of a namespace (request code 219, and the answer to a registration).
pub fn kv_table(table: &kv::Table) -> Bytes {
    #[derive(Serialize)]
    struct KvTable<'t> {
        table: &'t kv::Table,
    }
    to_json(&KvTable { table })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::Permission;

    fn group() -> Group {
        let addrs = [(0, "10.0.0.1:10911".into()), (1, "10.0.0.2:10911".into())].into();
        Group { cluster: "DefaultCluster".into(), addrs, acting_master: false, zone: None }
    }

    const QUEUES: Queues =
        Queues { perm: Permission::READ_WRITE, read_queues: 8, sys_flag: 0, write_queues: 8 };

    fn route_text(form: RouteForm) -> String {
        let group = group();
        let entries = [("broker-a", &group, &QUEUES)];
        String::from_utf8(route(entries.into_iter(), None, form).to_vec()).unwrap()
    }

    #[test]
    fn route_has_the_bytes_of_the_reference_in_both_forms() {
        assert_eq!(
            route_text(RouteForm::Legacy),
            r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#
        );
        assert_eq!(
            route_text(RouteForm::Standard),
            r#"{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#
        );
    }

    #[test]
    fn ordered_topic_and_zone_stand_where_keys_ascend() {
        let group = Group { zone: Some("z1".into()), ..group() };
        let entries = [("broker-a", &group, &QUEUES)];
        let body = route(entries.into_iter(), Some("broker-a:4"), RouteForm::Standard);
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.contains(r#""enableActingMaster":false,"zoneName":"z1"}"#), "{text}");
        assert!(
            text.contains(r#""filterServerTable":{},"orderTopicConf":"broker-a:4","queueDatas""#),
            "{text}"
        );
    }

    #[test]
    fn member_group_and_lists_have_the_bytes_of_the_reference() {
        let one = Group {
            cluster: "c".into(),
            addrs: [(0, "1.1.1.1:10911".into())].into(),
            acting_master: false,
            zone: None,
        };
        assert_eq!(
            member_group("c", "b", Some(&one)),
            r#"{"brokerMemberGroup":{"brokerAddrs":{0:"1.1.1.1:10911"},"brokerName":"b","cluster":"c"}}"#
        );
        assert_eq!(topic_list(["T1"].into_iter(), None), r#"{"topicList":["T1"]}"#);
        assert_eq!(
            topic_list(["T1"].into_iter(), Some("1.1.1.1:10911")),
            r#"{"brokerAddr":"1.1.1.1:10911","topicList":["T1"]}"#
        );
        assert_eq!(kv_table(&[("k".to_owned(), "v".to_owned())].into()), r#"{"table":{"k":"v"}}"#);
    }
}
