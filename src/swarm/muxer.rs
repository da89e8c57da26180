//! Many streams over one connection: yamux, and the watch that ends a silent connection.
//!
//! Knows yamux. Does not know what the streams carry.
//! Invariant: a connection on which nothing was received for `SILENT_SECS_MAX` ends with an error, and a
//! panic inside yamux ends its connection and nothing else.
//!
//! libp2p has a wrapper of its own for yamux; it hides the frame size, and frames four times as
//! long cost a quarter of the encryptions and system calls. On the wire there is no difference.
//!
//! Streams take turns by frames, so on a slow line frames are short: what a small answer waits for is a frame
//! of each long one.
//!
//! Both sides ping every few seconds, so a living connection is never silent for long, however slow it is:
//! every received byte counts, not only pings, which queue up behind bulk data. Seconds are counted, not
//! measured, so that a machine that wakes from sleep does not take its own absence for the others'.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::UpgradeInfo;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use tokio::time::{Interval, MissedTickBehavior};

use super::line::Line;
use crate::limits;

const SECOND: Duration = Duration::from_secs(1);

/// The upgrade of an encrypted connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Yamux;

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, io: C, _: Self::Info) -> Self::Future {
        std::future::ready(Ok(Muxer::new(io, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, io: C, _: Self::Info) -> Self::Future {
        std::future::ready(Ok(Muxer::new(io, yamux::Mode::Client)))
    }
}

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(limits::YAMUX_STREAMS_MAX);
    config.set_max_connection_receive_window(Some(limits::YAMUX_WINDOW_BYTES_MAX));
    config.set_split_send_size(limits::YAMUX_FRAME_BYTES);
    config
}

/// One stream.
///
/// Whoever opened it does not say "no more from me" before it is done with the stream: our protocols'
/// requests carry their length. In return, dropping it in the middle of an answer resets it, and the peer
/// stops sending. yamux tells a peer nothing when a stream is dropped that was half closed before.
pub(super) struct Substream {
    stream: yamux::Stream,
    opener: Opener,
    /// The longest frame that the line is to be given at this time.
    frame: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opener {
    Us,
    Peer,
}

impl AsyncRead for Substream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let frame = bytes.get(..this.frame.load(Ordering::Relaxed)).unwrap_or(bytes);
        Pin::new(&mut this.stream).poll_write(cx, frame)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.opener {
            Opener::Us => Pin::new(&mut this.stream).poll_flush(cx),
            Opener::Peer => Pin::new(&mut this.stream).poll_close(cx),
        }
    }
}

/// One connection's streams.
pub(super) struct Muxer<C> {
    /// `None` after a panic: its state is not to be touched again.
    connection: Option<yamux::Connection<Line<C>>>,
    /// Streams that the peer opened and nobody took up yet.
    waiting: VecDeque<Substream>,
    wanted: Option<Waker>,
    silence: Silence,
    /// The connection below yamux, to be flushed.
    line: Line<C>,
    /// How long a polite goodbye may take.
    goodbye: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Muxer<C> {
    fn new(io: C, mode: yamux::Mode) -> Self {
        let line = Line::new(io);
        Self {
            connection: Some(yamux::Connection::new(line.clone(), config(), mode)),
            waiting: VecDeque::new(),
            wanted: None,
            silence: Silence::new(Arc::clone(&line.received), SECOND),
            line,
            goodbye: None,
        }
    }

    /// Runs yamux and turns its panic, should it ever have one, into an error of this connection.
    fn run<T>(
        &mut self,
        step: impl FnOnce(&mut yamux::Connection<Line<C>>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        match catch_unwind(AssertUnwindSafe(|| step(connection))) {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!("yamux panicked; its connection is closed");
                self.connection = None;
                Poll::Ready(Err(io::Error::other("panic in yamux")))
            }
        }
    }

    /// Reads and writes what can be read and written. Ready with the next stream that the peer opened.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let frame = Arc::clone(&self.line.frame);
        let outcome = self.run(|connection| match ready!(connection.poll_next_inbound(cx)) {
            Some(Ok(stream)) => Poll::Ready(Ok(Substream { stream, opener: Opener::Peer, frame })),
            Some(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
            None => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        });
        match self.line.send(cx) {
            Poll::Ready(Err(error)) if outcome.is_pending() => Poll::Ready(Err(error)),
            _ => outcome,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let this = self.get_mut();
        if let Some(stream) = this.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let outcome = this.drive(cx);
        if outcome.is_pending() {
            this.wanted = Some(cx.waker().clone());
        }
        outcome
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let this = self.get_mut();
        let opened = this.run(|connection| connection.poll_new_outbound(cx).map_err(io::Error::other));
        opened.map_ok(|stream| Substream { stream, opener: Opener::Us, frame: Arc::clone(&this.line.frame) })
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let goodbye = this.goodbye.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits::GOODBYE)));
        if goodbye.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        this.run(|connection| connection.poll_close(cx).map_err(io::Error::other))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let this = self.get_mut();
        // Everything that waits is read before the silence is judged: it may only be us who were slow.
        while let Poll::Ready(stream) = this.drive(cx) {
            let stream = stream?;
            if this.waiting.len() >= limits::YAMUX_WAITING_MAX {
                tracing::debug!("a peer opened more streams than are taken up; one is reset");
                continue;
            }
            this.waiting.push_back(stream);
            if let Some(waker) = this.wanted.take() {
                waker.wake();
            }
        }
        this.silence.poll(cx).map(Err)
    }
}

/// Counts the seconds in which nothing was received.
struct Silence {
    seconds: Interval,
    received: Arc<AtomicU64>,
    heard: u64,
    silent_secs: u32,
}

impl Silence {
    fn new(received: Arc<AtomicU64>, second: Duration) -> Self {
        let mut seconds = tokio::time::interval(second);
        // After a long sleep of this machine one second has passed, not all that were missed.
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { seconds, received, heard: 0, silent_secs: 0 }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.seconds.poll_tick(cx));
            let received = self.received.load(Ordering::Relaxed);
            self.silent_secs = if received == self.heard { self.silent_secs + 1 } else { 0 };
            self.heard = received;
            if self.silent_secs >= limits::SILENT_SECS_MAX {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the peer fell silent"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_run_of_silent_seconds_ends_a_connection() {
        // A second is ten milliseconds here.
        let second = Duration::from_millis(10);
        let received = Arc::new(AtomicU64::new(0));
        let mut silence = Silence::new(Arc::clone(&received), second);
        let mut polls = 0;
        let error = std::future::poll_fn(|cx| {
            polls += 1;
            if polls < 40 {
                received.fetch_add(1, Ordering::Relaxed);
            }
            silence.poll(cx)
        });
        assert_eq!(error.await.kind(), io::ErrorKind::TimedOut);
        assert!(polls >= 40 + limits::SILENT_SECS_MAX - 1, "ended after {polls} polls");
        assert!(polls <= 40 + 2 * limits::SILENT_SECS_MAX, "ended after {polls} polls");
    }
}
