//! The cluster that most tests put on their stage: named `shop`, small, and asked for as a user would.
//! Invariant: every wait for it is for its conditions, which the operator writes.

use anyhow::Result;
use gantry_resources::{BrokerCluster, Topic};

use crate::{Program, Stage};

/// A cluster of so many groups, each small enough that several fit on a laptop.
pub fn cluster(groups: u32) -> String {
    format!(
        "apiVersion: gantry.dev/v1alpha1
kind: BrokerCluster
metadata: {{ name: shop }}
spec:
  groups: {groups}
  storage: {{ size: 1Gi }}
  resources: {{ requests: {{ cpu: 50m, memory: 128Mi }}, limits: {{ memory: 384Mi }} }}
"
    )
}

/// A topic of that cluster.
pub fn topic(name: &str, queues: u32) -> String {
    format!(
        "apiVersion: gantry.dev/v1alpha1
kind: Topic
metadata: {{ name: {name} }}
spec: {{ clusterRef: {{ name: shop }}, queues: {queues} }}
"
    )
}

impl Stage {
    /// Address of the cluster's name server.
    pub fn nameserver(&self) -> String {
        format!("{}:9876", self.host("shop-ns"))
    }

    /// Applies a cluster of so many groups with these topics, and waits until all serve.
    ///
    /// # Errors
    /// When one does not become ready.
    pub async fn shop(&self, groups: u32, topics: &[&str]) -> Result<()> {
        self.apply(&cluster(groups)).await?;
        for name in topics {
            self.apply(&topic(name, 8)).await?;
        }
        self.ready::<BrokerCluster>("shop", "True").await?;
        for name in topics {
            self.ready::<Topic>(name, "True").await?;
        }
        Ok(())
    }

    /// A class of `tests/java` as a client of that version and of this cluster.
    pub fn workload(&self, version: &str, args: &[&str]) -> Program {
        let nameserver = self.nameserver();
        let args: Vec<_> =
            std::iter::once(nameserver.as_str()).chain(args.iter().copied()).collect();
        Program::java(version, "Workload", &args)
    }

    /// The command line as a client of this cluster.
    pub fn gantry(&self, args: &[&str]) -> Program {
        Program::gantry(&self.nameserver(), args)
    }
}
