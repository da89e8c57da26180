//! Sharing: saying what this machine holds, and handing it out.
//!
//! Knows the cache, and who may be told of what. Does not know how peers are reached.
//! Invariant: for whoever may not have it a file does not exist, in no answer of any kind; and no
//! byte leaves before its whole file was verified.
//!
//! What the Hub says is public goes to anybody. Everything else goes only to peers that this
//! machine's user paired with: private and gated repos, what was fetched with a token, and what other
//! tools put here as long as the Hub was not asked about it.

mod hashing;
mod inquiry;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tracing::warn;

use crate::cache::{Blob, Cache, Clue, Held, Unverified};
use crate::config::Access;
use crate::digest::{Digest, spread};
use crate::hub::Hub;
use crate::limits;
use crate::names::{Commit, Repo, RepoPath, Revision, Visibility};
use crate::partial::{Partial, Partials};
use crate::swarm::{Asker, Body, Refusal, Serve};
use crate::tree::{Content, Tree};
use crate::wire::{Answer, Hold, Mark, PieceRequest, Progress, Query, Said, Stand};
use hashing::Hashing;
use inquiry::Inquiries;

/// Answers peers out of the cache. Cheap to clone.
#[derive(Clone)]
pub struct Share {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    /// Unfinished files, once the daemon has them: the swarm that asks has to be there before.
    partials: OnceLock<Partials>,
    hashing: Hashing,
    inquiries: Inquiries,
}

impl Share {
    pub fn new(cache: Cache, hub: Hub, access: Access) -> Self {
        let inner = Inner {
            hashing: Hashing::new(cache.clone()),
            cache,
            partials: OnceLock::new(),
            inquiries: Inquiries::new(hub, access),
        };
        Self { inner: Arc::new(inner) }
    }

    /// From here on, proven pieces of unfinished files are shared too.
    pub fn share_unfinished(&self, partials: Partials) {
        // A second call would bring the same.
        let _ = self.inner.partials.set(partials);
    }
}

impl Serve for Share {
    fn answer(&self, from: Asker, query: Query) -> BoxFuture<'static, Answer> {
        let inner = Arc::clone(&self.inner);
        async move {
            match query {
                Query::Hello => Answer::Hello { agent: concat!("hffs/", env!("CARGO_PKG_VERSION")).to_owned() },
                Query::Resolve { repo, revision } => inner.resolve(from, repo, revision).await,
                Query::Tree { repo, commit, after } => inner.tree(from, repo, commit, after).await,
                Query::Holds { contents } => inner.holds(from, contents).await,
                Query::PieceList { content } => inner.piece_list(from, content).await,
                Query::Stand { content, known } => inner.stand(from, content, known).await,
            }
        }
        .boxed()
    }

    fn open(&self, from: Asker, request: PieceRequest) -> BoxFuture<'static, Result<Body, Refusal>> {
        let inner = Arc::clone(&self.inner);
        async move { inner.open(from, request).await }.boxed()
    }
}

/// What may be said about a content.
enum Standing {
    Verified(Blob),
    Unverified(Unverified),
    /// It is on its way here.
    Unfinished(Arc<Partial>),
    /// It is not here, or not for this asker.
    Nothing,
    /// It is here, and nobody has asked the Hub whether its repo is public.
    Unknown(Repo),
}

impl Inner {
    fn standing(&self, from: &Asker, content: &Content) -> Standing {
        let may_have = from.paired || self.cache.is_public(&content.digest);
        let unfinished =
            || self.partials.get()?.claimed(&content.digest).filter(|partial| partial.content() == *content);
        let at = |path: &Path| match repo_of(self.cache.root(), path) {
            Some(repo) if self.cache.visibility(&content.digest, &repo).is_none() => Standing::Unknown(repo),
            _ => Standing::Nothing,
        };
        match (unfinished(), may_have) {
            (Some(partial), true) => return Standing::Unfinished(partial),
            (Some(partial), false) => return at(partial.path()),
            (None, _) => {}
        }
        match (self.cache.find(content), may_have) {
            (Some(Held::Verified(blob)), true) => Standing::Verified(blob),
            (Some(Held::Unverified(unverified)), true) => Standing::Unverified(unverified),
            (Some(Held::Verified(blob)), false) => at(blob.path()),
            (Some(Held::Unverified(unverified)), false) => at(unverified.path()),
            (None, true) => self.cache.guess(content).map_or(Standing::Nothing, Standing::Unverified),
            (None, false) => Standing::Nothing,
        }
    }

