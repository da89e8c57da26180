//! Fetching: bringing the files of a repo here, from whatever is fastest.
//!
//! Knows who is asked for names, who is asked for bytes, and how adds share downloads. Does not know
//! commands or terminals: it reports, and somebody else shows it.
//! Invariant: one digest is downloaded at most once at a time on this machine, whoever wants it, and
//! what was sealed is published before anybody is told that it is here.

mod claims;
mod download;
mod driver;
mod error;
mod fellows;
mod fitting;
mod holders;
mod landing;
mod naming;
mod ranges;
mod rates;
mod repair;
mod select;
mod shared;
mod tally;
mod turns;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::stream::{self, StreamExt};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cache::{self, Cache, Held};
use crate::config::{Access, Role};
use crate::digest::{Digest, spread};
use crate::hub::{Hub, Place};
use crate::limits;
use crate::names::{Commit, PeerId, Repo, RepoPath, Revision};
use crate::pace::{Lines, Throttle};
use crate::partial::Partials;
use crate::plan::Source;
use crate::swarm::{self, Offence};
use crate::tree::Content;
use download::blocking;
pub use error::Error;
use holders::Holders;
use landing::lock;
pub use naming::Meaning;
use rates::Rates;
use shared::{Brought, Shared};
pub use tally::Tally;
use turns::{AddId, Turns};

/// What somebody wants here.
#[derive(Debug, Clone)]
pub struct Order {
    pub repo: Repo,
    pub revision: Revision,
    /// Empty: the whole repo.
    pub files: Vec<RepoPath>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub access: Access,
    /// What all that this order downloads has to keep to, whoever it comes from. A download that several
    /// orders wait for keeps to the highest of their limits, and to none if one of them has none.
    pub limit: Option<Throttle>,
}

/// What an add tells while it runs.
#[derive(Debug, Clone)]
pub enum Report {
    /// What the revision means, and how much there is to bring.
    Resolved {
        commit: Commit,
        from: String,
        files: usize,
        bytes: u64,
    },
    Warning(String),
    /// A file is being brought; its tally goes on counting.
    Started {
        path: RepoPath,
        content: Content,
        tally: Arc<Tally>,
    },
    Done(FileDone),
    /// A decision, for those who want to follow.
    Note(String),
}

/// A file that is here.
#[derive(Debug, Clone)]
pub struct FileDone {
    pub path: RepoPath,
    pub content: Content,
    pub local_path: PathBuf,
    /// What it cost; `None` when nothing crossed the network for this add.
    pub tally: Option<Arc<Tally>>,
    /// It was in the cache before, at its place or elsewhere.
    pub cached: bool,
    pub seconds: f64,
}

type Files = Vec<(RepoPath, Content)>;

/// What an add brought.
#[derive(Debug, Clone)]
pub struct Added {
    pub commit: Commit,
    pub files: Vec<FileDone>,
}

/// Whether somebody waits for an add's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attended {
    Yes,
    /// It goes on after a restart: its bytes go on the account of whoever joins it.
    No,
}

/// Takes reports. It is called from the add's own task and must not block.
pub type Reporter<'a> = dyn Fn(Report) + Send + Sync + 'a;

/// Brings files here. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

/// What all adds share.
struct Inner {
    hub: Hub,
    swarm: swarm::Handle,
    cache: Cache,
    partials: Partials,
    holders: Holders,
    running: Mutex<HashMap<Digest, Shared>>,
    small: Arc<Turns>,
    large: Arc<Turns>,
    /// How many adds there were.
    adds: AtomicU64,
    /// What sources give, or gave last: where the next file begins, and whether the LAN is full.
    rates: Mutex<Rates>,
    /// Sources that sent provably wrong bytes, and when.
    convicts: Mutex<HashMap<Source, Instant>>,
    /// What everything from the Hub and its mirrors together has to keep to.
    wan_down: Throttle,
}

