//! What endpoints said lately of revisions, and which revisions are being asked about at this moment.
//!
//! Knows it in memory alone, for as long as a peer may take such a word instead of asking an endpoint itself. Does not
//! know whom it may be told to.
//! Invariant: a word is as old as the question that it answers, going by a clock that nobody sets.
//!
//! Machines that begin together would all ask the Hub the same. So whoever is finding out has a turn, and peers that
//! ask what it knows are told to wait for it: always, once it asks an endpoint; before, while it asks its own peers,
//! only if their id is higher. So no two ever wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Cache, Room};
use crate::limits;
use crate::names::{Commit, PeerId, Repo, Revision};

type Name = (Repo, Revision);

/// What an endpoint said that a revision means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub commit: Commit,
    /// The URL of the endpoint.
    pub endpoint: String,
    /// How long ago it was asked.
    pub age: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Lately {
    said: HashMap<Name, (Instant, Commit, String)>,
    turns: HashMap<Name, Turns>,
}

/// Who of this machine is finding out about one revision.
#[derive(Debug)]
struct Turns {
    /// This machine.
    me: PeerId,
    /// Asks its peers.
    looking: usize,
    /// Asks an endpoint.
    asking: usize,
    /// A peer that would be waited for was told that nothing is known, and may be finding out by now.
    passed: bool,
}

/// Somebody is finding out what a revision means; ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    room: Arc<Room>,
    name: Name,
    /// Since when an endpoint is asked.
    asking: Option<Instant>,
}

impl Cache {
    /// Begins to find out what a revision means; `me` is this machine.
    pub fn find_out(&self, me: &PeerId, repo: &Repo, revision: &Revision) -> Turn {
        let name = (repo.clone(), revision.clone());
        let mut lately = self.0.lately();
        lately.said.retain(|_, (at, ..)| at.elapsed() < limits::NAME_AGE);
        let new = || Turns { me: me.clone(), looking: 0, asking: 0, passed: false };
        lately.turns.entry(name.clone()).or_insert_with(new).looking += 1;
        Turn { room: Arc::clone(&self.0), name, asking: None }
    }

    /// What an endpoint said lately that a revision means.
    pub fn word_on(&self, repo: &Repo, revision: &Revision) -> Option<Word> {
        let lately = self.0.lately();
        let (at, commit, endpoint) = lately.said.get(&(repo.clone(), revision.clone()))?;
        let age = at.elapsed();
        (age < limits::NAME_AGE).then(|| Word { commit: commit.clone(), endpoint: endpoint.clone(), age })
    }

    /// Whether a peer that may be finding out as well had better wait for what this machine finds out.
    pub fn is_finding_out(&self, repo: &Repo, revision: &Revision, asker: &PeerId) -> bool {
        let mut lately = self.0.lately();
        let Some(turns) = lately.turns.get_mut(&(repo.clone(), revision.clone())) else { return false };
        let waits = turns.asking > 0 || turns.me < *asker;
        turns.passed |= !waits;
        waits
    }
}

impl Turn {
    /// Whether a peer whose word would be waited for has asked since this was last called.
    pub fn was_passed(&self) -> bool {
        self.room.lately().turns.get_mut(&self.name).is_some_and(|turns| std::mem::take(&mut turns.passed))
    }

    /// From here on an endpoint is asked.
    pub fn asks_an_endpoint(&mut self) {
        let mut lately = self.room.lately();
        if let Some(turns) = lately.turns.get_mut(&self.name)
            && self.asking.replace(Instant::now()).is_none()
        {
            turns.looking = turns.looking.saturating_sub(1);
            turns.asking += 1;
        }
    }

    /// Notes what the endpoint said. Whoever asks from here on is told, if the commit's tree is here.
    pub fn was_told(self, commit: &Commit, endpoint: &str) {
        let Some(at) = self.asking else { return };
        let mut lately = self.room.lately();
        if lately.said.len() < limits::NAMES_SAID_MAX || lately.said.contains_key(&self.name) {
            lately.said.insert(self.name.clone(), (at, commit.clone(), endpoint.to_owned()));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lately = self.room.lately();
        if let Some(turns) = lately.turns.get_mut(&self.name) {
            let count = if self.asking.is_some() { &mut turns.asking } else { &mut turns.looking };
            *count = count.saturating_sub(1);
            if turns.looking + turns.asking == 0 {
                lately.turns.remove(&self.name);
            }
        }
    }
}

impl Room {
    fn lately(&self) -> MutexGuard<'_, Lately> {
        // Each change is complete in itself, so a panic elsewhere leaves it true.
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PeerId {
        text.parse().unwrap()
    }

    #[test]
    fn of_two_that_find_out_together_one_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("hub"), &dir.path().join("hffs")).unwrap();
        let repo = Repo { kind: Default::default(), id: "org/m".parse().unwrap() };
        let main = Revision::main();
        let me = id("12D3KooWGjMt6bKqtDMwUCvqpyAkMxSJCwfZNCaHpXwBqWvGNbxW");
        let (lower, higher) =
            (id(&me.to_string().replace("KooWG", "KooWA")), id(&me.to_string().replace("KooWG", "KooWZ")));
        let waits = |asker: &PeerId| cache.is_finding_out(&repo, &main, asker);
        assert!(!waits(&lower) && !waits(&higher), "nobody is finding out");

        let mut turn = cache.find_out(&me, &repo, &main);
        assert!(waits(&higher) && !turn.was_passed());
        assert!(!waits(&lower) && turn.was_passed() && !turn.was_passed());
        turn.asks_an_endpoint();
        assert!(waits(&higher) && waits(&lower), "the Hub is asked already");
        assert_eq!(cache.word_on(&repo, &main), None);

        let commit: Commit = "c".repeat(40).parse().unwrap();
        turn.was_told(&commit, "https://hub.test");
        assert!(!waits(&higher) && !waits(&lower));
        let word = cache.word_on(&repo, &main).unwrap();
        assert_eq!((word.commit, word.endpoint.as_str()), (commit, "https://hub.test"));

        drop(cache.find_out(&me, &repo, &"v1".parse().unwrap()));
        assert!(cache.0.lately().turns.is_empty());
    }
}
