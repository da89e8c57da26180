//! Listings: all files of a commit, page by page.
//!
//! Knows the two forms in which the Hub lists files. Does not know what is done with them.
//! Invariant: every path in a listing was parsed; an entry that cannot be kept is named, and the
//! rest stays usable. The Xet hash beside an entry is not read: the digest is the sha256.

use std::collections::HashSet;
use std::time::Instant;

use reqwest::header::LINK;
use serde::Deserialize;

use super::answer::Miss;
use super::health::Purpose;
use super::line::Line;
use super::round::{Round, Subject};
use super::{Error, Failure, Grant, Listing, Refusal, Shared, address};
use crate::config::Access;
use crate::digest::Digest;
use crate::limits;
use crate::names::{Commit, Repo, RepoPath};
use crate::tree::{Content, TooLarge, Tree};

/// A file or folder, as `/tree` or as `?blobs=true` writes it.
#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type", default = "file")]
    kind: String,
    #[serde(alias = "rfilename")]
    path: String,
    /// The git blob id: of the file, or of the LFS pointer that stands for it.
    #[serde(alias = "blobId")]
    oid: Option<String>,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "sha256")]
    oid: String,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Siblings {
    siblings: Vec<Listed>,
}

fn file() -> String {
    "file".to_owned()
}

pub(super) async fn tree(
    shared: &Shared,
    access: &Access,
    repo: &Repo,
    commit: &Commit,
    grant: Grant,
) -> Result<Listing, Error> {
    let subject = Subject { repo, revision: commit.as_str(), path: None };
    let mut round = Round::new(shared, access, subject, Purpose::Questions, grant)?;
    while let Some(line) = round.next(Instant::now()) {
        match at(&line, repo, commit, grant).await {
            Ok(listing) => {
                shared.health().well(line.route(), Purpose::Questions);
                return Ok(listing);
            }
            Err(miss) => {
                if let Some(error) = round.missed(&line, miss, Instant::now()) {
                    return Err(error);
                }
            }
        }
    }
    Err(round.over())
}

async fn at(line: &Line<'_>, repo: &Repo, commit: &Commit, grant: Grant) -> Result<Listing, Miss> {
    match paged(line, repo, commit, grant).await {
        Err(Miss::NoSuchRoute) => {
            let url = address::siblings(line.endpoint(), repo, commit.as_str())?;
            let page: Siblings = line.ask(&url, grant).await?.json()?;
            let mut reader = Reader::default();
            reader.take(page.siblings)?;
            reader.end()
        }
        answer => answer,
    }
}

async fn paged(line: &Line<'_>, repo: &Repo, commit: &Commit, grant: Grant) -> Result<Listing, Miss> {
    let broken = |why: &str| Miss::Failed(Failure::Broken(why.to_owned()));
    let mut reader = Reader::default();
    let mut url = address::tree(line.endpoint(), repo, commit.as_str())?;
    let mut seen = HashSet::new();
    let mut bytes = 0;
    while seen.insert(url.clone()) {
        if seen.len() > limits::HUB_PAGES_MAX {
            return Err(broken("lists files on pages without end"));
        }
        let page = line.ask(&url, grant).await.map_err(|miss| match miss {
            // Only the first page can tell that there is no such route; a later one is a listing cut off.
            Miss::NoSuchRoute if seen.len() > 1 => broken("breaks off its listing"),
            miss => miss,
        })?;
        bytes += page.body.len();
        if bytes > limits::HUB_LISTING_BYTES_MAX {
            return Err(broken("lists more than any repo holds"));
        }
        reader.take(page.json()?)?;
        let links = page.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        match address::next_page(line.endpoint(), &url, links)? {
            Some(next) => url = next,
            None => return reader.end(),
        }
    }
    Err(broken("lists files on pages in circles"))
}

/// Makes a tree of what is listed.
#[derive(Default)]
struct Reader {
    tree: Tree,
    refused: Vec<Refusal>,
}