impl Fetcher {
    pub fn new(hub: Hub, swarm: swarm::Handle, cache: Cache, partials: Partials, lines: &Lines) -> Self {
        let inner = Inner {
            hub,
            holders: Holders::new(swarm.clone()),
            swarm,
            cache,
            partials,
            running: Mutex::default(),
            small: Turns::new(limits::SMALL_FILES_AT_ONCE, limits::SMALL_FILES_MAX),
            large: Turns::new(limits::LARGE_FILES_AT_ONCE, limits::LARGE_FILES_MAX),
            adds: AtomicU64::new(0),
            rates: Mutex::default(),
            convicts: Mutex::default(),
            wan_down: lines.down.clone(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Brings what was ordered. When `gone` fires, downloads that nobody else wants stop cleanly.
    pub async fn add(&self, order: &Order, report: &Reporter<'_>, gone: &CancellationToken) -> Result<Added, Error> {
        tokio::select! {
            added = self.add_all(order, report, Attended::Yes) => added,
            () = gone.cancelled() => Err(Error::Cancelled),
        }
    }

    /// The same for an order that nobody waits for.
    pub async fn add_unattended(
        &self,
        order: &Order,
        report: &Reporter<'_>,
        gone: &CancellationToken,
    ) -> Result<Added, Error> {
        tokio::select! {
            added = self.add_all(order, report, Attended::No) => added,
            () = gone.cancelled() => Err(Error::Cancelled),
        }
    }

    /// What a revision means, and which of its files the user means.
    pub async fn look_up(&self, order: &Order) -> Result<(Commit, Vec<(RepoPath, Content)>), Error> {
        let meaning = self.inner.meaning(&order.access, &order.repo, &order.revision, &order.files).await?;
        let globs = select::Globs::parse(&order.include, &order.exclude)?;
        let files = select::select(&meaning.tree, &order.files, &globs, &order.repo, &order.revision)?;
        Ok((meaning.commit, files))
    }

    /// Which peers hold which of the contents wholly, and how many bytes of the others.
    pub async fn holders(&self, contents: &[Content]) -> HashMap<PeerId, Vec<(Content, u64)>> {
        let offers = self.inner.holders.ask(contents).await;
        let mut held: HashMap<PeerId, Vec<(Content, u64)>> = HashMap::new();
        for content in contents {
            for (peer, offer) in offers.get(&content.digest).into_iter().flatten() {
                let bytes = holders::bytes_of(content, offer);
                if bytes == 0 && content.size > 0 {
                    continue;
                }
                held.entry(peer.clone()).or_default().push((*content, bytes));
            }
        }
        held
    }

    async fn add_all(&self, order: &Order, report: &Reporter<'_>, attended: Attended) -> Result<Added, Error> {
        let inner = &self.inner;
        // A glob that cannot be read is the user's slip; no endpoint needs to be asked for that.
        let globs = select::Globs::parse(&order.include, &order.exclude)?;
        let cache = inner.cache.clone();
        let demands = blocking(move || fitting::Demands::of(&cache)).await?;
        fitting::revision(&order.revision, &demands)?;
        let mut meaning = inner.meaning(&order.access, &order.repo, &order.revision, &order.files).await?;
        meaning.warnings.iter().for_each(|warning| report(Report::Warning(warning.clone())));
        let files = select::select(&meaning.tree, &order.files, &globs, &order.repo, &order.revision)?;
        let files = fitting::fit(files, &order.files, &demands, |warning| report(Report::Warning(warning)))?;
        report(Report::Resolved {
            commit: meaning.commit.clone(),
            from: meaning.from.clone(),
            files: files.len(),
            bytes: files.iter().map(|(_, content)| content.size).sum(),
        });
        info!(repo = %order.repo, commit = %meaning.commit, from = meaning.from, files = files.len(), "adding");
        // Before the tree can be read by anybody, it is known whom it may be told to.
        inner.set_visibility(order, &meaning, &files).await?;
        if meaning.whole {
            let (cache, repo, commit, tree) =
                (inner.cache.clone(), order.repo.clone(), meaning.commit.clone(), meaning.tree.clone());
            blocking(move || cache.write_tree(&repo, &commit, &tree)).await??;
        }
        meaning.settle();
        let Parted { here, missing, unfit } = inner.part(order, &meaning.commit, &files).await?;
        for (path, why) in unfit {
            fitting::leave_out(&path, Error::Cache(why), &order.files, |warning| report(Report::Warning(warning)))?;
        }
        let mut done: Vec<FileDone> = here;
        done.iter().for_each(|file| report(Report::Done(file.clone())));
        let wanted: Vec<Content> = missing.iter().map(|(_, content)| *content).collect();
        inner.holders.ask_ahead(&wanted).await;
        let add = AddId(inner.adds.fetch_add(1, Ordering::Relaxed));
        let bring = |files: Vec<_>, at_once| {
            stream::iter(files)
                .map(|file| self.add_file(order, &meaning, file, report, (add, attended)))
                .buffer_unordered(at_once)
        };
        let (small, large) = inner.in_order(missing);
        let results =
            stream::select(bring(small, limits::SMALL_FILES_AT_ONCE), bring(large, limits::LARGE_FILES_AT_ONCE));
        let mut results = Box::pin(results);
        let mut errors = Vec::new();
        while let Some(result) = results.next().await {
            match result {
                Ok(file) => {
                    report(Report::Done(file.clone()));
                    done.push(file);
                }
                Err(error) => {
                    report(Report::Warning(error.to_string()));
                    errors.push(error);
                }
            }
        }
        drop(results);
        if let Some(error) = Error::of_several(errors, files.len()) {
            return Err(error);
        }
        let (cache, repo, revision, commit) =
            (inner.cache.clone(), order.repo.clone(), order.revision.clone(), meaning.commit.clone());
        let learned = meaning.learned;
        blocking(move || match cache.ref_of(&repo, &revision) {
            // What is known here may be the younger knowledge of the same.
            Some((known, since)) if known == commit && since >= learned => Ok(()),
            _ => cache.write_ref(&repo, &revision, &commit, learned),
        })
        .await??;
        done.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Added { commit: meaning.commit, files: done })
    }

    /// Brings one file: from another place in the cache, or by a download that others may share.
    async fn add_file(
        &self,
        order: &Order,
        meaning: &Meaning,
        (path, content): (RepoPath, Content),
        report: &Reporter<'_>,
        (add, attended): (AddId, Attended),
    ) -> Result<FileDone, Error> {
        let begun = Instant::now();
        let inner = &self.inner;
        let place = Place {
            repo: order.repo.clone(),
            commit: meaning.commit.clone(),
            path: path.clone(),
            content,
            grant: meaning.grant,
        };
        // Two rounds at most: another add's download may be cancelled, or fail for reasons of its own.
        let mut last = Error::Interrupted;
        for _ in 0..2 {
            let (ticket, is_first) = Shared::join(inner, order, &place, (add, attended));
            report(Report::Started { path: path.clone(), content, tally: ticket.tally() });
            match ticket.outcome().await {
                Ok(brought) => {
                    let cached = matches!(brought, Brought::Linked(_));
                    let (Brought::Linked(local_path) | Brought::Fetched(local_path)) = brought;
                    // Whoever did not start the download finds the file where it was published, and links it.
                    let local_path = match is_first {
                        true => local_path,
                        false => inner.link_local(&place, Nameless::Left).await?.unwrap_or(local_path),
                    };
                    if cached {
                        report(Report::Note(format!("`{path}` is on this machine already: linked")));
                    }
                    let tally = match attended {
                        Attended::Yes if !cached => ticket.claim_tally(),
                        _ => None,
                    };
                    let seconds = begun.elapsed().as_secs_f64();
                    return Ok(FileDone { path, content, local_path, tally, cached, seconds });
                }
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    warn!(%error, %path, "the download that another add had begun failed; trying alone");
                    last = error;
                }
            }
        }
        Err(last)
    }
}

impl Inner {
    /// Tells the cache whom these contents may be shared with, when the Hub has said so.
    async fn set_visibility(
        &self,
        order: &Order,
        meaning: &Meaning,
        files: &[(RepoPath, Content)],
    ) -> Result<(), Error> {
        let Some(visibility) = meaning.visibility else { return Ok(()) };
        let (cache, repo, tree) = (self.cache.clone(), order.repo.clone(), meaning.tree.clone());
        let wanted: Vec<Digest> = files.iter().map(|(_, content)| content.digest).collect();
        blocking(move || cache.set_repo_visibility(&repo, visibility, &tree, &wanted)).await??;
        Ok(())
    }

