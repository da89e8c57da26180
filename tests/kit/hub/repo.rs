//! Repos of the test Hub: commits, refs and files, made up in a few words.
//!
//! Knows git's and LFS's identities. Does not know HTTP.
//! Invariant: a repo that is served has a `main`, and each commit keeps the files that it had.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sha2::Digest as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Model,
    Dataset,
    Space,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Model, Kind::Dataset, Kind::Space];

    /// The word in `/api/…`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
            Kind::Space => "spaces",
        }
    }

    /// What stands before the repo id in `/…/resolve/`.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
            Kind::Space => "spaces/",
        }
    }
}

/// A file of a commit.
#[derive(Clone)]
pub struct File {
    pub content: Bytes,
    /// The git blob id of the file, or of the LFS pointer that stands for it.
    pub oid: String,
    /// Large files only.
    pub sha256: Option<String>,
    pub pointer_len: usize,
}

impl File {
    fn small(content: Bytes) -> Self {
        let oid = git_blob(&content);
        Self { content, oid, sha256: None, pointer_len: 0 }
    }

    fn large(content: Bytes) -> Self {
        let sha256 = hex(&sha2::Sha256::digest(&content));
        let pointer =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {}\n", content.len());
        Self { oid: git_blob(pointer.as_bytes()), sha256: Some(sha256), pointer_len: pointer.len(), content }
    }

    /// What names the blob in a cache.
    pub fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.oid)
    }

    pub fn size(&self) -> usize {
        self.content.len()
    }
}

pub type Files = BTreeMap<String, File>;

/// A repo. Files are added to its next commit; `tag`, `branch`, `pr` and the Hub's `with` make that commit.
#[derive(Clone)]
pub struct Repo {
    pub kind: Kind,
    pub id: String,
    pub private: bool,
    pub gated: bool,
    pub disabled: bool,
    commits: Vec<(String, Files)>,
    refs: BTreeMap<String, String>,
    next: Files,
    changed: bool,
}

impl Repo {
    pub fn model(id: &str) -> Self {
        Self::new(Kind::Model, id)
    }

    pub fn dataset(id: &str) -> Self {
        Self::new(Kind::Dataset, id)
    }

    pub fn space(id: &str) -> Self {
        Self::new(Kind::Space, id)
    }

    fn new(kind: Kind, id: &str) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            private: false,
            gated: false,
            disabled: false,
            commits: Vec::new(),
            refs: BTreeMap::new(),
            next: BTreeMap::new(),
            changed: true,
        }
    }

    /// A file that stands in git itself.
    pub fn file(self, path: &str, content: impl Into<Bytes>) -> Self {
        self.add(path, File::small(content.into()))
    }

    /// A file that git LFS holds.
    pub fn lfs(self, path: &str, content: impl Into<Bytes>) -> Self {
        self.add(path, File::large(content.into()))
    }

    fn add(mut self, path: &str, file: File) -> Self {
        self.next.insert(path.to_owned(), file);
        self.changed = true;
        self
    }

    pub fn without(mut self, path: &str) -> Self {
        self.changed |= self.next.remove(path).is_some();
        self
    }

    /// Only for those with a token, and unknown to others.
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Everybody sees it, and only those who accepted its licence get it.
    pub fn gated(mut self) -> Self {
        self.gated = true;
        self
    }

    /// Taken down by the Hub.
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    pub fn tag(self, name: &str) -> Self {
        self.point(&format!("refs/tags/{name}"))
    }

    /// The branch stays at this commit; files added later are on `main` only.
    pub fn branch(self, name: &str) -> Self {
        self.point(&format!("refs/heads/{name}"))
    }

    pub fn pr(self, number: u32) -> Self {
        self.point(&format!("refs/pr/{number}"))
    }

    fn point(mut self, full_name: &str) -> Self {
        self.commit();
        let head = self.commits.last().map(|(id, _)| id.clone()).unwrap_or_default();
        self.refs.insert(full_name.to_owned(), head);
        self
    }

    fn commit(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut text = format!("{} {} {}\n", self.kind.plural(), self.id, self.commits.len());
        for (path, file) in &self.next {
            let _ = writeln!(text, "{path} {}", file.etag());
        }
        self.commits.push((hex(&sha1::Sha1::digest(text.as_bytes())), self.next.clone()));
    }

    /// The repo as it is served: nothing uncommitted, `main` at the last commit.
    pub fn finished(self) -> Self {
        self.branch("main")
    }

    /// The commit that a revision names: a branch, a tag, a full ref, or a commit itself.
    pub fn resolve(&self, revision: &str) -> Option<&str> {
        let by_ref = [revision.to_owned(), format!("refs/heads/{revision}"), format!("refs/tags/{revision}")]
            .into_iter()
            .find_map(|name| self.refs.get(&name));
        by_ref.map(String::as_str).or_else(|| self.commits.iter().map(|(id, _)| id.as_str()).find(|id| *id == revision))
    }

    pub fn files(&self, commit: &str) -> Option<&Files> {
        self.commits.iter().find(|(id, _)| id == commit).map(|(_, files)| files)
    }

    /// The commit that `main` is at.
    pub fn head(&self) -> &str {
        self.resolve("main").unwrap_or_default()
    }

    pub fn refs(&self) -> &BTreeMap<String, String> {
        &self.refs
    }
}

/// `len` bytes that look random, compress badly, and are the same for the same seed.
pub fn seeded(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*, by Vigna: fast enough that a 64 MiB file costs no test a second.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// `len` bytes that no other test has, so that daemons which find each other across tests have nothing to share.
pub fn unique(len: usize) -> Bytes {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    seeded(now ^ u64::from(std::process::id()) << 40 ^ CALLS.fetch_add(1, Ordering::Relaxed), len)
}

/// A small text that no other test has.
pub fn note(text: &str) -> String {
    format!("{{\"note\": \"{text}\", \"mark\": \"{}\"}}\n", hex(&unique(8)))
}

/// The id that git gives a blob.
pub fn git_blob(content: &[u8]) -> String {
    let mut sha1 = sha1::Sha1::new();
    sha1.update(format!("blob {}\0", content.len()).as_bytes());
    sha1.update(content);
    hex(&sha1.finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
