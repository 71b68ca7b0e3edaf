//! Names of everything that a cluster has, for ever: clients, volumes and message ids depend on them.
//! Invariant: of cluster `shop` the names are `shop-ns`, `shop-broker-0`, `shop-broker-0-0` and so on; an object of
//! one cluster never has the name of another one's, or the API server's refusal becomes a condition.
//! Leaves the length of the cluster's own name to the schema (30 characters).

/// Port of name servers.
pub const NAME_SERVER_PORT: i32 = 9876;
/// Port of the remoting protocol.
pub const REMOTING_PORT: i32 = 10_911;
/// Second port of the same service, for clients that use the VIP channel.
pub const VIP_PORT: i32 = 10_909;
/// Port of the gRPC protocol.
pub const GRPC_PORT: i32 = 8081;
/// Port of health and metrics.
pub const HTTP_PORT: i32 = 8080;
/// Name of the volume claims.
pub const CLAIM: &str = "data";

/// Name servers: `StatefulSet`, client Service, settings and disruption budget.
pub fn name_servers(cluster: &str) -> String {
    format!("{cluster}-ns")
}

/// Headless Service of the name servers.
pub fn name_server_pods(cluster: &str) -> String {
    format!("{cluster}-ns-pods")
}

/// Disruption budget of all brokers.
pub fn brokers(cluster: &str) -> String {
    format!("{cluster}-broker")
}

/// Headless Service of all brokers.
pub fn broker_pods(cluster: &str) -> String {
    format!("{cluster}-broker-pods")
}

/// A broker group: `StatefulSet`, client Service and settings.
pub fn group(cluster: &str, group: i32) -> String {
    format!("{cluster}-broker-{group}")
}

/// One broker of a group: its pod and the Service that is its address.
pub fn broker(cluster: &str, group: i32, replica: i32) -> String {
    format!("{cluster}-broker-{group}-{replica}")
}

/// A group's broker name in routes.
pub fn broker_name(cluster: &str, group: i32) -> String {
    format!("{cluster}-{group}")
}

/// Volume claim of a broker.
pub fn claim(cluster: &str, group: i32, replica: i32) -> String {
    format!("{CLAIM}-{}", broker(cluster, group, replica))
}

/// Host name of a Service within the Kubernetes cluster.
pub fn host(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}
