//! Lines: one JSON value each, none longer than its limit.
//!
//! Knows bytes. Does not know requests or replies.
//! Invariant: what is held of an unfinished line is bounded by what the reader allows.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Reads lines of at most `bytes_max` bytes.
pub(super) struct Lines<R> {
    from: BufReader<R>,
    bytes_max: usize,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(from: R, bytes_max: usize) -> Self {
        Self { from: BufReader::new(from), bytes_max, begun: Vec::new() }
    }

    /// The next line's value; `None` at the end. Cancel safe: what was read of a line is kept.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let room = (self.bytes_max + 1).saturating_sub(self.begun.len());
        (&mut self.from).take(room as u64).read_until(b'\n', &mut self.begun).await?;
        if self.begun.is_empty() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.begun);
        if line.pop() != Some(b'\n') {
            let why = if line.len() >= self.bytes_max { "a line is too long" } else { "a line broke off" };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Writes values as lines, all in one go, and flushes them. Not cancel safe.
pub(super) async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), values: &[T]) -> io::Result<()> {
    let mut lines = Vec::new();
    for value in values {
        serde_json::to_writer(&mut lines, value)?;
        lines.push(b'\n');
    }
    to.write_all(&lines).await?;
    to.flush().await
}