    async fn standings(self: &Arc<Self>, from: &Asker, contents: Vec<Content>) -> Vec<(Content, Standing)> {
        let (this, from) = (Arc::clone(self), from.clone());
        blocking(move || contents.into_iter().map(|content| (content, this.standing(&from, &content))).collect())
            .await
            .unwrap_or_default()
    }

    async fn holds(self: &Arc<Self>, from: Asker, contents: Vec<Content>) -> Answer {
        let mut standings = self.standings(&from, contents).await;
        let mut unknown: HashMap<Repo, Vec<Digest>> = HashMap::new();
        for (content, standing) in &standings {
            if let Standing::Unknown(repo) = standing {
                unknown.entry(repo.clone()).or_default().push(content.digest);
            }
        }
        if !unknown.is_empty() && self.ask_the_hub(unknown).await {
            standings = self.standings(&from, standings.into_iter().map(|(content, _)| content).collect()).await;
        }
        let holds = standings.into_iter().map(|(_, standing)| match standing {
            Standing::Verified(_) => Hold::Whole,
            Standing::Unverified(unverified) => {
                // The asker will want it in a moment, so the hash begins now, or when there is room for it.
                let clue = unverified.clue();
                let _ = self.hashing.begin(unverified);
                // Who waits for what is only the right size may wait in vain; the next question finds it verified.
                if clue == Clue::Size { Hold::No } else { Hold::Whole }
            }
            // With no piece yet it is said as well: the asker may be about to bring the same.
            Standing::Unfinished(partial) => Hold::Pieces(partial.proven().to_bytes()),
            Standing::Nothing | Standing::Unknown(_) => Hold::No,
        });
        Answer::Holds(holds.collect())
    }

    async fn open(self: &Arc<Self>, from: Asker, request: PieceRequest) -> Result<Body, Refusal> {
        let this = Arc::clone(self);
        // A verified file is found and opened in one go: a second visit to another thread would cost more
        // than the bytes of a small one.
        let found = blocking(move || {
            let standing = this.standing(&from, &request.content);
            let opened = if let Standing::Verified(blob) = &standing { Some(blob.open()) } else { None };
            (standing, opened)
        });
        let opened = match found.await.ok_or(Refusal::Missing)? {
            (_, Some(opened)) => opened,
            (Standing::Unverified(unverified), None) => {
                // The hash goes on when this asker is sent away, so that the next request finds it done.
                let hashed = self.hashing.begin(unverified)?;
                let blob = timeout(limits::SHARE_PATIENCE, hashed).await.map_err(|_| hashing::LATER)??;
                blocking(move || blob.open()).await.ok_or(Refusal::Missing)?
            }
            (Standing::Unfinished(partial), None) => return stretch(&partial, request),
            (Standing::Verified(_) | Standing::Nothing | Standing::Unknown(_), None) => return Err(Refusal::Missing),
        };
        match opened {
            Ok(file) => Ok(Body { file: Arc::new(file), offset: request.start, len: request.len }),
            Err(error) => {
                warn!(%error, "could not open a file that a peer asked for");
                Err(Refusal::Missing)
            }
        }
    }

    /// Has the Hub asked about the repos of other tools' files, and notes for all these files what it says,
    /// now or when it was asked before; says whether any is public.
    async fn ask_the_hub(self: &Arc<Self>, unknown: HashMap<Repo, Vec<Digest>>) -> bool {
        let answers = self.inquiries.ask(unknown.keys().cloned()).await;
        let any = answers.iter().any(|(_, visibility)| *visibility == Visibility::Public);
        let this = Arc::clone(self);
        blocking(move || {
            for (repo, visibility) in answers {
                let digests = unknown.get(&repo).map_or(&[][..], Vec::as_slice);
                if let Err(error) = this.cache.set_visibility(digests, &repo, visibility) {
                    warn!(%error, "could not note whom files may be shared with");
                }
            }
        })
        .await;
        any
    }

    /// Whether anybody may know of a commit and its files.
    fn is_public(&self, repo: &Repo, tree: &Tree) -> bool {
        // A repo that went private keeps files from the time when it was public, noted as that. Whoever got
        // the new commit noted its files as restricted, so one such file hides the whole commit.
        let mut noted = tree.iter().filter_map(|(_, content)| self.cache.visibility(&content.digest, repo)).peekable();
        noted.peek().is_some() && noted.all(|to| to == Visibility::Public)
    }

