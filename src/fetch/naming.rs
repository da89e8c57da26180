//! Naming: what a repo's revision means, and which files that is.
//!
//! Knows whom to believe, in order: the Hub, a peer that the user paired with, this machine's own
//! cache. Does not know how files are brought.
//! Invariant: a peer that the user did not pair with is never asked for a name.
//!
//! A lab shares one rate limit, so a paired peer that can pass on the Hub's word is asked before the Hub. Its word is
//! taken for that only if an endpoint that this command asks too told the peer itself, `NAME_AGE` ago at most, and told
//! it without a token: what only a token opens, each machine asks for with its own. Of a commit's files a paired peer's
//! word is as good at any age. Whom the files may be shared with is not taken from it: until the Hub was asked, which
//! `share` does when a stranger wants them, they are given to paired peers alone. When the Hub then says that a repo is
//! public, a false list could make other files pass for its own; but a paired peer may have every file here anyway.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::BackoffBuilder;
use futures::future::join_all;
use tracing::{debug, info};

use super::download::blocking;
use super::{Error, Inner};
use crate::cache::{Cache, Turn};
use crate::config::{Access, Endpoint};
use crate::digest::spread;
use crate::hub::{self, Grant, Resolved};
use crate::limits;
use crate::names::{Commit, PeerId, Repo, RepoPath, Revision, Visibility};
use crate::swarm;
use crate::tree::Tree;
use crate::wire::{Answer, Query, Said};

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
    /// The URL of the endpoint that said so, if one did.
    endpoint: Option<String>,
    /// What paired peers wait for meanwhile.
    turn: Option<Turn>,
}

impl Meaning {
    /// Lets paired peers know what the Hub said, so that they need not ask it. Its tree is in the cache by now.
    pub(super) fn settle(&mut self) {
        if let Some(turn) = self.turn.take()
            && let Some(endpoint) = &self.endpoint
            && self.visibility == Some(Visibility::Public)
            && self.whole
        {
            turn.was_told(&self.commit, endpoint);
        }
    }
}

/// What a peer says that a revision means.
#[derive(Debug, Clone)]
struct Word {
    peer: PeerId,
    commit: Commit,
    learned_unix_secs: u64,
    public: bool,
    said: Option<Said>,
}

impl Word {
    /// When an endpoint said so, if it is as good as asking one of these.
    fn instead_of(&self, revision: &Revision, endpoints: &[Endpoint]) -> Option<SystemTime> {
        if !self.public {
            return None;
        }
        if let Some(asked) = revision.as_commit() {
            return (asked == self.commit).then_some(UNIX_EPOCH);
        }
        let said = self.said?;
        let age = Duration::from_millis(said.age_ms);
        let is_ours = endpoints.iter().any(|endpoint| spread(endpoint.url.as_bytes()) == said.endpoint);
        (is_ours && age < limits::NAME_AGE).then(|| SystemTime::now().checked_sub(age)).flatten()
    }
}

