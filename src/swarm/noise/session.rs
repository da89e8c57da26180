//! A session: what is written is encrypted message by message, and what is read is decrypted.
//!
//! Knows noise messages behind their lengths. Does not know the handshake, nor what is in a message.
//! Invariant: a byte is handed on only when the message that it came in is proven whole and in its turn; after
//! the first message that is not, nothing is read any more.
//!
//! Each byte is copied once in here: from the caller's memory into the message that is sealed, and from the
//! message that came into the caller's memory, where it is opened. Opening needs room for the tag as well, which
//! a buffer that ends with the frame it is for has not. So bulk is sealed in messages that fall a little short
//! of a frame, and only the short rest of it goes through memory of ours, together with the next frame's header.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use snow::TransportState;

use super::{Suite, broken};
use crate::limits::{self, BLOCK_BYTES};
use crate::swarm::block::Block;

/// The length in front of each message.
const LEN_BYTES: usize = 2;
/// The proof at the end of each message.
const TAG_BYTES: usize = 16;
/// The longest message that can be on the wire.
const MESSAGE_BYTES_MAX: usize = 65_535;
/// What one message may add to what waits to be sent.
const SEALED_BYTES_MAX: usize = LEN_BYTES + limits::NOISE_BULK_BYTES + TAG_BYTES;
/// While less than this waits, there is room for all that one write can add: what was kept and one message.
const WAITING_BYTES_MAX: usize = BLOCK_BYTES - 2 * SEALED_BYTES_MAX;

/// An encrypted stream.
pub(in crate::swarm) struct Session<T> {
    io: T,
    state: TransportState,
    suite: Suite,
    /// What came and was not opened yet.
    came: Block,
    came_from: usize,
    came_to: usize,
    /// An opened message that did not fit where it was wanted, or what is left of it.
    opened: Vec<u8>,
    opened_from: usize,
    opened_to: usize,
    /// Small writes that wait for more, or for a flush.
    kept: Vec<u8>,
    /// Sealed messages that wait to be sent.
    sealed: Block,
    sealed_from: usize,
    sealed_to: usize,
}

impl<T> Session<T> {
    pub(super) fn new(io: T, state: TransportState, suite: Suite) -> Self {
        Self {
            io,
            state,
            suite,
            came: Block::new(u64::MAX),
            came_from: 0,
            came_to: 0,
            opened: Vec::new(),
            opened_from: 0,
            opened_to: 0,
            kept: Vec::new(),
            sealed: Block::new(u64::MAX),
            sealed_from: 0,
            sealed_to: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn io_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// The next message, if all of it is here.
    fn whole_message(&self) -> Option<std::ops::Range<usize>> {
        let came = self.came.bytes().get(self.came_from..self.came_to)?;
        let len = usize::from(u16::from_be_bytes(*came.first_chunk::<LEN_BYTES>()?));
        let start = self.came_from + LEN_BYTES;
        (len <= came.len() - LEN_BYTES).then_some(start..start + len)
    }

    /// Opens a message into the caller's memory, or into ours where that is too small. Says how much of the
    /// caller's is filled.
    fn open(&mut self, message: std::ops::Range<usize>, into: &mut [u8]) -> io::Result<usize> {
        if self.is_time_for_a_new_key(self.state.receiving_nonce()) {
            self.state.rekey_incoming();
        }
        let end = message.end;
        let message = self.came.bytes().get(message).unwrap_or_default();
        if into.len() >= message.len() {
            let len = self.state.read_message(message, into).map_err(broken)?;
            self.came_from = end;
            return Ok(len);
        }
        (self.opened_from, self.opened_to) = (0, 0);
        self.opened.resize(MESSAGE_BYTES_MAX, 0);
        self.opened_to = self.state.read_message(message, &mut self.opened).map_err(broken)?;
        self.came_from = end;
        Ok(self.hand_on(into))
    }

    /// Copies what is left of the opened message.
    fn hand_on(&mut self, into: &mut [u8]) -> usize {
        let left = self.opened.get(self.opened_from..self.opened_to).unwrap_or_default();
        let len = left.len().min(into.len());
        if let (Some(into), Some(left)) = (into.get_mut(..len), left.get(..len)) {
            into.copy_from_slice(left);
        }
        self.opened_from += len;
        len
    }

    /// Makes room behind what came. What is moved is less than a message.
    fn make_room(&mut self) {
        if self.came_from == self.came_to {
            (self.came_from, self.came_to) = (0, 0);
        } else if self.came_from > BLOCK_BYTES / 2 {
            self.came.bytes_mut().copy_within(self.came_from..self.came_to, 0);
            (self.came_from, self.came_to) = (0, self.came_to - self.came_from);
        }
    }

    fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_time_for_a_new_key(self.state.sending_nonce()) {
            self.state.rekey_outgoing();
        }
        let room = self.sealed.bytes_mut().get_mut(self.sealed_to..).unwrap_or_default();
        let Some((prefix, room)) = room.split_first_chunk_mut::<LEN_BYTES>() else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let len = self.state.write_message(bytes, room).map_err(broken)?;
        *prefix = u16::try_from(len).map_err(broken)?.to_be_bytes();
        self.sealed_to += LEN_BYTES + len;
        Ok(())
    }

    fn seal_kept(&mut self) -> io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let mut kept = std::mem::take(&mut self.kept);
        let sealed = self.seal(&kept);
        kept.clear();
        self.kept = kept;
        sealed
    }

    /// Whether the message with this number is the first one under a new key. libp2p's noise never changes it.
    fn is_time_for_a_new_key(&self, number: u64) -> bool {
        self.suite == Suite::Aes && number > 0 && number.is_multiple_of(limits::NOISE_KEY_MESSAGES)
    }
}

impl<T: AsyncWrite + Unpin> Session<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sealed_from < self.sealed_to {
            let left = self.sealed.bytes().get(self.sealed_from..self.sealed_to).unwrap_or_default();
            match ready!(Pin::new(&mut self.io).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.sealed_from += len,
            }
        }
        (self.sealed_from, self.sealed_to) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Session<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if into.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let len = this.hand_on(into);
            if len > 0 {
                return Poll::Ready(Ok(len));
            }
            if let Some(message) = this.whole_message() {
                let len = this.open(message, into)?;
                if len > 0 {
                    return Poll::Ready(Ok(len));
                }
                // A message may be empty, which does not end the stream.
                continue;
            }
            this.make_room();
            let room = this.came.bytes_mut().get_mut(this.came_to..).unwrap_or_default();
            match ready!(Pin::new(&mut this.io).poll_read(cx, room))? {
                0 if this.came_from == this.came_to => return Poll::Ready(Ok(0)),
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                len => this.came_to += len,
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Session<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.sealed_to > WAITING_BYTES_MAX {
            ready!(this.poll_send(cx))?;
        }
        if let Some(bulk) = bytes.get(..limits::NOISE_BULK_BYTES) {
            this.seal_kept()?;
            this.seal(bulk)?;
            return Poll::Ready(Ok(bulk.len()));
        }
        if this.kept.len() + bytes.len() > limits::NOISE_BULK_BYTES {
            this.seal_kept()?;
        }
        this.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.seal_kept()?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().io).poll_close(cx)
    }
}
