//! `gantry cluster`: list, broker-status.
//! Invariant: a broker that does not answer is shown as such and hides no other.
//! Leaves the meaning of the brokers' own figures to them.

use std::collections::BTreeMap;

use clap::Subcommand;
use gantry_client::{Admin, Cause};
use serde::Serialize;

use crate::{context::Context, exit::Failure, output::Table};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// List clusters and brokers.
    List,
    /// Show the state of one broker, or of all.
    BrokerStatus {
        /// Name of the broker group.
        broker: Option<String>,
    },
}

pub(crate) async fn run(command: ClusterCommand, context: &Context) -> anyhow::Result<()> {
    match command {
        ClusterCommand::List => list(context).await,
        ClusterCommand::BrokerStatus { broker } => status(context, broker.as_deref()).await,
    }
}

#[derive(Serialize)]
struct BrokerRow {
    cluster: String,
    broker: String,
    id: u64,
    address: String,
    online: bool,
    version: Option<String>,
    /// Messages put in the last second window that the broker gives, per second.
    put_tps: Option<f64>,
    get_tps: Option<f64>,
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let rows = context
        .with_admin(async |admin| {
            let info = admin.cluster_info().await?;
            let mut rows = Vec::new();
            for group in info.broker_addr_table.into_values() {
                for (id, address) in group.broker_addrs {
                    let names = (group.cluster.clone(), group.broker_name.clone());
                    rows.push(row(admin, names, id, address).await?);
                }
            }
            Ok(rows)
        })
        .await?;
    context.format.print(&rows, |rows| {
        let mut table = Table::new([
            "CLUSTER", "BROKER", "ID", "ADDRESS", "ONLINE", "VERSION", "IN/S", "OUT/S",
        ]);
        for row in rows {
            let rate = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{rate:.1}"));
            table.row([
                row.cluster.clone(),
                row.broker.clone(),
                row.id.to_string(),
                row.address.clone(),
                row.online.to_string(),
                row.version.clone().unwrap_or_else(|| "-".into()),
                rate(row.put_tps),
                rate(row.get_tps),
            ]);
        }
        table
    })
}

async fn row(
    admin: &Admin,
    (cluster, broker): (String, String),
    id: u64,
    address: String,
) -> anyhow::Result<BrokerRow> {
    let state = match admin.runtime_info(&address).await {
        Ok(state) => Some(state),
        Err(error) if Cause::of(&error) == Some(Cause::Unreachable) => None,
        // It answers, and keeps its state to itself.
        Err(error) if Cause::of(&error) == Some(Cause::Refused) => Some(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let value = |key: &str| state.as_ref().and_then(|state| state.get(key));
    // Three windows separated by spaces; the first is the shortest.
    let rate = |key: &str| value(key)?.split(' ').next()?.parse().ok();
    Ok(BrokerRow {
        version: value("brokerVersionDesc").cloned(),
        put_tps: rate("putTps"),
        get_tps: rate("getTransferredTps"),
        online: state.is_some(),
        cluster,
        broker,
        id,
        address,
    })
}

async fn status(context: &Context, broker: Option<&str>) -> anyhow::Result<()> {
    let states = context
        .with_admin(async |admin| {
            let mut states = BTreeMap::new();
            let primaries = admin.primaries(None).await?;
            let wanted = |name: &str| broker.is_none_or(|broker| broker == name);
            for primary in primaries.iter().filter(|primary| wanted(&primary.broker_name)) {
                let state = admin.runtime_info(&primary.address).await?;
                states.insert(primary.broker_name.clone(), state);
            }
            Ok(states)
        })
        .await?;
    if let (true, Some(broker)) = (states.is_empty(), broker) {
        return Err(Failure::not_found(format!("broker {broker} is not registered")));
    }
    context.format.print(&states, |states| {
        let mut table = Table::new(["BROKER", "KEY", "VALUE"]);
        for (broker, state) in states {
            for (key, value) in state {
                table.row([broker.clone(), key.clone(), value.clone()]);
            }
        }
        table
    })
}
