//! What a started server says of itself: gauges of its metrics page.
//! Invariant: a gauge that the page does not have is an error and never a zero; no more of a page is read than a bound.
//! Leaves what the figures mean to the scenarios.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;

use super::server::Server;

/// Silence after which a server counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest page that is read: 16 MiB hold more series than a broker of these scenarios has.
const PAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The value of gauge `name` on the server's page.
pub(super) fn gauge(server: &Server, name: &str) -> anyhow::Result<f64> {
    let http = server.http.context("the server did not say where its metrics are")?;
    let page = page(http).with_context(|| format!("read the metrics at {http}"))?;
    value(&page, name).with_context(|| format!("the metrics at {http} have no {name}"))
}

fn page(http: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    // The older version: the answer comes in one piece and ends with the connection.
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut page)?;
    anyhow::ensure!(page.starts_with("HTTP/1.0 200"), "it said {:?}", page.lines().next());
    Ok(page)
}

/// The first series of that name, whatever its labels.
fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauge_is_found_by_its_whole_name_and_not_invented() {
        let page = "# TYPE a gauge\na_b{x=\"}\"} 3\na 5\na_c{x=\"1\"} 7.5\n";
        assert_eq!(value(page, "a_b"), Some(3.0));
        assert_eq!(value(page, "a"), Some(5.0));
        assert_eq!(value(page, "a_c"), Some(7.5));
        assert_eq!(value(page, "b"), None);
    }
}
