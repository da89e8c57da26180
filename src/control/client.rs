//! The command's end of a conversation.
//!
//! Knows how to ask and to wait. Does not know what the answer means.
//! Invariant: a daemon that says nothing is given up, but for an add, which the user ends.

use std::fs::{File, TryLockError};
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use serde::de::DeserializeOwned;
use tokio::io::{ReadHalf, WriteHalf};

use super::line::{self, Lines};
use super::{AddEvent, Error, Interruption, Opening, Reply, Request, VERSION, socket};
use crate::config::Home;
use crate::limits;
use crate::names::clean;

/// A connection to the daemon, good for one request.
pub struct Client {
    to: WriteHalf<Stream>,
    from: Lines<ReadHalf<Stream>>,
}

/// Waits until the daemon that was told to stop is gone: its socket is closed and its lock is free.
pub async fn wait_for_end(home: &Home, wait: Duration) -> Result<(), Error> {
    let gone = async {
        while socket::connect(home).await.is_ok() || is_locked(home) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(wait, gone).await.map_err(|_| Error::Silent)
}

/// Where locks do not work, the socket alone has to tell.
fn is_locked(home: &Home) -> bool {
    let lock = File::open(home.lock_file()).map(|file| file.try_lock_shared());
    matches!(lock, Ok(Err(TryLockError::WouldBlock)))
}

/// What the daemon says next.
#[derive(Debug)]
pub enum Answer<T> {
    Event(AddEvent),
    Done(T),
}

impl Client {
    /// Connects to the daemon of this work directory.
    pub async fn connect(home: &Home) -> Result<Self, Error> {
        let (from, to) = tokio::io::split(socket::connect(home).await?);
        Ok(Self { to, from: Lines::new(from, limits::REPLY_BYTES_MAX) })
    }

    /// Asks, and waits for the document that answers.
    pub async fn ask<T: DeserializeOwned>(mut self, request: &Request) -> Result<T, Error> {
        let answered = async {
            self.send(request).await?;
            loop {
                if let Answer::Done(document) = self.next().await? {
                    return Ok(document);
                }
            }
        };
        match request.wait() {
            Some(wait) => tokio::time::timeout(wait, answered).await.unwrap_or(Err(Error::Silent)),
            None => answered.await,
        }
    }

    /// Sends the one request of this connection.
    pub async fn send(&mut self, request: &Request) -> Result<(), Error> {
        let opening = Opening { version: VERSION, request };
        line::write(&mut self.to, &[opening]).await.map_err(Error::Broken)
    }

    /// What the daemon says next. Cancel safe.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Answer<T>, Error> {
        let garbled = |error: &dyn std::fmt::Display| Error::Garbled(clean(&error.to_string(), 200));
        let reply = self.from.next().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => garbled(&error),
            _ => Error::Broken(error),
        })?;
        match reply {
            Some(Reply::Event(event)) => Ok(Answer::Event(event)),
            Some(Reply::Done(document)) => {
                serde_json::from_value(document).map(Answer::Done).map_err(|error| garbled(&error))
            }
            Some(Reply::Failed { message, hint }) => Err(Error::Refused { message, hint }),
            None => Err(Error::Broken(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Tells the daemon that its work is not wanted any more; what it says then is still to be read.
    pub async fn cancel(&mut self) -> Result<(), Error> {
        line::write(&mut self.to, &[Interruption::Cancel]).await.map_err(Error::Broken)
    }
}
