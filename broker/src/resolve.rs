//! Host names to addresses: the broker's own host and its name servers.
//! Invariant: an answer comes within a bound, however long the system's resolver takes.
//! Leaves what a failure means to the callers; none of them stops the broker.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{net::lookup_host, time::timeout};

/// Longest time for one name. The system's resolver may take half a minute when no DNS server answers.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Finds the addresses of a name; tests bring their own.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Addresses of `host_port`, written `host:port`.
    ///
    /// # Errors
    /// The name has no address, or nobody says which.
    fn resolve(&self, host_port: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver: hosts file and DNS.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host_port: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host_port = host_port.to_owned();
        Box::pin(async move { Ok(lookup_host(host_port).await?.collect()) })
    }
}

/// Addresses of `host_port`, at least one.
pub(crate) async fn resolve_all(
    resolver: &dyn Resolve,
    host_port: &str,
) -> io::Result<Vec<SocketAddr>> {
    resolve_within(RESOLVE_TIMEOUT, resolver, host_port).await
}

async fn resolve_within(
    patience: Duration,
    resolver: &dyn Resolve,
    host_port: &str,
) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(patience, resolver.resolve(host_port)).await;
    let found = found.map_err(|_| io::Error::other("no answer from the resolver in time"))??;
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(found)
}

/// The address that clients use for `host`: an IPv4 one if there is any, since ids then are shorter and every
/// client reads them. Of several the least, so that the order of an answer changes nothing.
pub(crate) async fn resolve_advertised(
    resolver: &Arc<dyn Resolve>,
    host: &str,
    port: u16,
) -> io::Result<SocketAddr> {
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    let host_port = if bare_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let addresses = resolve_all(resolver.as_ref(), &host_port).await?;
    let least = addresses.iter().min_by_key(|address| (!address.is_ipv4(), address.ip()));
    least.copied().ok_or_else(|| io::Error::other("the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(Vec<&'static str>);

    impl Resolve for Fixed {
        fn resolve(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            let found = self.0.iter().map(|address| address.parse().unwrap()).collect();
            Box::pin(std::future::ready(Ok(found)))
        }
    }

    #[derive(Debug)]
    struct Silent;

    impl Resolve for Silent {
        fn resolve(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            Box::pin(std::future::pending())
        }
    }

    async fn advertised(resolver: impl Resolve, host: &str) -> io::Result<SocketAddr> {
        resolve_advertised(&(Arc::new(resolver) as Arc<dyn Resolve>), host, 7).await
    }

    #[tokio::test]
    async fn advertised_address_is_the_same_in_whatever_order_the_answer_comes() {
        for order in
            [["[::1]:7", "10.0.0.2:7", "10.0.0.1:7"], ["10.0.0.1:7", "[::1]:7", "10.0.0.2:7"]]
        {
            let address = advertised(Fixed(order.to_vec()), "shop").await.unwrap();
            assert_eq!(address.to_string(), "10.0.0.1:7");
        }
        assert!(advertised(Fixed(Vec::new()), "shop").await.is_err());
    }

    #[tokio::test]
    async fn addresses_stand_for_themselves() {
        for (host, expected) in
            [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")]
        {
            let address = advertised(SystemResolver, host).await.unwrap();
            assert_eq!(address.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn resolver_that_never_answers_is_an_error() {
        let answer = resolve_within(Duration::from_millis(1), &Silent, "shop:7").await;
        assert!(answer.unwrap_err().to_string().contains("in time"));
    }
}
