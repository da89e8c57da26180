//! Adds: the orders that this daemon is carrying out, and those it goes on with after a restart.
//!
//! Knows which adds run and how far each is. Does not know how files are brought.
//! Invariant: an order is on disk from before it starts until it is done, cancelled by its user, or
//! failed for a reason that stays.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backon::BackoffBuilder;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::error::Error;
use super::unfinished::{Ending, Folder, Remembered};
use crate::config::{Access, Settings, Wishes};
use crate::control::{AddEvent, AddRequest, Progress, Running, Talk, docs};
use crate::fetch::{self, Added, Fetcher, FileDone, Order, Report, Tally};
use crate::limits;
use crate::names::RepoPath;
use crate::pace::Throttle;
use crate::tree::Content;

/// All adds of this daemon. Cheap to clone.
#[derive(Clone)]
pub(super) struct Adds {
    inner: Arc<Inner>,
}

struct Inner {
    fetcher: Fetcher,
    folder: Arc<Folder>,
    running: Mutex<BTreeMap<u64, Arc<Board>>>,
    next: AtomicU64,
    /// Places of adds that somebody waits for, and of the others, which never take one of the former.
    attended: Semaphore,
    resumed: Semaphore,
    tracker: TaskTracker,
}

/// Why an add failed, and whether it will go on.
pub(super) struct Failed {
    error: fetch::Error,
    order: Ending,
}

impl Failed {
    pub(super) fn message(&self) -> String {
        self.error.to_string()
    }

    pub(super) fn hint(&self) -> Option<String> {
        let goes_on = match (self.order, &self.error) {
            // Its message says as much.
            (Ending::Forget, _) | (_, fetch::Error::Interrupted) => return self.error.hint(),
            (Ending::Keep, _) => {
                "`hffs model add` goes on where this one stopped, and so does the daemon when it starts again"
            }
        };
        Some(match self.error.hint() {
            Some(hint) => format!("{hint}; {goes_on}"),
            None => goes_on.to_owned(),
        })
    }
}

/// How far one add is.
#[derive(Debug, Default)]
struct Board {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total_bytes: u64,
    /// What finished files count for: their size, and what they cost.
    done_bytes: u64,
    hub_bytes: u64,
    peer_bytes: u64,
    running: BTreeMap<RepoPath, Bringing>,
}

/// A file on its way, or waiting for its turn.
#[derive(Debug)]
struct Bringing {
    content: Content,
    tally: Arc<Tally>,
    /// Whether the command knows that it has begun.
    told: bool,
}

