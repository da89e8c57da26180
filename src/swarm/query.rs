//! The query protocol on a stream: one question, one answer.
//!
//! Knows how the two lie on a stream. Does not know who answers.
//! Invariant: what cannot be understood becomes a value, so that the swarm's task can tell a newer peer
//! from a rude one; only a broken stream is an error.

use std::io;

use futures::{AsyncRead, AsyncWrite};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

use super::Error;
use super::frame::{self, Unread};
use crate::wire::{self, Answer, Query};

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueryCodec;

/// A question as it came, or as it is sent.
pub(super) type Question = Result<Query, wire::Error>;
/// An answer as it came, or as it is sent.
pub(super) type Reply = Result<Answer, Error>;

impl Codec for QueryCodec {
    type Protocol = StreamProtocol;
    type Request = Question;
    type Response = Reply;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Question>
    where
        T: AsyncRead + Unpin + Send,
    {
        match frame::read(io).await {
            Ok(query) => Ok(Ok(query)),
            Err(Unread::Refused(error)) => Ok(Err(error)),
            Err(Unread::Broken(error)) => Err(error),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Reply>
    where
        T: AsyncRead + Unpin + Send,
    {
        match frame::read(io).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(Unread::Refused(error)) => Ok(Err(error.into())),
            Err(Unread::Broken(error)) => Err(error),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, question: Question) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        frame::write(io, &question.map_err(io::Error::other)?).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, reply: Reply) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        frame::write(io, &reply.map_err(io::Error::other)?).await
    }
}
