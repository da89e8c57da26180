//! Sockets as Unix has them.
//!
//! Knows what is asked of them beyond what tokio asks. Does not know what is sent; `windows.rs` is its twin.
//! Invariant: a socket that refuses what is asked of it is used as it is.

use libp2p::tcp::tokio::TcpStream;

/// Keeps short what of a connection's bytes waits in the kernel for a slow line: a small answer goes behind all
/// of it, and the kernel would let some megabytes wait, which are seconds.
#[cfg(target_os = "linux")]
pub(super) fn short_queue(stream: TcpStream) -> TcpStream {
    if let Err(error) = socket2::SockRef::from(&stream.0).set_tcp_notsent_lowat(crate::limits::UNSENT_BYTES) {
        tracing::debug!(%error, "small answers may wait behind large ones");
    }
    stream
}

#[cfg(not(target_os = "linux"))]
pub(super) fn short_queue(stream: TcpStream) -> TcpStream {
    stream
}