    async fn resolve(self: &Arc<Self>, from: Asker, repo: Repo, revision: Revision) -> Answer {
        let this = Arc::clone(self);
        blocking(move || {
            let word = this.cache.word_on(&repo, &revision).filter(|_| revision.as_commit().is_none());
            // A stranger is not to know what this machine asks for.
            if word.is_none() && from.paired && this.cache.is_finding_out(&repo, &revision, &from.peer) {
                return Some(Answer::Busy);
            }
            // What an endpoint said is known before the files are here, and the ref comes after them.
            let (commit, learned) = match (&word, revision.as_commit()) {
                (_, Some(commit)) => (commit, UNIX_EPOCH),
                (Some(word), None) => (word.commit.clone(), SystemTime::now().checked_sub(word.age)?),
                (None, None) => this.cache.ref_of(&repo, &revision)?,
            };
            // Only a commit whose files are known helps the asker.
            let tree = this.cache.read_tree(&repo, &commit)?;
            let public = this.is_public(&repo, &tree);
            let said = word.filter(|_| public).map(|word| Said {
                endpoint: spread(word.endpoint.as_bytes()),
                age_ms: u64::try_from(word.age.as_millis()).unwrap_or(u64::MAX),
            });
            let learned_unix_secs = learned.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            (from.paired || public).then_some(Answer::Resolved { commit, learned_unix_secs, public, said })
        })
        .await
        .flatten()
        .unwrap_or(Answer::Unknown)
    }

    async fn tree(self: &Arc<Self>, from: Asker, repo: Repo, commit: Commit, after: Option<RepoPath>) -> Answer {
        let this = Arc::clone(self);
        blocking(move || {
            let tree = this.cache.read_tree(&repo, &commit)?;
            if !from.paired && !this.is_public(&repo, &tree) {
                return None;
            }
            let rest = tree.iter().filter(|(path, _)| after.as_ref().is_none_or(|after| *path > after));
            let mut files: Vec<(RepoPath, Content)> =
                rest.take(limits::TREE_PAGE + 1).map(|(path, content)| (path.clone(), content)).collect();
            let more = files.len() > limits::TREE_PAGE;
            files.truncate(limits::TREE_PAGE);
            Some(Answer::Tree { files, more })
        })
        .await
        .flatten()
        .unwrap_or(Answer::Unknown)
    }

    async fn stand(self: &Arc<Self>, from: Asker, content: Content, known: Mark) -> Answer {
        let (this, asker) = (Arc::clone(self), from.clone());
        let standing = blocking(move || this.standing(&asker, &content)).await.unwrap_or(Standing::Nothing);
        Answer::Stand(match standing {
            Standing::Unverified(unverified) if unverified.clue() == Clue::Size => Stand::Gone,
            Standing::Verified(_) | Standing::Unverified(_) => Stand::Whole,
            Standing::Nothing | Standing::Unknown(_) => Stand::Gone,
            Standing::Unfinished(partial) => {
                partial.talk().asked_by(from.peer);
                // First the word, then the pieces: what has come between is told twice, and never left out.
                let word = partial.talk().word();
                let (mark, gained) = partial.proven_since(known);
                let coming = word.coming.into_iter().take(limits::COMING_MAX);
                let coming = coming.map(|pieces| (pieces.start, pieces.end)).collect();
                Stand::Bringing(Progress { mark, gained, coming, drawn: word.drawn, able: word.able })
            }
        })
    }

    async fn piece_list(self: &Arc<Self>, from: Asker, content: Content) -> Answer {
        let this = Arc::clone(self);
        blocking(move || match this.standing(&from, &content) {
            Standing::Verified(_) => Some(Answer::PieceList(this.cache.piece_list(&content)?.to_bytes())),
            _ => None,
        })
        .await
        .flatten()
        .unwrap_or(Answer::Unknown)
    }
}

/// A stretch of an unfinished file, if all of it is proven.
///
/// It is proven now, but not for as long as it is being sent: when a finished file turns out wrong, its
/// pieces are forgotten and fetched anew into the same file, and a transfer that began before sends a mix
/// of both. Its receiver takes no piece that does not match its digest, or else the whole file's. To look
/// again before each block would need the partial's lock beside the network and leave the same gap,
/// smaller.
fn stretch(partial: &Partial, request: PieceRequest) -> Result<Body, Refusal> {
    let cut = partial.cut();
    let last = request.start.saturating_add(request.len).saturating_sub(1);
    let proven = partial.proven();
    if !(cut.at(request.start)..=cut.at(last)).all(|piece| proven.contains(piece)) {
        return Err(Refusal::Missing);
    }
    Ok(Body { file: partial.file(), offset: request.start, len: request.len })
}

/// The repo in whose folder a file of the cache lies.
fn repo_of(root: &Path, file: &Path) -> Option<Repo> {
    let folder = file.strip_prefix(root).ok()?.components().next()?;
    Repo::from_folder(folder.as_os_str().to_str()?)
}

/// Runs disk work where it may block; `None` when the runtime is ending.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
