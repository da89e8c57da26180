//! How connections are made: TCP, encrypted with noise, shared by yamux.
//!
//! Knows libp2p's transports. Does not know what runs over a connection.
//! Invariant: a connection that is not complete within `CONNECT` is dropped.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::tcp::tokio::TcpStream;
use tracing::debug;

use super::muxer::Yamux;
use super::noise::Noise;
use super::speed::Speed;
use super::system;
use crate::limits;

/// The transport of all connections. Fails only when the key cannot be used for noise.
pub(super) fn build(key: &Keypair) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let noise = Noise::new(key)?;
    let tcp = libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::default());
    let transport = tcp
        .map(|stream, _| Backlog::new(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(Yamux)
        .timeout(limits::CONNECT)
        .boxed();
    Ok(transport)
}

/// Keeps short what of a connection's bytes waits in the kernel for a slow line: a small answer goes behind all
/// of it, and the kernel would let some megabytes wait, which are seconds.
struct Backlog {
    stream: TcpStream,
    speed: Speed,
    unsent: usize,
}

impl Backlog {
    fn new(stream: TcpStream) -> Self {
        let backlog = Self { stream, speed: Speed::new(Instant::now()), unsent: limits::UNSENT_BYTES_MAX };
        backlog.set();
        backlog
    }

    fn adapt(&mut self) {
        let Some(portion) = self.speed.portion(limits::UNSENT_TIME, Instant::now()) else { return };
        let unsent = portion.clamp(limits::UNSENT_BYTES_MIN, limits::UNSENT_BYTES_MAX);
        if unsent != self.unsent {
            self.unsent = unsent;
            self.set();
        }
    }

    fn set(&self) {
        if let Err(error) = system::let_wait(&self.stream, self.unsent) {
            debug!(%error, "small answers may wait behind large ones");
        }
    }
}

impl AsyncRead for Backlog {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Backlog {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(len)) => this.speed.sent(*len),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.speed.full(),
        }
        this.adapt();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}