/// What paired peers answer to what a revision means.
#[derive(Default)]
struct Words {
    words: Vec<Word>,
    /// Those that are finding out themselves.
    finding_out: BTreeSet<PeerId>,
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
        let mut turn = None;
        if !access.offline {
            let mut own = self.cache.find_out(self.swarm.peer_id(), repo, revision);
            if let Some(meaning) = self.spare_the_hub(access, repo, revision, &own).await {
                info!(%repo, %revision, from = meaning.from, "taking the Hub's word from a paired peer");
                return Ok(meaning);
            }
            own.asks_an_endpoint();
            turn = Some(own);
        }
        let mut pauses = backon::ExponentialBuilder::default()
            .with_min_delay(limits::ASK_AGAIN)
            .with_max_times(limits::ASK_AGAIN_TIMES)
            .with_jitter()
            .build();
        let (mut meaning, refused) = loop {
            let refused = match self.ask_hub(access, repo, revision, named).await {
                Ok(mut meaning) => {
                    meaning.turn = turn;
                    return Ok(meaning);
                }
                Err(error) if error.is_final() && !matches!(error, hub::Error::Offline) => {
                    return Err(Error::Hub(error));
                }
                Err(error) => error,
            };
            // Nobody needs to wait for a Hub that gives no answer.
            turn = None;
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
            endpoint: Some(endpoint.url.clone()),
            turn: None,
        };
        // A commit never changes, so a listing that is here need not be asked for.
        let (cache, asked, at) = (self.cache.clone(), repo.clone(), commit.clone());
        if let Ok(Some(tree)) = blocking(move || cache.read_tree(&asked, &at)).await {
            return Ok(meaning(tree, Vec::new()));
        }
        if let Some(tree) = self.tree_of_peers(repo, &commit).await {
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
                endpoint: None,
                turn: None,
            });
            if meaning.commit != entry.commit {
                return None;
            }
            meaning.tree.insert(path.clone(), entry.content).ok()?;
        }
        meaning
    }

    /// What paired peers say in the Hub's place. Those that are finding out at this moment are waited for, until one of
    /// them ends without a word that can be taken: then the others will hardly find a better one.
    async fn spare_the_hub(&self, access: &Access, repo: &Repo, revision: &Revision, turn: &Turn) -> Option<Meaning> {
        let begun = Instant::now();
        let mut waited_for = BTreeSet::new();
        loop {
            let Words { words, finding_out } = self.ask_paired(repo, revision, limits::NAME_ANSWER).await;
            let good = words.into_iter().filter_map(|word| Some((word.instead_of(revision, &access.endpoints)?, word)));
            if let Some(meaning) = self.first_with_tree(repo, good.collect()).await {
                return Some(meaning);
            }
            let goes_on = waited_for.is_subset(&finding_out) && begun.elapsed() < limits::NAME_TURN;
            let was_passed = turn.was_passed();
            if !goes_on || (finding_out.is_empty() && !was_passed) {
                return None;
            }
            waited_for = finding_out;
            tokio::time::sleep(limits::NAME_AGAIN).await;
        }
    }

    /// Asks the paired peers; the one that learned of its answer last is believed.
    async fn ask_peers(&self, repo: &Repo, revision: &Revision) -> Option<Meaning> {
        let asked = revision.as_commit();
        let words = self.ask_paired(repo, revision, limits::PEER_ANSWER).await.words.into_iter();
        let words = words.filter(|word| asked.as_ref().is_none_or(|asked| *asked == word.commit));
        self.first_with_tree(repo, words.map(|word| (learned(word.learned_unix_secs), word)).collect()).await
    }

    /// What the paired peers say that a revision means, as far as they answer.
    async fn ask_paired(&self, repo: &Repo, revision: &Revision, bound: Duration) -> Words {
        let paired = self.swarm.active().into_iter().filter(|peer| peer.paired);
        let answers = join_all(paired.map(|peer| async move {
            let query = Query::Resolve { repo: repo.clone(), revision: revision.clone() };
            let answer = tokio::time::timeout(bound, self.swarm.query(&peer.id, query)).await.ok()?.ok()?;
            Some((peer.id, answer))
        }));
        let mut all = Words::default();
        for (peer, answer) in answers.await.into_iter().flatten() {
            match answer {
                Answer::Resolved { commit, learned_unix_secs, public, said } => {
                    all.words.push(Word { peer, commit, learned_unix_secs, public, said });
                }
                Answer::Busy => {
                    all.finding_out.insert(peer);
                }
                _ => {}
            }
        }
        all
    }

    /// Of these words, each with when it was learned, the youngest whose peer has all the files to it.
    async fn first_with_tree(&self, repo: &Repo, mut words: Vec<(SystemTime, Word)>) -> Option<Meaning> {
        words.sort_by(|(a, x), (b, y)| (b, &y.peer).cmp(&(a, &x.peer)));
        for (learned, word) in words {
            if let Some(tree) = self.tree_of_peer(&word.peer, repo, &word.commit).await {
                return Some(meaning_of(word, tree, learned));
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

    /// All files of a commit, as the first paired peer tells them that knows them.
    async fn tree_of_peers(&self, repo: &Repo, commit: &Commit) -> Option<Tree> {
        let revision: Revision = commit.as_str().parse().ok()?;
        let words = self.ask_paired(repo, &revision, limits::NAME_ANSWER).await.words;
        let words = words.into_iter().filter(|word| word.commit == *commit).map(|word| (UNIX_EPOCH, word));
        Some(self.first_with_tree(repo, words.collect()).await?.tree)
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
                endpoint: None,
                turn: None,
            })
        })
        .await
    }
}

/// What a paired peer's word means here. Whom the files may be shared with, it does not say.
fn meaning_of(word: Word, tree: Tree, learned: SystemTime) -> Meaning {
    Meaning {
        commit: word.commit,
        tree,
        from: format!("peer {}", word.peer),
        grant: Grant::Anonymous,
        visibility: None,
        learned,
        whole: true,
        warnings: Vec::new(),
        endpoint: None,
        turn: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    #[test]
    fn a_peers_word_stands_for_the_hubs_only_if_our_endpoint_said_it_just_now_to_anybody() {
        let endpoint = |url: &str| Endpoint { url: url.to_owned(), role: Role::Hub };
        let ours = [endpoint("https://hub.test"), endpoint("https://mirror.test")];
        let commit: Commit = "c".repeat(40).parse().unwrap();
        let said =
            |url: &str, age: Duration| Some(Said { endpoint: spread(url.as_bytes()), age_ms: age.as_millis() as u64 });
        let young = limits::NAME_AGE - Duration::from_millis(1);
        let word = |public, said| Word {
            peer: "12D3KooWGjMt6bKqtDMwUCvqpyAkMxSJCwfZNCaHpXwBqWvGNbxW".parse().unwrap(),
            commit: commit.clone(),
            // What the peer's clock says counts for nothing here.
            learned_unix_secs: u64::MAX,
            public,
            said,
        };
        let taken = |word: Word, revision: &str| word.instead_of(&revision.parse().unwrap(), &ours).is_some();
        assert!(taken(word(true, said("https://hub.test", young)), "main"));
        assert!(taken(word(true, said("https://mirror.test", Duration::ZERO)), "main"));
        assert!(!taken(word(true, said("https://hub.test", limits::NAME_AGE)), "main"), "too old");
        assert!(!taken(word(true, said("https://other.test", young)), "main"), "another Hub");
        assert!(!taken(word(false, said("https://hub.test", young)), "main"), "only a token may open it");
        assert!(!taken(word(true, None), "main"), "hearsay");
        assert!(taken(word(true, None), &"c".repeat(40)), "a commit means itself at any age");
        assert!(!taken(word(true, None), &"d".repeat(40)));
        assert!(!taken(word(false, None), &"c".repeat(40)));
    }
}
