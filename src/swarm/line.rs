//! The encrypted connection below yamux, and how much of ours waits on it.
//!
//! Knows bytes and how fast they go. Does not know streams.
//! Invariant: what was written is sent before its connection's task sleeps; and a slow line is given nothing
//! more while it has a frame to send.
//!
//! yamux flushes after every frame, however many wait. Here a flush is put off until it has nothing more to
//! do: frames that wait together share noise messages and system calls, which is most of what a small
//! file's bytes cost.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::{AsyncRead, AsyncWrite};

use super::speed::Speed;
use crate::limits;

/// A connection that yamux and its muxer share.
pub(super) struct Line<C> {
    end: Arc<Mutex<End<C>>>,
    /// How many bytes were received.
    pub(super) received: Arc<AtomicU64>,
    /// The longest frame that streams should send; shorter than `YAMUX_FRAME_BYTES` on a slow line.
    pub(super) frame: Arc<AtomicUsize>,
}

struct End<C> {
    io: C,
    /// Bytes that were written since the last whole flush.
    unsent: usize,
    speed: Speed,
}

// Written out, because a derived one would want `C` to be `Clone`.
impl<C> Clone for Line<C> {
    fn clone(&self) -> Self {
        Self { end: Arc::clone(&self.end), received: Arc::clone(&self.received), frame: Arc::clone(&self.frame) }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Line<C> {
    pub(super) fn new(io: C) -> Self {
        let end = End { io, unsent: 0, speed: Speed::new(Instant::now()) };
        Self {
            end: Arc::new(Mutex::new(end)),
            received: Arc::default(),
            frame: Arc::new(AtomicUsize::new(limits::YAMUX_FRAME_BYTES)),
        }
    }

    /// Only the connection's own task comes here, so the lock is always free; a panic below ends the
    /// connection anyway.
    fn end(&self) -> MutexGuard<'_, End<C>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what was written.
    pub(super) fn send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end().send(cx)
    }
}

impl<C: AsyncWrite + Unpin> End<C> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent == 0 {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        match flushed {
            Poll::Ready(_) => self.unsent = 0,
            Poll::Pending => self.speed.full(),
        }
        flushed
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(len)) => {
                self.unsent += len;
                self.speed.sent(*len);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.speed.full(),
        }
        written
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Line<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.end().io).poll_read(cx, into))?;
        self.received.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(len))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut end = self.end();
        let frame = self.frame.load(Ordering::Relaxed);
        // What noise encrypts ahead keeps a fast line busy. On a slow one it would be waited for.
        if frame < limits::YAMUX_FRAME_BYTES && end.unsent >= frame {
            ready!(end.send(cx))?;
        }
        let written = end.write(cx, bytes);
        if let Some(portion) = end.speed.portion(limits::FRAME_TIME, Instant::now()) {
            let frame = portion.clamp(limits::FRAME_BYTES_MIN, limits::YAMUX_FRAME_BYTES);
            self.frame.store(frame, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.end().io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;
    use proptest::prelude::*;

    /// A line that sends only when it is told how much it can.
    #[derive(Default)]
    struct Slow {
        waiting: Vec<u8>,
        sent: Vec<u8>,
        flushes: usize,
        room: usize,
    }

    impl AsyncRead for Slow {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.waiting.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            let len = self.room.min(self.waiting.len());
            self.room -= len;
            let sent: Vec<u8> = self.waiting.drain(..len).collect();
            self.sent.extend(sent);
            if self.waiting.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(line: &mut Line<Slow>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(line).poll_write(&mut Context::from_waker(noop_waker_ref()), bytes)
    }

    fn send(line: &Line<Slow>) -> Poll<io::Result<()>> {
        line.send(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn frames_that_wait_together_are_sent_together() {
        let mut line = Line::new(Slow { room: usize::MAX, ..Slow::default() });
        for _ in 0..10 {
            assert!(write(&mut line, &[7; 30]).is_ready());
            assert!(Pin::new(&mut line).poll_flush(&mut Context::from_waker(noop_waker_ref())).is_ready());
        }
        assert!(line.end().io.sent.is_empty());
        assert!(send(&line).is_ready());
        assert!(send(&line).is_ready());
        let end = line.end();
        assert_eq!((end.io.sent.len(), end.io.flushes), (300, 1));
    }

    #[test]
    fn a_slow_line_takes_nothing_more_while_it_has_a_frame_to_send() {
        let frame = vec![1; limits::FRAME_BYTES_MIN];
        let mut line = Line::new(Slow { room: 10, ..Slow::default() });
        line.frame.store(limits::FRAME_BYTES_MIN, Ordering::Relaxed);
        assert!(write(&mut line, &frame).is_ready());
        assert!(send(&line).is_pending());
        assert!(write(&mut line, &[2; 30]).is_pending());
        line.end().io.room = frame.len();
        assert!(write(&mut line, &[2; 30]).is_ready());
        assert!(send(&line).is_pending());
        line.end().io.room = 30;
        assert!(send(&line).is_ready());
        assert_eq!(line.end().io.sent, [frame, vec![2; 30]].concat());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_turned_round(steps in proptest::collection::vec((1usize..200_000, 0usize..150_000), 1..30)) {
            let mut line = Line::new(Slow::default());
            let mut taken = Vec::new();
            for (n, (len, room)) in steps.into_iter().enumerate() {
                line.end().io.room += room;
                let bytes = vec![n as u8; len];
                if let Poll::Ready(Ok(len)) = write(&mut line, &bytes) {
                    taken.extend_from_slice(&bytes[..len]);
                }
                let _ = send(&line);
            }
            line.end().io.room = usize::MAX;
            prop_assert!(send(&line).is_ready());
            prop_assert!(line.end().io.sent == taken);
        }
    }
}
