//! Shared downloads: adds that want the same digest wait for one download.
//!
//! Knows who waits for what, and ends a download that nobody waits for. Does not know how bytes come.
//! Invariant: a download runs while at least one add is interested, and its outcome reaches all of
//! them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::download::{Claimed, Task};
use super::landing::lock;
use super::turns::AddId;
use super::{Attended, Error, Inner, Nameless, Order, Tally};
use crate::hub::Place;
use crate::limits;
use crate::pace::{Joint, Member};

/// How a content came to its place.
#[derive(Debug, Clone)]
pub(super) enum Brought {
    Fetched(PathBuf),
    /// It was on this machine already.
    Linked(PathBuf),
}

type Outcome = Result<Brought, Arc<Error>>;

/// A running download, as the others see it.
pub(super) struct Shared {
    outcome: watch::Receiver<Option<Outcome>>,
    tally: Arc<Tally>,
    interest: Arc<Interest>,
}

/// How many adds wait for a download.
struct Interest {
    waiting: AtomicUsize,
    /// Whether an add has taken the bytes on its account; they are told once.
    accounted: AtomicBool,
    nobody: CancellationToken,
    /// How fast they may have it.
    pace: Arc<Joint>,
}

/// One add's interest in a download; dropping it may end the download.
pub(super) struct Ticket {
    outcome: watch::Receiver<Option<Outcome>>,
    tally: Arc<Tally>,
    interest: Arc<Interest>,
    /// Whether the bytes go on this add's account.
    owns: bool,
    pace: Member,
}

impl Shared {
    /// Joins the download of a digest that runs, or starts it; says whether it was started.
    pub(super) fn join(
        inner: &Arc<Inner>,
        order: &Order,
        place: &Place,
        (add, attended): (AddId, Attended),
    ) -> (Ticket, bool) {
        let mut running = lock(&inner.running);
        if let Some(shared) = running.get(&place.content.digest)
            && !shared.interest.nobody.is_cancelled()
            && shared.outcome.borrow().is_none()
        {
            shared.interest.waiting.fetch_add(1, Ordering::AcqRel);
            return (shared.ticket(false, order), false);
        }
        let (sender, outcome) = watch::channel(None);
        let interest = Arc::new(Interest {
            waiting: AtomicUsize::new(1),
            accounted: AtomicBool::new(attended == Attended::Yes),
            nobody: CancellationToken::new(),
            pace: Arc::default(),
        });
        let tally = Arc::new(Tally::default());
        let task = Task {
            inner: Arc::clone(inner),
            access: order.access.clone(),
            place: place.clone(),
            tally: Arc::clone(&tally),
            pace: Arc::clone(&interest.pace),
        };
        let shared = Shared { outcome, tally, interest: Arc::clone(&interest) };
        let ticket = shared.ticket(attended == Attended::Yes, order);
        running.insert(place.content.digest, shared);
        drop(running);
        tokio::spawn(run(task, add, interest, sender));
        (ticket, true)
    }

    fn ticket(&self, owns: bool, order: &Order) -> Ticket {
        Ticket {
            outcome: self.outcome.clone(),
            tally: Arc::clone(&self.tally),
            interest: Arc::clone(&self.interest),
            owns,
            pace: self.interest.pace.join(order.limit.clone()),
        }
    }
}

impl Ticket {
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The tally, if the bytes go on this add's account: the one that began the download, or, when that
    /// one is gone, whoever asks first.
    pub(super) fn claim_tally(&self) -> Option<Arc<Tally>> {
        (self.owns || !self.interest.accounted.swap(true, Ordering::AcqRel)).then(|| self.tally())
    }

    /// Waits for the end of the download.
    pub(super) async fn outcome(&self) -> Result<Brought, Error> {
        let mut outcome = self.outcome.clone();
        let end = outcome.wait_for(Option::is_some).await.map_err(|_| Error::Interrupted)?.clone();
        match end {
            Some(Ok(brought)) => Ok(brought),
            Some(Err(error)) => Err(error.retold()),
            None => Err(Error::Interrupted),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // An add that was cancelled tells nobody what its download cost.
        if self.owns && self.outcome.borrow().is_none() {
            self.interest.accounted.store(false, Ordering::Release);
        }
        self.interest.pace.leave(&self.pace);
        if self.interest.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.interest.nobody.cancel();
        }
    }
}

/// Runs a download to its end and tells the outcome.
async fn run(task: Task, add: AddId, interest: Arc<Interest>, sender: watch::Sender<Option<Outcome>>) {
    let inner = Arc::clone(&task.inner);
    let digest = task.place.content.digest;
    let result = tokio::select! {
        result = bring(&task, add) => result,
        () = interest.nobody.cancelled() => {
            debug!(path = %task.place.path, "nobody wants it any more");
            Err(Error::Cancelled)
        }
    };
    // The entry goes first: who joins from here on finds the file, or begins anew.
    {
        let mut running = lock(&inner.running);
        if running.get(&digest).is_some_and(|shared| Arc::ptr_eq(&shared.interest, &interest)) {
            running.remove(&digest);
        }
    }
    sender.send_replace(Some(result.map_err(Arc::new)));
}

async fn bring(task: &Task, add: AddId) -> Result<Brought, Error> {
    let inner = &task.inner;
    let small = task.place.content.size <= limits::SMALL_FILE_BYTES;
    // A large file may wait long for its turn, and for nothing if it is here.
    if !small && let Some(path) = inner.link_local(&task.place, Nameless::Hashed).await? {
        return Ok(Brought::Linked(path));
    }
    let turns = if small { &inner.small } else { &inner.large };
    let _turn = turns.take(add).await?;
    match task.claim(if small { Nameless::Hashed } else { Nameless::Left }).await? {
        Claimed::Here(path) => Ok(Brought::Linked(path)),
        Claimed::Partial(partial) => task.run(partial).await.map(Brought::Fetched),
    }
}
