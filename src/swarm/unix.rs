//! Sockets as Unix has them.
//!
//! Knows what is asked of them beyond what tokio asks. Does not know what is sent; `windows.rs` is its twin.
//! Invariant: a socket that refuses what is asked of it is used as it is.

use std::io;

use libp2p::tcp::tokio::TcpStream;

/// Sets how many bytes that were not sent yet may wait in the kernel.
#[cfg(target_os = "linux")]
pub(super) fn let_wait(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    socket2::SockRef::from(&stream.0).set_tcp_notsent_lowat(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// Other systems are left to their own measure.
#[cfg(not(target_os = "linux"))]
pub(super) fn let_wait(_: &TcpStream, _: usize) -> io::Result<()> {
    Ok(())
}
