//! Inquiries: whether the Hub shows a repo to anybody, asked for files that other tools put here.
//!
//! Knows whose answers count, and for how long. Does not know what follows from them.
//! Invariant: nobody but the Hub that the user named is asked, and never with a token; and about one repo
//! there is one question in `VISIBILITY_AGE`, however many peers wait for its answer.
//!
//! A stranger's question is what makes us ask, so all of this is bounded as if strangers were out to make
//! us a nuisance to the Hub.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::config::{Access, Endpoint, Role};
use crate::hub::{self, Hub, Resolved};
use crate::limits;
use crate::names::{Repo, Revision, Visibility};

/// What the Hub says of a repo; `None`: nothing.
type Answer = Shared<BoxFuture<'static, Option<Visibility>>>;

/// The questions of one daemon.
pub(super) struct Inquiries {
    hub: Hub,
    /// How the Hub is reached; `None`: there is none to ask.
    access: Option<Access>,
    /// The user's own questions to the Hub go first, so few of these are under way at a time.
    turns: Arc<Semaphore>,
    asked: Mutex<HashMap<Repo, (Instant, Answer)>>,
}

impl Inquiries {
    pub(super) fn new(hub: Hub, access: Access) -> Self {
        // A mirror's word is not the Hub's, and no mirror need learn what this machine's private repos are
        // called. The token stays away because the question is what those without one are shown.
        let endpoints: Vec<Endpoint> =
            access.endpoints.iter().filter(|endpoint| endpoint.role == Role::Hub).cloned().collect();
        let can_ask = !access.offline && !endpoints.is_empty();
        let access = can_ask.then_some(Access { endpoints, token: None, ..access });
        let turns = Arc::new(Semaphore::new(limits::VISIBILITY_QUESTIONS));
        Self { hub, access, turns, asked: Mutex::default() }
    }

    /// What the Hub says of repos, as far as that is known within `SHARE_PATIENCE`. A slower answer is
    /// there for whoever asks next.
    pub(super) async fn ask(&self, repos: impl IntoIterator<Item = Repo>) -> Vec<(Repo, Visibility)> {
        let answers = repos.into_iter().filter_map(|repo| Some((self.answer(&repo)?, repo)));
        let answers = answers.map(|(answer, repo)| async move {
            let visibility = timeout(limits::SHARE_PATIENCE, answer).await.ok()??;
            Some((repo, visibility))
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    /// The answer of the last question about the repo, be it under way, or of a new one.
    fn answer(&self, repo: &Repo) -> Option<Answer> {
        let access = self.access.clone()?;
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, (at, answer)| {
            let age = match answer.peek() {
                Some(None) => limits::VISIBILITY_SILENCE,
                _ => limits::VISIBILITY_AGE,
            };
            now.saturating_duration_since(*at) < age
        });
        if let Some((_, answer)) = asked.get(repo) {
            return Some(answer.clone());
        }
        if asked.len() >= limits::VISIBILITIES_MAX {
            return None;
        }
        let (hub, turns, of) = (self.hub.clone(), Arc::clone(&self.turns), repo.clone());
        // A task of its own, so that the answer comes even when all who wait for it leave.
        let question = tokio::spawn(async move {
            let _turn = turns.acquire().await.ok()?;
            let answer = timeout(limits::VISIBILITY_WAIT, hub.resolve(&access, &of, &Revision::main())).await.ok()?;
            let visibility = meaning(answer);
            debug!(repo = %of, ?visibility, "asked the Hub whom another tool's files may be shared with");
            visibility
        });
        let answer = question.map(|answer| answer.ok().flatten()).boxed().shared();
        asked.insert(repo.clone(), (now, answer.clone()));
        Some(answer)
    }
}

/// What an answer says of a repo. Only the Hub's own no makes it restricted: that is written down for good,
/// while a repo without a `main`, a portal's page or a broken proxy tell nothing about it.
fn meaning(answer: Result<Resolved, hub::Error>) -> Option<Visibility> {
    use hub::Error as E;
    match answer {
        Ok(resolved) => Some(resolved.visibility),
        Err(
            E::NoRepo { .. }
            | E::NeedsToken { .. }
            | E::Gated { .. }
            | E::Disabled { .. }
            | E::Denied { .. }
            | E::BadToken { .. },
        ) => Some(Visibility::Restricted),
        Err(_) => None,
    }
}
