//! The status of a cluster.
//! Invariant: the same cluster gives the same status: no ages, no counts of retries.
//! Pure; leaves writing to `status`.

use gantry_resources::{BrokerCluster, BrokerClusterStatus, BrokerStatus, Endpoints};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{
    names,
    observe::{Life, Observed, Registration, Server},
    roll::Step,
};
use crate::{
    conditions::{Reason, Wanted, conditions},
    labels::Component,
};

/// What a pass found out.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The cluster was brought as far as it goes.
    Converged {
        /// What runs.
        observed: Observed,
        /// What is replaced next.
        step: Step,
        /// Volumes that cannot grow, with the reason.
        refused_volumes: Vec<String>,
    },
    /// The pass stopped: the reason is a condition.
    Stopped(Wanted),
}

/// The status after a pass.
pub(super) fn status(
    cluster: &BrokerCluster,
    outcome: &Outcome,
    now: Timestamp,
) -> BrokerClusterStatus {
    let before = cluster.status.clone().unwrap_or_default();
    let generation = cluster.metadata.generation;
    match outcome {
        Outcome::Stopped(wanted) => {
            // What runs goes on running as it was last seen.
            let kept = before.conditions.iter().filter(|old| old.type_ != "Ready").cloned();
            let ready =
                conditions(&before.conditions, std::slice::from_ref(wanted), generation, now);
            BrokerClusterStatus {
                observed_generation: generation,
                conditions: ready.into_iter().chain(kept).collect(),
                ..before
            }
        }
        Outcome::Converged { observed, step, refused_volumes } => {
            let brokers = brokers(cluster, observed, &before);
            let groups = serving(cluster, observed, &before);
            let wanted = [ready(cluster, observed, groups, refused_volumes), rolling(step)];
            BrokerClusterStatus {
                observed_generation: generation,
                groups,
                endpoints: Some(endpoints(cluster, observed)),
                brokers,
                conditions: conditions(&before.conditions, &wanted, generation, now),
            }
        }
    }
}

/// Whether a broker is registered; as it was last seen, while no name server answers.
fn is_registered(server: &Server, before: &BrokerClusterStatus) -> bool {
    match server.registration {
        Registration::Known | Registration::Needless => true,
        Registration::Missing => false,
        Registration::Unknown => {
            before.brokers.iter().any(|broker| broker.name == server.pod && broker.registered)
        }
    }
}

fn serves(server: &Server, before: &BrokerClusterStatus) -> bool {
    server.life == Life::Ready && is_registered(server, before)
}

/// Groups of which a broker serves.
fn serving(cluster: &BrokerCluster, observed: &Observed, before: &BrokerClusterStatus) -> i32 {
    let serves_group = |group: &i32| {
        let mut brokers = brokers_of(observed).filter(|server| server.group == *group);
        brokers.any(|server| serves(server, before))
    };
    (0..cluster.spec.groups).filter(serves_group).count() as i32
}

fn brokers_of(observed: &Observed) -> impl Iterator<Item = &Server> {
    observed.servers.iter().filter(|server| server.component == Component::Broker)
}

fn brokers(
    cluster: &BrokerCluster,
    observed: &Observed,
    before: &BrokerClusterStatus,
) -> Vec<BrokerStatus> {
    let status = |server: &Server| {
        let last = before.brokers.iter().find(|broker| broker.name == server.pod);
        let last_address = last.and_then(|broker| broker.address.clone());
        BrokerStatus {
            name: server.pod.clone(),
            broker_name: names::broker_name(&cluster.name_any(), server.group),
            ready: server.life == Life::Ready,
            registered: is_registered(server, before),
            address: match server.registration {
                Registration::Unknown => last_address,
                _ => server.address.clone(),
            },
            image: server.image.clone(),
        }
    };
    brokers_of(observed).map(status).collect()
}

fn ready(
    cluster: &BrokerCluster,
    observed: &Observed,
    groups: i32,
    refused_volumes: &[String],
) -> Wanted {
    let wanted = cluster.spec.groups;
    let served = format!(
        "{groups} of {wanted} {}",
        if wanted == 1 { "group serves" } else { "groups serve" }
    );
    let failing: Vec<String> = observed
        .servers
        .iter()
        .filter_map(|server| Some(format!("pod {} {}", server.pod, server.failing.as_ref()?)))
        .collect();
    if !failing.is_empty() {
        return Reason::PodFailing.because(failing.join("; "));
    }
    // Only what is not ready is waited for here: registrations come after it.
    let waits = observed.servers.iter().find(|server| server.life != Life::Ready);
    if let Some(why) = waits.and_then(Server::unavailable) {
        return Reason::Starting.because(format!("{served}; {why}"));
    }
    if let Some(error) = &observed.registry_error {
        return Reason::BrokersUnreachable.because(format!("name servers: {error}"));
    }
    if let Some(why) = observed.servers.iter().find_map(Server::unavailable) {
        return Reason::Starting.because(format!("{served}; {why}"));
    }
    match refused_volumes {
        [] => Reason::AsDeclared.because(served),
        refused => Reason::VolumeCannotGrow.because(refused.join("; ")),
    }
}

