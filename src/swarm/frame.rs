//! Messages on a stream: a length, then so many bytes.
//!
//! Knows how `wire`'s messages lie on a stream. Does not know what they say.
//! Invariant: memory is taken for bytes that have come, never for a length that was only claimed.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::{self, Message};

/// Why no message was read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The stream ended or broke. A stream that the peer reset ends like one that it closed, so an end
    /// in the middle of a message proves nothing.
    Broken(io::Error),
    /// The bytes came, but are no message for us.
    Refused(wire::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Unread::Broken(error)
    }
}

pub(super) async fn read<M: Message>(io: &mut (impl AsyncRead + Unpin + Send)) -> Result<M, Unread> {
    let mut length = [0; wire::LENGTH_BYTES];
    io.read_exact(&mut length).await?;
    let length = wire::length::<M>(length).map_err(Unread::Refused)?;
    let mut bytes = Vec::new();
    io.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    wire::decode(&bytes).map_err(Unread::Refused)
}

pub(super) async fn write<M: Message>(io: &mut (impl AsyncWrite + Unpin + Send), message: &M) -> io::Result<()> {
    let frame = wire::encode(message).map_err(io::Error::other)?;
    io.write_all(&frame).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Answer, Query};
    use futures::io::Cursor;

    #[tokio::test]
    async fn a_frame_cut_anywhere_is_a_broken_stream() {
        let mut frame = Vec::new();
        write(&mut frame, &Answer::PieceList(vec![7; 300])).await.unwrap();
        for end in 0..frame.len() {
            let read = read::<Answer>(&mut Cursor::new(&frame[..end])).await;
            assert!(matches!(read, Err(Unread::Broken(_))), "cut at {end}");
        }
        assert_eq!(read::<Answer>(&mut Cursor::new(&frame)).await.unwrap(), Answer::PieceList(vec![7; 300]));
    }

    #[tokio::test]
    async fn a_claimed_length_beyond_the_bound_is_refused_at_once() {
        let read = read::<Query>(&mut Cursor::new([0xff; 64])).await;
        assert!(matches!(read, Err(Unread::Refused(wire::Error::TooLong { .. }))));
    }
}
