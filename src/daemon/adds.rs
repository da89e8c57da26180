//! Adds: the orders that this daemon is carrying out, and those it goes on with after a restart.
//!
//! Knows which adds run and how far each is. Does not know how files are brought.
//! Invariant: an order is on disk from before it starts until it is done, cancelled by its user, or
//! failed for good.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backon::BackoffBuilder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::error::Error;
use super::unfinished::{Folder, Remembered};
use crate::config::{Access, Settings, Wishes};
use crate::control::{AddEvent, AddRequest, Progress, Running, Talk, docs};
use crate::fetch::{self, Added, Fetcher, FileDone, Order, Report, Tally};
use crate::limits;
use crate::names::RepoPath;
use crate::tree::Content;

/// All adds of this daemon. Cheap to clone.
#[derive(Clone)]
pub(super) struct Adds {
    inner: Arc<Inner>,
}

struct Inner {
    fetcher: Fetcher,
    folder: Folder,
    running: Mutex<BTreeMap<u64, Arc<Board>>>,
    next: std::sync::atomic::AtomicU64,
    tracker: TaskTracker,
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
    running: BTreeMap<RepoPath, (Content, Arc<Tally>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Adds {
    pub(super) fn open(folder: &Path, fetcher: Fetcher) -> Result<Self, Error> {
        let opened = Folder::open(folder).map_err(|source| Error::Unfinished { path: folder.to_owned(), source })?;
        let inner = Inner {
            fetcher,
            folder: opened,
            running: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(0),
            tracker: TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Goes on with what a daemon before this one did not finish.
    pub(super) fn go_on(&self, wishes: &Wishes, settings: &Settings, stopping: &CancellationToken) {
        for (path, order) in self.inner.folder.all() {
            info!(repo = %order.repo, "going on with an unfinished add");
            let access = Access::from_wishes(order.wishes.clone().or(wishes, settings), settings);
            let (this, stopping) = (self.clone(), stopping.clone());
            self.inner.tracker.spawn(async move { this.finish(&path, order, access, &stopping).await });
        }
    }

    /// Waits until every add has stopped. The daemon's stop token has been cancelled before.
    pub(super) async fn ended(&self) {
        self.inner.tracker.close();
        if tokio::time::timeout(limits::SHUTDOWN / 2, self.inner.tracker.wait()).await.is_err() {
            warn!("an add did not stop in time; what it has is on disk");
        }
    }

    /// Tries an order until it is done or cannot be.
    async fn finish(&self, path: &Path, order: Remembered, access: Access, stopping: &CancellationToken) {
        let Remembered { repo, revision, files, include, exclude, wishes: _ } = order;
        let order = Order { repo, revision, files, include, exclude, access };
        let mut pauses = backon::ExponentialBuilder::default()
            .with_min_delay(limits::RETRY_ADD)
            .with_max_delay(limits::RETRY_ADD_MAX)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let (number, board) = self.enter(&order);
            let report = |report: Report| board.take(&report);
            let result = self.inner.fetcher.add_unattended(&order, &report, stopping).await;
            self.leave(number);
            match result {
                Ok(added) => {
                    info!(repo = %order.repo, files = added.files.len(), "an unfinished add is done");
                    return self.inner.folder.forget(path);
                }
                Err(_) if stopping.is_cancelled() => return,
                Err(error) if error.may_pass() => {
                    let pause = pauses.next().unwrap_or(limits::RETRY_ADD_MAX);
                    warn!(repo = %order.repo, %error, ?pause, "an unfinished add failed and is tried again");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stopping.cancelled() => return,
                    }
                }
                Err(error) => {
                    warn!(repo = %order.repo, %error, "an unfinished add cannot be finished");
                    return self.inner.folder.forget(path);
                }
            }
        }
    }

    /// Carries out an order for a command that waits; `tell` must not block.
    pub(super) async fn add(
        &self,
        request: &AddRequest,
        access: Access,
        tell: &(dyn Fn(AddEvent) + Send + Sync),
        gone: &CancellationToken,
        stopping: &CancellationToken,
    ) -> Result<docs::Added, fetch::Error> {
        let remembered = Remembered::of(request);
        let folder_file = match self.inner.folder.remember(&remembered) {
            Ok(path) => Some(path),
            Err(error) => {
                tell(AddEvent::Warning { text: format!("this add will not go on after a restart: {error}") });
                None
            }
        };
        let AddRequest { repo, revision, files, include, exclude, .. } = request.clone();
        let order = Order { repo, revision, files, include, exclude, access };
        let also_running = self.names();
        let (number, board) = self.enter(&order);
        let report = |report: Report| {
            board.take(&report);
            if let Some(event) = event(report, &also_running, request.talk) {
                tell(event);
            }
        };
        let adding = self.inner.fetcher.add(&order, &report, gone);
        let telling = async {
            let mut every = tokio::time::interval(limits::PROGRESS_EVERY);
            loop {
                every.tick().await;
                tell(AddEvent::Progress(board.progress()));
            }
        };
        let result = tokio::select! {
            result = adding => Some(result),
            () = telling => None,
            () = stopping.cancelled() => None,
        };
        self.leave(number);
        let result = result.unwrap_or(Err(fetch::Error::Interrupted));
        if !stopping.is_cancelled()
            && let Some(path) = folder_file
        {
            self.inner.folder.forget(&path);
        }
        result.map(|added| document(&order, added))
    }

    fn enter(&self, order: &Order) -> (u64, Arc<Board>) {
        let number = self.inner.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let board = Arc::new(Board { name: order.repo.to_string(), state: Mutex::default() });
        lock(&self.inner.running).insert(number, Arc::clone(&board));
        (number, board)
    }

    fn leave(&self, number: u64) {
        lock(&self.inner.running).remove(&number);
    }

    /// The adds that run, each with how far it is.
    fn names(&self) -> Vec<String> {
        lock(&self.inner.running)
            .values()
            .map(|board| {
                let progress = board.progress();
                match (progress.done_bytes * 100).checked_div(progress.total_bytes) {
                    Some(percent) => format!("{} ({percent} %)", board.name),
                    None => board.name.clone(),
                }
            })
            .collect()
    }
}

impl Board {
    fn take(&self, report: &Report) {
        let mut state = lock(&self.state);
        match report {
            Report::Resolved { bytes, .. } => state.total_bytes = *bytes,
            Report::Started { path, content, tally } => {
                state.running.insert(path.clone(), (*content, Arc::clone(tally)));
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

    fn progress(&self) -> Progress {
        let state = lock(&self.state);
        let running: Vec<Running> = state
            .running
            .iter()
            .map(|(path, (content, tally))| {
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

/// What a command is told of a report.
fn event(report: Report, also_running: &[String], talk: Talk) -> Option<AddEvent> {
    Some(match report {
        Report::Resolved { commit, from, files, bytes } => {
            AddEvent::Resolved { commit, from, files, bytes, also_running: also_running.to_vec() }
        }
        Report::Warning(text) => AddEvent::Warning { text },
        Report::Started { path, content, tally } => {
            AddEvent::FileStarted { path, size: content.size, resumed: tally.resumed_bytes() }
        }
        Report::Done(file) => AddEvent::FileDone(file_document(file)),
        Report::Note(text) => (talk == Talk::Decisions).then_some(AddEvent::Note { text })?,
    })
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
