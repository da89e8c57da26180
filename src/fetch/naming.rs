//! Naming: what a repo's revision means, and which files that is.
//!
//! Knows whom to believe, in order: the Hub, a peer that the user paired with, this machine's own
//! cache. Does not know how files are brought.
//! Invariant: a peer that the user did not pair with is never asked for a name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backon::BackoffBuilder;
use futures::future::join_all;
use tracing::{debug, info};

use super::download::blocking;
use super::{Error, Inner};
use crate::cache::Cache;
use crate::config::Access;
use crate::hub::{self, Grant, Resolved};
use crate::limits;
use crate::names::{Commit, PeerId, Repo, RepoPath, Revision, Visibility};
use crate::swarm;
use crate::tree::Tree;
use crate::wire::{Answer, Query};

/// What a revision means.
#[derive(Debug)]
pub struct Meaning {
    pub commit: Commit,
    pub tree: Tree,
    /// `hub URL`, `peer ID` or `cache`: who said so.
    pub from: String,
    pub(super) grant: Grant,
    /// What the Hub says about whom the repo may be shared with; `None`: the Hub did not say.
    pub(super) visibility: Option<Visibility>,
    /// When the Hub said what the revision means, to whomever it said so.
    pub(super) learned: SystemTime,
    /// Whether `tree` has all files of the commit.
    pub(super) whole: bool,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

impl Inner {
    /// Finds out what a revision means. `named` are the files that the user asked for, if any.
    pub(super) async fn meaning(
        &self,
        access: &Access,
        repo: &Repo,
        revision: &Revision,
        named: &[RepoPath],
    ) -> Result<Meaning, Error> {
        let mut pauses = backon::ExponentialBuilder::default()
            .with_min_delay(limits::ASK_AGAIN)
            .with_max_times(limits::ASK_AGAIN_TIMES)
            .with_jitter()
            .build();
        let (mut meaning, refused) = loop {
            let refused = match self.ask_hub(access, repo, revision, named).await {
                Ok(meaning) => return Ok(meaning),
                Err(error) if error.is_final() && !matches!(error, hub::Error::Offline) => {
                    return Err(Error::Hub(error));
                }
                Err(error) => error,
            };
            info!(%repo, %revision, error = %refused, "the Hub gives no answer; asking paired peers");
            if let Some(meaning) = self.ask_peers(repo, revision).await {
                break (meaning, refused);
            }
            if let Some(meaning) = self.look_in_cache(repo, revision, named).await? {
                break (meaning, refused);
            }
            // Nobody else knows, so a Hub that is only having a bad moment is given another.
            match passes_within(&refused).and_then(|least| Some(pauses.next()?.max(least))) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    return Err(Error::NoName { repo: repo.clone(), revision: revision.clone(), hub: refused });
                }
            }
        };
        if !access.offline {
            meaning.warnings.push(format!("{refused}; the commit is what {} says", meaning.from));
        }
        Ok(meaning)
    }

    async fn ask_hub(
        &self,
        access: &Access,
        repo: &Repo,
        revision: &Revision,
        named: &[RepoPath],
    ) -> Result<Meaning, hub::Error> {
        let resolved = match self.hub.resolve(access, repo, revision).await {
            Ok(resolved) => resolved,
            Err(error) if named.is_empty() || error.is_final() => return Err(error),
            Err(error) => return self.ask_for_entries(access, repo, revision, named).await.ok_or(error),
        };
        let Resolved { commit, visibility, grant, endpoint } = resolved;
        let from = format!("hub {}", endpoint.url);
        let meaning = |tree, warnings: Vec<String>| Meaning {
            commit: commit.clone(),
            tree,
            from: from.clone(),
            grant,
            visibility: Some(visibility),
            learned: SystemTime::now(),
            // Without what was left out, the listing would tell other tools that the snapshot is whole, and
            // later adds would not warn.
            whole: warnings.is_empty(),
            warnings,
        };
        // A commit never changes, so a listing that is here need not be asked for.
        let (cache, asked, at) = (self.cache.clone(), repo.clone(), commit.clone());
        if let Ok(Some(tree)) = blocking(move || cache.read_tree(&asked, &at)).await {
            return Ok(meaning(tree, Vec::new()));
        }
        let listing = self.hub.tree(access, repo, &commit, grant).await?;
        let warnings = listing.refused.iter().map(|refusal| format!("a file was left out: {refusal}")).collect();
        Ok(meaning(listing.tree, warnings))
    }

    /// The last resort with endpoints that serve files but no API: the files that were named, one by one.
    async fn ask_for_entries(
        &self,
        access: &Access,
        repo: &Repo,
        revision: &Revision,
        named: &[RepoPath],
    ) -> Option<Meaning> {
        let mut meaning: Option<Meaning> = None;
        for path in named {
            let entry = self.hub.entry(access, repo, revision, path).await.ok()?;
            let meaning = meaning.get_or_insert_with(|| Meaning {
                commit: entry.commit.clone(),
                tree: Tree::default(),
                from: format!("hub {}", entry.endpoint.url),
                grant: entry.grant,
                visibility: None,
                learned: SystemTime::now(),
                whole: false,
                warnings: Vec::new(),
            });
            if meaning.commit != entry.commit {
                return None;
            }
            meaning.tree.insert(path.clone(), entry.content).ok()?;
        }
        meaning
    }

    /// Asks the paired peers; the one that learned of its answer last is believed.
    async fn ask_peers(&self, repo: &Repo, revision: &Revision) -> Option<Meaning> {
        let paired: Vec<PeerId> =
            self.swarm.active().into_iter().filter(|peer| peer.paired).map(|peer| peer.id).collect();
        let answers = join_all(paired.into_iter().map(|peer| async move {
            let query = Query::Resolve { repo: repo.clone(), revision: revision.clone() };
            match self.ask_peer(&peer, query).await {
                Some(Answer::Resolved { commit, learned_unix_secs }) => Some((learned_unix_secs, peer, commit)),
                _ => None,
            }
        }));
        let mut answers: Vec<_> = answers.await.into_iter().flatten().collect();
        answers.sort_unstable_by(|a, b| b.cmp(a));
        for (learned_unix_secs, peer, commit) in answers {
            if revision.as_commit().is_some_and(|asked| asked != commit) {
                continue;
            }
            if let Some(tree) = self.tree_of_peer(&peer, repo, &commit).await {
                return Some(Meaning {
                    commit,
                    tree,
                    from: format!("peer {peer}"),
                    grant: Grant::Anonymous,
                    visibility: None,
                    learned: learned(learned_unix_secs),
                    whole: true,
                    warnings: Vec::new(),
                });
            }
        }
        None
    }

    /// A peer's answer about names. An add fails without it, so a peer that is busy, or whose connection is
    /// just replaced by another, is asked again for as long as an answer is waited for at all.
    async fn ask_peer(&self, peer: &PeerId, query: Query) -> Option<Answer> {
        let patient = async {
            loop {
                match self.swarm.query(peer, query.clone()).await {
                    Ok(Answer::Busy) | Err(swarm::Error::Busy { .. } | swarm::Error::Gone) => {
                        debug!(%peer, "cannot answer at this moment");
                        tokio::time::sleep(limits::BUSY_RETRY).await;
                    }
                    Ok(answer) => return Some(answer),
                    Err(error) => {
                        debug!(%peer, %error, "could not ask about names");
                        return None;
                    }
                }
            }
        };
        tokio::time::timeout(limits::PEER_ANSWER, patient).await.ok().flatten()
    }

    /// All pages of a commit's files as a paired peer tells them.
    async fn tree_of_peer(&self, peer: &PeerId, repo: &Repo, commit: &Commit) -> Option<Tree> {
        let mut tree = Tree::default();
        let mut after: Option<RepoPath> = None;
        loop {
            let query = Query::Tree { repo: repo.clone(), commit: commit.clone(), after: after.clone() };
            let answer = self.ask_peer(peer, query).await?;
            let Answer::Tree { files, more } = answer else { return None };
            let last = files.last().map(|(path, _)| path.clone());
            for (path, content) in files {
                tree.insert(path, content).ok()?;
            }
            // A page that does not get on would be asked for again for ever.
            if more && last <= after {
                debug!(%peer, "sent a page of files that leads nowhere");
                return None;
            }
            if !more {
                return Some(tree);
            }
            after = last;
        }
    }

    /// What this machine's cache knows: its ref, and the files of that commit. Where no listing was kept,
    /// that is no more than the files that are here, and none that the user names besides.
    async fn look_in_cache(
        &self,
        repo: &Repo,
        revision: &Revision,
        named: &[RepoPath],
    ) -> Result<Option<Meaning>, Error> {
        let (cache, repo, revision, named) = (self.cache.clone(), repo.clone(), revision.clone(), named.to_vec());
        blocking(move || {
            let (commit, learned) = match revision.as_commit() {
                Some(commit) => (commit, UNIX_EPOCH),
                None => cache.ref_of(&repo, &revision)?,
            };
            let (tree, whole) = match cache.read_tree(&repo, &commit) {
                Some(tree) => (tree, true),
                None => (on_disk(&cache, &repo, &commit)?, false),
            };
            if !whole && named.iter().any(|path| tree.get(path).is_none()) {
                return None;
            }
            let mut warnings = Vec::new();
            if !whole && named.is_empty() {
                let files = tree.len();
                warnings.push(format!(
                    "nobody can be asked what the commit holds; {files} of its files are known, because they are here"
                ));
            }
            Some(Meaning {
                commit,
                tree,
                from: "cache".to_owned(),
                grant: Grant::Anonymous,
                visibility: None,
                learned,
                whole,
                warnings,
            })
        })
        .await
    }
}