    /// Parts the files by what stands at their places in the cache.
    async fn part(&self, order: &Order, commit: &Commit, files: &[(RepoPath, Content)]) -> Result<Parted, Error> {
        let (cache, repo, commit, files) = (self.cache.clone(), order.repo.clone(), commit.clone(), files.to_vec());
        blocking(move || part(&cache, &repo, &commit, files)).await
    }

    /// Small and large files, each in the order in which they are begun.
    ///
    /// Machines that begin together share the pieces of each large file, so all take them in the same order and
    /// what one brings the others have at once. A small file is one piece: whoever does not bring it can only
    /// wait, and so each machine begins with others.
    fn in_order(&self, files: Files) -> (Files, Files) {
        let is_small = |(_, content): &(_, Content)| content.size <= limits::SMALL_FILE_BYTES;
        let (mut small, large): (Files, Files) = files.into_iter().partition(is_small);
        let me = self.swarm.peer_id();
        small.sort_by_cached_key(|(_, content)| spread(format!("{me} {}", content.digest).as_bytes()));
        (small, large)
    }

    /// Links a content that lies elsewhere in this cache.
    async fn link_local(&self, place: &Place, nameless: Nameless) -> Result<Option<PathBuf>, Error> {
        let (cache, place) = (self.cache.clone(), place.clone());
        blocking(move || link_local(&cache, &place, nameless)).await?.map_err(Error::Cache)
    }

