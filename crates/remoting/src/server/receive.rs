//! How much the system may hold of a connection before it is read.
//! Invariant: a connection that was behind once has a bound, and it is its part of what all of them may have, give or
//! take a factor of two; the system's own limit (`net.core.rmem_max`) may make it less.
//! Leaves it to its caller when to look, for each look costs system calls. Until then the system decides: it lets the
//! buffer of a connection grow to `net.ipv4.tcp_rmem`, which may be tens of MiB for each.

use std::io;

use tokio::net::TcpStream;

/// Least part of a connection.
const BYTES_MIN: usize = 64 * 1024;
/// Largest part: more is never needed to keep a reader busy.
const BYTES_MAX: usize = 6 * 1024 * 1024;

/// One connection's bound.
#[derive(Debug, Default)]
pub(super) struct ReceiveBound {
    /// `None`: the system decides.
    bytes: Option<usize>,
}

impl ReceiveBound {
    /// Sets the bound to this connection's part of `bytes_max` for all of `connections`, where it differs by much.
    pub(super) fn adjust(
        &mut self,
        stream: &TcpStream,
        bytes_max: usize,
        connections: usize,
    ) -> io::Result<()> {
        let part = (bytes_max / connections.max(1)).clamp(BYTES_MIN, BYTES_MAX);
        if self.bytes.is_some_and(|bytes| part > bytes / 2 && part < bytes * 2) {
            return Ok(());
        }
        // Also when it fails: the next look would fail as well.
        self.bytes = Some(part);
        // The system doubles it, for what it needs besides.
        Ok(rustix::net::sockopt::set_socket_recv_buffer_size(stream, part / 2)?)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::socket_recv_buffer_size;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn system_holds_a_connections_part_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let size = || socket_recv_buffer_size(&stream).unwrap();
        let mut bound = ReceiveBound::default();
        // Below what every system allows, so that its own limit plays no part.
        bound.adjust(&stream, 4 << 20, 32).unwrap();
        assert_eq!(size(), 128 * 1024);
        bound.adjust(&stream, 4 << 20, 40).unwrap();
        assert_eq!(size(), 128 * 1024, "not for little");
        bound.adjust(&stream, 4 << 20, 1000).unwrap();
        assert_eq!(size(), BYTES_MIN, "enough to work with");
        bound.adjust(&stream, 4 << 20, 16).unwrap();
        assert_eq!(size(), 256 * 1024, "when others have left");
    }

    #[tokio::test]
    async fn connection_that_is_alone_is_bounded_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let before = socket_recv_buffer_size(&stream).unwrap();
        ReceiveBound::default().adjust(&stream, 1 << 30, 1).unwrap();
        let after = socket_recv_buffer_size(&stream).unwrap();
        assert!(after != before && after <= BYTES_MAX, "{before} became {after}");
    }
}