/// An add that shows on the list of those that run, until this is dropped.
struct Shown<'a> {
    adds: &'a Adds,
    number: u64,
    board: Arc<Board>,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        lock(&self.adds.inner.running).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Adds {
    pub(super) fn open(folder: &Path, fetcher: Fetcher) -> Result<Self, Error> {
        let opened = Folder::open(folder).map_err(|source| Error::Unfinished { path: folder.to_owned(), source })?;
        let inner = Inner {
            fetcher,
            folder: Arc::new(opened),
            running: Mutex::default(),
            next: AtomicU64::new(0),
            attended: Semaphore::new(limits::ADDS_AT_ONCE),
            resumed: Semaphore::new(limits::RESUMED_ADDS_AT_ONCE),
            tracker: TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Goes on with what a daemon before this one did not finish.
    pub(super) fn go_on(&self, wishes: &Wishes, settings: &Settings, stopping: &CancellationToken) {
        for (path, order) in self.inner.folder.all() {
            info!(repo = %order.repo, "going on with an unfinished add");
            let Remembered { repo, revision, files, include, exclude, wishes: own, limit_rate } = order;
            let access = Access::from_wishes(own.or(wishes, settings), settings);
            let limit = limit_rate.map(|rate| Throttle::new(Some(rate)));
            let order = Order { repo, revision, files, include, exclude, access, limit };
            // Noted before any command can come, so that one for an equal order finds it.
            let stop = self.inner.folder.resume(&path, stopping);
            let (this, stopping) = (self.clone(), stopping.clone());
            self.inner.tracker.spawn(async move {
                let ending = this.finish(&order, &stop).await;
                // What the daemon's end has stopped goes on at the next start.
                let ending = if stopping.is_cancelled() { Ending::Keep } else { ending };
                this.inner.folder.leave_resumed(&path, ending);
            });
        }
    }

    /// Waits until every add has stopped. The daemon's stop token has been cancelled before.
    pub(super) async fn ended(&self) {
        self.inner.tracker.close();
        if tokio::time::timeout(limits::SHUTDOWN / 2, self.inner.tracker.wait()).await.is_err() {
            warn!("an add did not stop in time; what it has is on disk");
        }
    }

    /// Tries an order until it is done, cannot be, or is stopped.
    async fn finish(&self, order: &Order, stop: &CancellationToken) -> Ending {
        let mut pauses = backon::ExponentialBuilder::default()
            .with_min_delay(limits::RETRY_ADD)
            .with_max_delay(limits::RETRY_ADD_MAX)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            // It shows during the pause too: whoever wants it stopped must be able to see it.
            let shown = self.show(order);
            match self.try_once(order, &shown.board, stop).await {
                Ok(added) => {
                    info!(repo = %order.repo, files = added.files.len(), "an unfinished add is done");
                    return Ending::Forget;
                }
                Err(_) if stop.is_cancelled() => return Ending::Forget,
                Err(error) if error.may_pass() => {
                    let pause = pauses.next().unwrap_or(limits::RETRY_ADD_MAX);
                    warn!(repo = %order.repo, %error, ?pause, "an unfinished add failed and is tried again");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stop.cancelled() => return Ending::Forget,
                    }
                }
                // The command may have brought a token, and that is written down nowhere.
                Err(error) if error.wants_token() => {
                    warn!(repo = %order.repo, %error, "an unfinished add waits for `hffs model add` with a token");
                    return Ending::Keep;
                }
                Err(error) => {
                    warn!(repo = %order.repo, %error, "an unfinished add cannot be finished");
                    return Ending::Forget;
                }
            }
        }
    }

    async fn try_once(&self, order: &Order, board: &Board, stop: &CancellationToken) -> Result<Added, fetch::Error> {
        let _place = place(&self.inner.resumed, stop).await?;
        let report = |report: Report| board.take(&report);
        self.inner.fetcher.add_unattended(order, &report, stop).await
    }

    /// Carries out an order for a command that waits; `tell` must not block.
    pub(super) async fn add(
        &self,
        request: &AddRequest,
        access: Access,
        tell: &(dyn Fn(AddEvent) + Send + Sync),
        gone: &CancellationToken,
        stopping: &CancellationToken,
    ) -> Result<docs::Added, Failed> {
        let path = match self.remember(Remembered::of(request)).await {
            Ok(path) => Some(path),
            Err(error) => {
                tell(AddEvent::Warning { text: format!("this add will not go on after a restart: {error}") });
                None
            }
        };
        let AddRequest { repo, revision, files, include, exclude, limit_rate, .. } = request.clone();
        let limit = limit_rate.map(|rate| Throttle::new(Some(rate)));
        let order = Order { repo, revision, files, include, exclude, access, limit };
        let shown = self.show(&order);
        let board = &shown.board;
        let report = |report: Report| {
            board.take(&report);
            if let Some(event) = self.event(report, shown.number, request.talk) {
                tell(event);
            }
        };
        let adding = async {
            if self.inner.attended.available_permits() == 0 {
                tell(AddEvent::Warning { text: format!("waiting, because {} adds run", limits::ADDS_AT_ONCE) });
            }
            let _place = place(&self.inner.attended, gone).await?;
            self.inner.fetcher.add(&order, &report, gone).await
        };
        let telling = async {
            let mut every = tokio::time::interval(limits::PROGRESS_EVERY);
            loop {
                every.tick().await;
                board.begun().into_iter().for_each(tell);
                tell(AddEvent::Progress(board.progress()));
            }
        };
        let result = tokio::select! {
            result = adding => result,
            () = telling => Err(fetch::Error::Interrupted),
            () = stopping.cancelled() => Err(fetch::Error::Interrupted),
        };
        let ending = match (&result, &path) {
            (Err(error), Some(_)) if error.may_pass() => Ending::Keep,
            _ => Ending::Forget,
        };
        if let Some(path) = &path {
            self.inner.folder.leave(path, ending);
        }
        match result {
            Ok(added) => Ok(document(&order, added)),
            Err(error) => Err(Failed { error, order: ending }),
        }
    }

    async fn remember(&self, order: Remembered) -> io::Result<PathBuf> {
        let folder = Arc::clone(&self.inner.folder);
        tokio::task::spawn_blocking(move || folder.join(&order)).await.unwrap_or_else(|error| Err(error.into()))
    }

    fn show(&self, order: &Order) -> Shown<'_> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let board = Arc::new(Board { name: order.repo.to_string(), state: Mutex::default() });
        lock(&self.inner.running).insert(number, Arc::clone(&board));
        Shown { adds: self, number, board }
    }

    /// The adds that run beside this one, each with how far it is.
    fn beside(&self, number: u64) -> Vec<String> {
        lock(&self.inner.running)
            .iter()
            .filter(|(other, _)| **other != number)
            .map(|(_, board)| {
                let progress = board.progress();
                match (progress.done_bytes * 100).checked_div(progress.total_bytes) {
                    Some(percent) => format!("{} ({percent} %)", board.name),
                    None => board.name.clone(),
                }
            })
            .collect()
    }

    /// What a command is told of a report at once. That a file has begun is told by `Board::begun`.
    fn event(&self, report: Report, number: u64, talk: Talk) -> Option<AddEvent> {
        Some(match report {
            Report::Resolved { commit, from, files, bytes } => {
                AddEvent::Resolved { commit, from, files, bytes, also_running: self.beside(number) }
            }
            Report::Warning(text) => AddEvent::Warning { text },
            Report::Started { .. } => return None,
            Report::Done(file) => AddEvent::FileDone(file_document(file)),
            Report::Note(text) => (talk == Talk::Decisions).then_some(AddEvent::Note { text })?,
        })
    }
}