fn rolling(step: &Step) -> Wanted {
    match step {
        Step::UpToDate => Reason::UpToDate.because(""),
        Step::Wait(why) => Reason::Replacing.because(why),
        Step::Replace { pod, .. } => Reason::Replacing.because(format!("pod {pod} stops")),
        Step::Halt(why) => Reason::Halted.because(why),
    }
}

fn endpoints(cluster: &BrokerCluster, observed: &Observed) -> Endpoints {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let address = |service: &str, port: i32| format!("{}:{port}", names::host(service, &namespace));
    let name_servers = address(&names::name_servers(&name), names::NAME_SERVER_PORT);
    Endpoints {
        name_servers_ip: observed.name_server_ip.clone(),
        name_servers_http: Some(format!("http://{name_servers}")),
        grpc: Some(address(&names::group(&name, 0), names::GRPC_PORT)),
        name_servers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker_cluster::fixture;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn broker(group: i32, registration: Registration) -> Server {
        Server {
            pod: format!("shop-broker-{group}-0"),
            component: Component::Broker,
            group,
            uid: Some("uid".into()),
            life: Life::Ready,
            registration,
            ..Server::default()
        }
    }

    fn converged(servers: Vec<Server>, step: Step) -> Outcome {
        let observed = Observed {
            servers,
            settled: true,
            name_server_ip: Some("10.0.0.1:9876".into()),
            ..Observed::default()
        };
        Outcome::Converged { observed, step, refused_volumes: Vec::new() }
    }

    fn two_groups() -> BrokerCluster {
        fixture::cluster("{groups: 2, storage: {size: 10Gi}}")
    }

    #[test]
    fn groups_that_serve_are_counted_and_endpoints_are_ready_to_paste() {
        let servers = vec![broker(0, Registration::Known), broker(1, Registration::Missing)];
        let status = status(&two_groups(), &converged(servers, Step::UpToDate), at(1));
        assert_eq!(status.groups, 1);
        assert_eq!(status.conditions[0].reason, "Starting");
        assert_eq!(
            status.conditions[0].message,
            "not every part serves yet: 1 of 2 groups serve; shop-broker-1-0 is not registered yet"
        );
        let endpoints = status.endpoints.unwrap();
        assert_eq!(endpoints.name_servers, "shop-ns.demo.svc:9876");
        assert_eq!(endpoints.name_servers_ip.as_deref(), Some("10.0.0.1:9876"));
        assert_eq!(endpoints.name_servers_http.as_deref(), Some("http://shop-ns.demo.svc:9876"));
        assert_eq!(endpoints.grpc.as_deref(), Some("shop-broker-0.demo.svc:8081"));
    }

    #[test]
    fn same_outcome_later_gives_the_same_status() {
        let mut cluster = two_groups();
        let servers = || vec![broker(0, Registration::Known), broker(1, Registration::Known)];
        let first = status(&cluster, &converged(servers(), Step::UpToDate), at(1));
        assert_eq!(first.conditions[0].status, "True");
        cluster.status = Some(first.clone());
        assert_eq!(status(&cluster, &converged(servers(), Step::UpToDate), at(99)), first);
    }

    #[test]
    fn silent_name_servers_do_not_unregister_brokers() {
        let mut cluster = two_groups();
        let known = vec![broker(0, Registration::Known), broker(1, Registration::Known)];
        cluster.status = Some(status(&cluster, &converged(known, Step::UpToDate), at(1)));
        let silent = vec![broker(0, Registration::Unknown), broker(1, Registration::Unknown)];
        let Outcome::Converged { mut observed, step, refused_volumes } =
            converged(silent, Step::UpToDate)
        else {
            unreachable!()
        };
        observed.registry_error = Some("no answer".into());
        let outcome = Outcome::Converged { observed, step, refused_volumes };
        let status = status(&cluster, &outcome, at(2));
        assert_eq!(status.groups, 2);
        assert_eq!(status.conditions[0].reason, "BrokersUnreachable");
    }

    #[test]
    fn stopped_pass_keeps_what_was_seen_last() {
        let mut cluster = two_groups();
        let known = vec![broker(0, Registration::Known), broker(1, Registration::Known)];
        cluster.status = Some(status(&cluster, &converged(known, Step::UpToDate), at(1)));
        let stopped = Outcome::Stopped(Reason::NameTaken.because("Service shop-ns belongs to x"));
        let status = status(&cluster, &stopped, at(2));
        assert_eq!((status.groups, status.brokers.len()), (2, 2));
        let reasons: Vec<_> = status.conditions.iter().map(|c| c.reason.as_str()).collect();
        assert_eq!(reasons, ["NameTaken", "UpToDate"]);
    }
}
