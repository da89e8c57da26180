//! The daemon's end: who may talk to it, and a call for each command that does.
//!
//! Knows connections, queues and the lock that makes the daemon the only one of its work directory.
//! Does not know what a request does.
//! Invariant: a command that is slow, silent, suspended or gone never makes the daemon wait.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::line::{self, Lines};
use super::{AddEvent, Error, Interruption, Opening, Reply, Request, VERSION, socket};
use crate::config::Home;
use crate::limits;

/// The daemon's control socket, and the proof that no other daemon has this work directory.
///
/// Its fields are dropped in their order: conversations end, the socket's file goes, then the lock.
pub struct Server {
    commands: JoinSet<()>,
    listener: Listener,
    places: Arc<Semaphore>,
    called: mpsc::Sender<Call>,
    calls: mpsc::Receiver<Call>,
    _lock: File,
}

/// One command that waits for its answer.
#[derive(Debug)]
pub struct Call {
    pub request: Request,
    pub replies: Replies,
    /// Fires when the command was interrupted, or is gone.
    pub gone: CancellationToken,
}

/// Where the answer to one call goes. Dropping it unanswered tells the command that it failed.
#[derive(Debug, Clone)]
pub struct Replies {
    queue: mpsc::Sender<Reply>,
}

impl Replies {
    /// Tells how an add goes on. Never waits: a command that does not read loses events, never the answer.
    pub fn event(&self, event: AddEvent) {
        // Progress comes again in a moment, so it may not take the last room from what comes once.
        let crowded = self.queue.capacity() < limits::EVENTS_WAITING_MAX / 2;
        if !(crowded && matches!(event, AddEvent::Progress(_))) {
            // A full queue means that nobody reads.
            let _ = self.queue.try_send(Reply::Event(event));
        }
    }

    /// Answers with one of the documents, and waits until the command has it, is gone, or does not
    /// read for `REPLY_WAIT`: a daemon that stops must not take the answer with it.
    pub async fn done(self, document: &impl Serialize) {
        self.last(serde_json::to_value(document).map_or_else(
            |error| Reply::Failed { message: format!("could not write the answer: {error}"), hint: None },
            Reply::Done,
        ))
        .await;
    }

    /// Answers that it was not done, and why. Waits like `done`.
    pub async fn failed(self, message: impl Into<String>, hint: Option<String>) {
        self.last(Reply::Failed { message: message.into(), hint }).await;
    }

    async fn last(self, reply: Reply) {
        // Nobody left to hear it is no failure of ours.
        if self.queue.send(reply).await.is_ok() {
            self.queue.closed().await;
        }
    }
}

impl Server {
    /// Makes this process the daemon of a prepared work directory, and listens for commands.
    pub async fn bind(home: &Home) -> Result<Self, Error> {
        let lock = lock(home).await?;
        // The lock is politeness, since file systems exist that give it to everybody: ask the socket too.
        match socket::connect(home).await {
            Ok(_) => return Err(Error::Taken { home: home.root().to_owned() }),
            Err(Error::Foreign { path }) => return Err(Error::Foreign { path }),
            Err(_) => {}
        }
        let listener = socket::listen(home)?;
        // One that waits is enough: the daemon takes calls as fast as they come.
        let (called, calls) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(limits::CALLS_MAX));
        Ok(Self { commands: JoinSet::new(), listener, places, called, calls, _lock: lock })
    }

    /// The next command's call. Commands are only taken while this is waited for. Cancel safe.
    pub async fn next(&mut self) -> Call {
        loop {
            // A place is taken first, so that too many commands wait outside.
            let place = Arc::clone(&self.places).acquire_owned();
            let came = async { (place.await, socket::accept(&self.listener).await) };
            tokio::select! {
                Some(call) = self.calls.recv() => return call,
                Some(_) = self.commands.join_next() => {}
                (place, stream) = came => match stream {
                    Ok(stream) => {
                        let called = self.called.clone();
                        self.commands.spawn(async move {
                            if let Err(error) = converse(stream, called).await {
                                tracing::debug!(%error, "a command's conversation broke off");
                            }
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: some may be freed in a moment.
                        tracing::warn!(%error, "could not take a command's connection");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

/// Takes the work directory's lock, waiting a little for a daemon that is ending.
async fn lock(home: &Home) -> Result<File, Error> {
    let path = home.lock_file();
    let failed = |source| Error::Socket { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    let deadline = Instant::now() + limits::SHUTDOWN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if socket::connect(home).await.is_ok() => {
                return Err(Error::Taken { home: home.root().to_owned() });
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(Error::TakenElsewhere { lock: path });
            }
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(50)).await,
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, path = %path.display(), "this file system has no locks");
                return Ok(file);
            }
        }
    }
}

/// One command, from its request to the last line of its answer.
async fn converse(stream: Stream, called: mpsc::Sender<Call>) -> io::Result<()> {
    let (from, mut to) = tokio::io::split(stream);
    let mut from = Lines::new(from, limits::REQUEST_BYTES_MAX);
    let opening = match timeout(limits::REQUEST_WAIT, from.next::<Opening<serde_json::Value>>()).await {
        Ok(Ok(Some(opening))) => opening,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => return refuse(&mut to, &format!("the request cannot be read: {error}")).await,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let request = match serde_json::from_value::<Request>(opening.request) {
        Ok(request) if opening.version == VERSION || request.is_for_every_version() => request,
        _ if opening.version != VERSION => {
            let version = env!("CARGO_PKG_VERSION");
            return refuse(&mut to, &format!("the daemon is hffs {version}, and this command another")).await;
        }
        Ok(_) => return Ok(()),
        Err(error) => return refuse(&mut to, &format!("the request cannot be understood: {error}")).await,
    };
    let (queue, mut replies) = mpsc::channel(limits::EVENTS_WAITING_MAX);
    let gone = CancellationToken::new();
    // Whatever way this ends, the work behind the call learns that nobody listens.
    let _on_return = gone.clone().drop_guard();
    let call = Call { request, replies: Replies { queue }, gone: gone.clone() };
    if called.send(call).await.is_err() {
        return refuse(&mut to, "the daemon is stopping").await;
    }
    let mut ready = Vec::with_capacity(limits::EVENTS_AT_ONCE);
    loop {
        tokio::select! {
            _ = replies.recv_many(&mut ready, limits::EVENTS_AT_ONCE) => {}
            heard = from.next::<Interruption>(), if !gone.is_cancelled() => {
                match heard {
                    Ok(Some(Interruption::Cancel)) => { gone.cancel(); continue; }
                    _ => return Ok(()),
                }
            }
        };
        if ready.is_empty() {
            ready.push(Reply::Failed {
                message: "the daemon gave up without an answer".into(),
                hint: Some("its log may tell why".into()),
            });
        }
        // An add of small files has many events at once, and each write wakes the command.
        timeout(limits::REPLY_WAIT, line::write(&mut to, &ready)).await??;
        if !matches!(ready.last(), Some(Reply::Event(_))) {
            return Ok(());
        }
        ready.clear();
    }
}

async fn refuse(to: &mut (impl tokio::io::AsyncWrite + Unpin), message: &str) -> io::Result<()> {
    let hint = Some("hffs daemon stop, then hffs daemon start".to_owned());
    let reply = Reply::Failed { message: crate::names::clean(message, 300), hint };
    timeout(limits::REPLY_WAIT, line::write(to, &[reply])).await?
}
