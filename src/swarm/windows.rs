//! Sockets as Windows has them.
//!
//! Knows what is asked of them beyond what tokio asks. Does not know what is sent; `unix.rs` is its twin.
//! Invariant: a socket that refuses what is asked of it is used as it is.

use std::io;

use libp2p::tcp::tokio::TcpStream;

/// Windows lets little more wait in its kernel than is under way, and has no call to let less wait.
pub(super) fn let_wait(_: &TcpStream, _: usize) -> io::Result<()> {
    Ok(())
}