impl Reader {
    fn take(&mut self, entries: Vec<Listed>) -> Result<(), Miss> {
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            match self.keep(&entry) {
                Ok(()) => {}
                Err(Refusal::TooLarge(error @ TooLarge::Files)) => {
                    return Err(Miss::No(super::answer::No::Denied(error.to_string())));
                }
                Err(refusal) if self.refused.len() < limits::HUB_REFUSED_MAX => self.refused.push(refusal),
                Err(_) => return Err(Failure::Broken("lists names that no file can have".to_owned()).into()),
            }
        }
        Ok(())
    }

    fn keep(&mut self, entry: &Listed) -> Result<(), Refusal> {
        let path: RepoPath = entry.path.parse()?;
        let content = content(entry).ok_or_else(|| Refusal::Digest { path: path.clone() })?;
        Ok(self.tree.insert(path, content)?)
    }

    /// The listing, unless it is of no use: some mirrors list names without saying what they hold.
    fn end(self) -> Result<Listing, Miss> {
        let only_names = self.tree.is_empty() && self.refused.iter().any(|why| matches!(why, Refusal::Digest { .. }));
        if only_names {
            return Err(Failure::Broken("lists files without their digests".to_owned()).into());
        }
        Ok(Listing { tree: self.tree, refused: self.refused })
    }
}

fn content(entry: &Listed) -> Option<Content> {
    let (digest, size) = match &entry.lfs {
        Some(lfs) => {
            (lfs.oid.parse().ok().filter(|digest| matches!(digest, Digest::Sha256(_)))?, lfs.size.or(entry.size))
        }
        None => (entry.oid.as_deref()?.parse().ok()?, entry.size),
    };
    Some(Content { digest, size: size? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const GIT: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";

    fn read(json: &str) -> Result<Listing, Miss> {
        let mut reader = Reader::default();
        reader.take(serde_json::from_str(json).unwrap())?;
        reader.end()
    }

    #[test]
    fn both_forms_of_listing_say_the_same() {
        let tree = format!(
            r#"[{{"type":"directory","oid":"{GIT}","size":0,"path":"sub"}},
                {{"type":"file","oid":"{GIT}","size":3,"path":"big","lfs":{{"oid":"{SHA256}","size":3000,"pointerSize":132}},
                  "xetHash":"{SHA256}"}},
                {{"type":"file","oid":"{GIT}","size":5,"path":"sub/small"}}]"#
        );
        let siblings = format!(
            r#"[{{"rfilename":"big","size":3,"blobId":"{GIT}","lfs":{{"sha256":"{SHA256}","size":3000,"pointerSize":132}}}},
                {{"rfilename":"sub/small","size":5,"blobId":"{GIT}"}}]"#
        );
        let listing = read(&tree).unwrap();
        assert_eq!(listing, read(&siblings).unwrap());
        assert_eq!(listing.tree.len(), 2);
        let big = listing.tree.get(&"big".parse().unwrap()).unwrap();
        assert_eq!((big.digest, big.size), (SHA256.parse().unwrap(), 3000));
    }

    #[test]
    fn a_hostile_entry_is_named_and_the_rest_is_kept() {
        let listing = read(&format!(
            r#"[{{"type":"file","oid":"{GIT}","size":5,"path":"../../.ssh/authorized_keys"}},
                {{"type":"file","oid":"../x","size":5,"path":"digest"}},
                {{"type":"file","oid":"{GIT}","size":9000000000000000,"path":"huge"}},
                {{"type":"file","oid":"{GIT}","size":5,"path":"good"}}]"#
        ))
        .unwrap();
        assert_eq!(listing.tree.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["good"]);
        assert!(matches!(
            listing.refused[..],
            [Refusal::Name(_), Refusal::Digest { .. }, Refusal::TooLarge(TooLarge::File { .. })]
        ));
    }

    #[test]
    fn names_without_digests_are_no_listing() {
        assert!(read(r#"[{"rfilename":"a"},{"rfilename":"b"}]"#).is_err());
        assert!(read("[]").unwrap().tree.is_empty());
    }
}