/// A peer's clock may be ahead of ours, but nothing was learned later than now.
fn learned(unix_secs: u64) -> SystemTime {
    let now = SystemTime::now();
    UNIX_EPOCH.checked_add(Duration::from_secs(unix_secs)).map_or(now, |learned| learned.min(now))
}

/// How long to leave the Hub alone before it is asked again, if there is any use in that: an endpoint
/// that is not there, or says nothing, will not be there in a moment either.
fn passes_within(refused: &hub::Error) -> Option<Duration> {
    match refused {
        hub::Error::Busy { wait, .. } if *wait <= limits::BUSY_WAIT_MAX => Some(*wait),
        hub::Error::Unreachable { tried } => tried
            .iter()
            .filter_map(|attempt| match &attempt.why {
                hub::Failure::Broken(_) | hub::Failure::Lost(_) => Some(Duration::ZERO),
                hub::Failure::Busy(wait) if *wait <= limits::BUSY_WAIT_MAX => Some(*wait),
                _ => None,
            })
            .min(),
        hub::Error::Broken { .. } => Some(Duration::ZERO),
        _ => None,
    }
}

/// The files of a commit that lie in the cache: all that is known where no listing was kept.
fn on_disk(cache: &Cache, repo: &Repo, commit: &Commit) -> Option<Tree> {
    let mut tree = Tree::default();
    for file in cache.files(repo).into_iter().filter(|file| file.commit == *commit) {
        let content = file.content()?;
        tree.insert(file.path, content).ok()?;
    }
    (!tree.is_empty()).then_some(tree)
}
