//! Bodies: the bytes of one range, as they come.
//!
//! Knows offsets, stalls and ends. Does not know why the bytes are wanted.
//! Invariant: no byte beyond what was asked for is passed on, none is passed on twice, and the end is
//! told only after the last one.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::health::{Purpose, Route};
use super::{Error, Failure, Shared};
use crate::limits;

/// A range whose head was accepted.
pub(super) struct Body {
    pub(super) response: Response,
    pub(super) endpoint: String,
    pub(super) route: Route,
    pub(super) shared: Arc<Shared>,
    /// Our place among the endpoint's requests.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Where in the file the next byte stands.
    pub(super) next: u64,
    /// Where the asked bytes end.
    pub(super) end: u64,
    /// The file goes on behind `end`, and the endpoint sends that, too, since it ignores ranges.
    pub(super) more_may_come: bool,
    /// More than was asked for has come already.
    pub(super) surplus: bool,
}

/// The bytes of one range, as they come. Dropping it ends the transfer.
pub struct RangeBody {
    state: State,
    received: u64,
}

enum State {
    Coming { body: Box<Body>, first: u64 },
    Ended(Option<Error>),
}

impl RangeBody {
    pub(super) fn new(body: Body) -> Self {
        Self { state: State::Coming { first: body.next, body: Box::new(body) }, received: 0 }
    }

    /// No bytes, for which nobody has to be asked.
    pub(super) fn nothing() -> Self {
        Self { state: State::Ended(None), received: 0 }
    }

    /// The next bytes and where in the file they stand; `None` after the last one that was asked for.
    ///
    /// An endpoint that sends more than that is told as `Broken` after all asked bytes were passed on.
    pub async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        let (body, first) = match &mut self.state {
            State::Coming { body, first } => (body, *first),
            State::Ended(None) => return Ok(None),
            State::Ended(Some(error)) => return Err(error.clone()),
        };
        let stopped = if body.next >= body.end {
            body.read_end(&mut self.received).await.err()
        } else {
            match body.read(&mut self.received, first).await {
                Ok(piece) => return Ok(Some(piece)),
                Err(error) => Some(error),
            }
        };
        self.state = State::Ended(stopped.clone());
        stopped.map_or(Ok(None), Err)
    }

    /// How many bytes of the file have come over the network, wanted or not.
    pub fn received(&self) -> u64 {
        self.received
    }
}

impl Body {
    /// Reads on, up to the last byte that was asked for.
    async fn read(&mut self, received: &mut u64, first: u64) -> Result<(u64, Bytes), Error> {
        let wanted = self.end.saturating_sub(first);
        loop {
            let got = self.next.saturating_sub(first);
            let mut bytes = match timeout(self.shared.transport.patience().stall, self.response.chunk()).await {
                Err(_) => {
                    self.came_to(got, Failure::Silent);
                    return Err(Error::Stalled { endpoint: self.endpoint.clone(), got, wanted });
                }
                Ok(Err(_) | Ok(None)) => {
                    self.came_to(got, Failure::Lost("no bytes came".to_owned()));
                    return Err(Error::CutShort { endpoint: self.endpoint.clone(), got, wanted });
                }
                Ok(Ok(Some(bytes))) if bytes.is_empty() => continue,
                Ok(Ok(Some(bytes))) => bytes,
            };
            if *received == 0 {
                self.shared.health().well(&self.route, Purpose::Bytes);
            }
            *received += bytes.len() as u64;
            let missing = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
            let surplus = bytes.len() > missing;
            bytes.truncate(missing);
            let offset = self.next;
            self.next += bytes.len() as u64;
            self.surplus = surplus;
            return Ok((offset, bytes));
        }
    }

    /// A line may break or hang once; a host that sends a head and no byte is no good for data.
    fn came_to(&self, got: u64, why: Failure) {
        if got == 0 {
            self.shared.health().data_host_failed(&self.route, &why, Instant::now());
        }
    }

    /// Makes sure that the answer ends where it should, which also leaves its connection free for others.
    async fn read_end(&mut self, received: &mut u64) -> Result<(), Error> {
        self.permit = None;
        if self.more_may_come {
            return Ok(());
        }
        let more =
            || Error::Broken { endpoint: self.endpoint.clone(), why: "sends more than was asked for".to_owned() };
        if self.surplus {
            return Err(more());
        }
        match timeout(limits::HUB_DRAIN, self.response.chunk()).await {
            Ok(Ok(Some(bytes))) if !bytes.is_empty() => {
                *received += bytes.len() as u64;
                Err(more())
            }
            _ => Ok(()),
        }
    }
}