/// Waits for a place among the adds that run.
async fn place<'a>(places: &'a Semaphore, gone: &CancellationToken) -> Result<SemaphorePermit<'a>, fetch::Error> {
    tokio::select! {
        place = places.acquire() => place.map_err(|_| fetch::Error::Interrupted),
        () = gone.cancelled() => Err(fetch::Error::Cancelled),
    }
}

impl Board {
    fn take(&self, report: &Report) {
        let mut state = lock(&self.state);
        match report {
            Report::Resolved { bytes, .. } => state.total_bytes = *bytes,
            Report::Started { path, content, tally } => {
                let bringing = Bringing { content: *content, tally: Arc::clone(tally), told: false };
                state.running.insert(path.clone(), bringing);
            }
            Report::Done(file) => {
                state.running.remove(&file.path);
                state.done_bytes += file.content.size;
                if let Some(tally) = &file.tally {
                    state.hub_bytes += tally.hub_bytes();
                    state.peer_bytes += tally.peer_bytes().values().sum::<u64>();
                }
            }
            Report::Warning(_) | Report::Note(_) => {}
        }
    }

    /// The files that have begun since the last call. One that waits for its turn has not, and until then
    /// nobody knows how much of it is on disk.
    fn begun(&self) -> Vec<AddEvent> {
        let mut state = lock(&self.state);
        let begun = state
            .running
            .iter_mut()
            .filter(|(_, file)| !file.told && (file.tally.done_bytes() > 0 || file.tally.busy_sources() != (0, 0)));
        begun
            .map(|(path, file)| {
                file.told = true;
                let resumed = file.tally.resumed_bytes();
                AddEvent::FileStarted { path: path.clone(), size: file.content.size, resumed }
            })
            .collect()
    }

    fn progress(&self) -> Progress {
        let state = lock(&self.state);
        let running: Vec<Running> = state
            .running
            .iter()
            .map(|(path, Bringing { content, tally, .. })| {
                let (peers, endpoints) = tally.busy_sources();
                Running {
                    path: path.clone(),
                    digest: content.digest,
                    size: content.size,
                    done_bytes: tally.done_bytes(),
                    hub_bytes: tally.hub_bytes(),
                    peer_bytes: tally.peer_bytes().values().sum(),
                    peers,
                    endpoints,
                }
            })
            .collect();
        Progress {
            done_bytes: state.done_bytes + running.iter().map(|file| file.done_bytes).sum::<u64>(),
            total_bytes: state.total_bytes,
            hub_bytes: state.hub_bytes + running.iter().map(|file| file.hub_bytes).sum::<u64>(),
            peer_bytes: state.peer_bytes + running.iter().map(|file| file.peer_bytes).sum::<u64>(),
            running: running
                .into_iter()
                .filter(|file| file.peers + file.endpoints > 0)
                .take(limits::PROGRESS_FILES_MAX)
                .collect(),
        }
    }
}

fn document(order: &Order, added: Added) -> docs::Added {
    docs::Added {
        repo_id: order.repo.id.clone(),
        repo_type: order.repo.kind,
        commit: added.commit,
        files: added.files.into_iter().map(file_document).collect(),
    }
}

fn file_document(file: FileDone) -> docs::AddedFile {
    let tally = file.tally.unwrap_or_default();
    docs::AddedFile {
        path: file.path,
        size: file.content.size,
        etag: file.content.digest,
        local_path: file.local_path,
        hub_bytes: tally.hub_bytes(),
        peer_bytes: tally.peer_bytes(),
        resumed_bytes: tally.resumed_bytes(),
        cached: file.cached,
        seconds: file.seconds,
    }
}
