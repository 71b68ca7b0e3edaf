//! How much the system may hold of what is written to a connection and that its peer has no room for.
//! Invariant: beyond the bound a write waits, and with it the reading of further requests; a peer that reads gets all
//! that its way can carry, for bytes that are on their way do not count.
//! Leaves what waits in the server itself to the budget. Without it the system lets the send buffer of each
//! connection grow to `net.ipv4.tcp_wmem`, 4 MiB: a thousand peers that do not read would fill the memory that it has
//! for all connections (`net.ipv4.tcp_mem`), and each that comes again would cost the copying of so much.

use std::io;

use socket2::SockRef;
use tokio::net::TcpStream;

/// As much as one hand-over answers, so that a peer that reads always finds its next bytes there.
const BYTES_MAX: u32 = 256 * 1024;

/// Sets the bound.
pub(super) fn bound(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn peer_that_does_not_read_makes_the_system_hold_little() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        let _peer = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        bound(&stream).unwrap();
        stream.writable().await.unwrap();
        let mut bytes = 0;
        let error = loop {
            match stream.try_write(&[7; 16 * 1024]) {
                Ok(count) => bytes += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        // The bound, what the peer has room for, and one write. Without it some MiB.
        assert!(bytes <= BYTES_MAX as usize + 256 * 1024, "{bytes} bytes");
    }
}
