//! How connections are made: TCP, encrypted with noise, shared by yamux.
//!
//! Knows libp2p's transports. Does not know what runs over a connection.
//! Invariant: a connection that is not complete within `CONNECT` is dropped.
//!
//! noise reads through a codec that asks for 8 KiB at a time, which is a system call for each. The
//! read-ahead buffer below it makes that one call for 256 KiB.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;

use super::block::Block;
use super::muxer::Yamux;
use crate::limits;

/// The transport of all connections. Fails only when the key cannot be used for noise.
pub(super) fn build(key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, libp2p::noise::Error> {
    let noise = libp2p::noise::Config::new(key)?;
    let tcp = libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::default());
    let transport = tcp
        .map(|stream, _| ReadAhead::new(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(Yamux)
        .timeout(limits::CONNECT)
        .boxed();
    Ok(transport)
}

/// Reads ahead in whole blocks; writes pass through.
struct ReadAhead<T> {
    stream: T,
    block: Block,
    /// What of the block was read and not handed on yet.
    from: usize,
    to: usize,
}

impl<T> ReadAhead<T> {
    fn new(stream: T) -> Self {
        Self { stream, block: Block::new(), from: 0, to: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.from >= this.to {
            this.from = 0;
            this.to = 0;
            this.to = ready!(Pin::new(&mut this.stream).poll_read(cx, this.block.bytes_mut()))?;
        }
        let ready = this.block.bytes().get(this.from..this.to).unwrap_or_default();
        let len = ready.len().min(into.len());
        if let (Some(into), Some(ready)) = (into.get_mut(..len), ready.get(..len)) {
            into.copy_from_slice(ready);
        }
        this.from += len;
        Poll::Ready(Ok(len))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::AsyncReadExt;

    #[tokio::test]
    async fn reading_ahead_changes_no_byte() {
        let source: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
        let mut ahead = ReadAhead::new(futures::io::Cursor::new(source.clone()));
        let mut out = Vec::new();
        let mut small = [0; 777];
        loop {
            let len = ahead.read(&mut small).await.unwrap();
            if len == 0 {
                break;
            }
            out.extend_from_slice(&small[..len]);
        }
        assert_eq!(out, source);
    }
}