    fn is_paired(&self, peer: &PeerId) -> bool {
        self.swarm.active().iter().any(|active| active.id == *peer && active.paired)
    }

    fn is_hub(&self, access: &Access, url: &str) -> bool {
        access.endpoints.iter().any(|endpoint| endpoint.url == url && endpoint.role == Role::Hub)
    }

    /// Holds provably wrong bytes against a source.
    async fn convict(&self, source: &Source, path: &RepoPath) {
        warn!(%source, %path, "is not asked again, because it sent wrong bytes");
        lock(&self.convicts).insert(source.clone(), Instant::now());
        if let Source::Peer(peer) = source {
            self.swarm.strike(peer, Offence::WrongBytes).await;
        }
    }

    fn is_convicted(&self, source: &Source) -> bool {
        let ban = match source {
            Source::Peer(_) => limits::PEER_BAN,
            Source::Endpoint(_) => limits::ENDPOINT_BAN,
        };
        lock(&self.convicts).get(source).is_some_and(|at| at.elapsed() < ban)
    }

    fn rate(&self, source: &Source) -> Option<f64> {
        lock(&self.rates).of(source)
    }
}

/// Files by what stands at their places.
#[derive(Default)]
struct Parted {
    here: Vec<FileDone>,
    missing: Files,
    /// A file that is spelt otherwise has the place, and why that is so.
    unfit: Vec<(RepoPath, cache::Error)>,
}

fn part(cache: &Cache, repo: &Repo, commit: &Commit, files: Files) -> Parted {
    let places = cache.here(repo, commit, &files);
    let mut parted = Parted::default();
    for ((path, content), place) in files.into_iter().zip(places) {
        match place.map_or_else(|| cache.has_own_name(repo, commit, &path).map(|()| None), |at| Ok(Some(at))) {
            Ok(Some(local_path)) => {
                parted.here.push(FileDone { path, content, local_path, tally: None, cached: true, seconds: 0.0 });
            }
            Ok(None) => parted.missing.push((path, content)),
            Err(why) => parted.unfit.push((path, why)),
        }
    }
    parted
}

/// Whether content is looked for among files of which nothing tells what they are: that may take as long as reading
/// the file once, so it is done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nameless {
    Hashed,
    Left,
}

/// Links a content that lies elsewhere in this cache. What hffs did not verify itself is hashed before,
/// so that a damaged file of another tool does not get a second name.
fn link_local(cache: &Cache, place: &Place, nameless: Nameless) -> Result<Option<PathBuf>, cache::Error> {
    let blob = match cache.find(&place.content) {
        None if nameless == Nameless::Left => return Ok(None),
        None => match cache.recognize(&place.content, &place.path) {
            Some(blob) => blob,
            None => return Ok(None),
        },
        Some(Held::Verified(blob)) => blob,
        Some(Held::Unverified(unverified)) => match cache.verify(&unverified) {
            Ok(blob) => blob,
            Err(error) => {
                warn!(%error, "a file in the cache is not what it was taken for; bringing it anew");
                return Ok(None);
            }
        },
    };
    cache.link(&place.repo, &place.commit, &place.path, &blob).map(Some)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_spelt_otherwise_on_disk_keeps_no_other_from_coming() {
        let home = tempfile::tempdir().unwrap();
        let hub = home.path().join("hub");
        let cache = Cache::open(&hub, &home.path().join("hffs")).unwrap();
        let repo = Repo { kind: Default::default(), id: "org/m".parse().unwrap() };
        let commit: Commit = "c".repeat(40).parse().unwrap();
        let snapshot = hub.join(repo.folder()).join("snapshots").join(commit.as_str());
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(snapshot.join("Readme.md"), "x").unwrap();
        // What a file system does that takes these names for one.
        let _ = fs::hard_link(snapshot.join("Readme.md"), snapshot.join("README.md"));
        let _ = fs::hard_link(hub.join("CACHEDIR.TAG"), hub.join("cachedir.tag"));
        let content = Content { digest: "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse().unwrap(), size: 5 };
        let files = ["README.md", "config.json"].map(|path| (path.parse().unwrap(), content)).to_vec();
        let Parted { here, missing, unfit } = part(&cache, &repo, &commit, files.clone());
        assert!(here.is_empty());
        assert_eq!(missing, files[1..]);
        assert!(matches!(&unfit[..], [(path, cache::Error::OneName { .. })] if *path == files[0].0));
        let (path, why) = unfit.into_iter().next().unwrap();
        let mut warnings = Vec::new();
        fitting::leave_out(&path, Error::Cache(why), &[], |warning| warnings.push(warning)).unwrap();
        assert!(warnings[0].starts_with("a file was left out: "), "{warnings:?}");
    }
}
