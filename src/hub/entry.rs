//! Entries: what one file is, as the headers of `/resolve` tell.
//!
//! Knows which hop of a redirect bears the metadata. Does not know the API.
//! Invariant: the digest comes from the endpoint's own origin. A data host has etags, too, some of 64
//! digits, and they are something else.

use std::time::Instant;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap};
use reqwest::{Method, Url};

use super::answer::{self, Miss};
use super::health::Purpose;
use super::line::Line;
use super::round::{Round, Subject};
use super::transport::{Abroad, End};
use super::{Entry, Error, Failure, Grant, Shared, address};
use crate::config::Access;
use crate::digest::Digest;
use crate::limits;
use crate::names::{Commit, Repo, RepoPath, Revision};
use crate::tree::Content;

pub(super) async fn entry(
    shared: &Shared,
    access: &Access,
    repo: &Repo,
    revision: &Revision,
    path: &RepoPath,
) -> Result<Entry, Error> {
    let subject = Subject { repo, revision: revision.as_str(), path: Some(path) };
    let mut round = Round::new(shared, access, subject, Purpose::Bytes, Grant::Anonymous)?;
    while let Some(line) = round.next(Instant::now()) {
        match at(&line, repo, revision, path).await {
            Ok(entry) => return Ok(entry),
            Err(miss) => {
                if let Some(error) = round.missed(&line, miss, Instant::now()) {
                    return Err(error);
                }
            }
        }
    }
    Err(round.over())
}

async fn at(line: &Line<'_>, repo: &Repo, revision: &Revision, path: &RepoPath) -> Result<Entry, Miss> {
    let url = address::resolve(line.endpoint(), repo, revision.as_str(), path)?;
    let (metadata, grant) = match head(line, &url, Grant::Anonymous).await {
        Err(miss) if line.token_may_change(&miss) => (head(line, &url, Grant::Token).await?, Grant::Token),
        answer => (answer?, Grant::Anonymous),
    };
    let size = match metadata.size {
        Some(size) => size,
        None => size_by_range(line, &url, grant).await?,
    };
    if revision.as_commit().is_some_and(|asked| asked != metadata.commit) {
        return Err(Failure::Broken("answers with another commit".to_owned()).into());
    }
    if size > limits::FILE_BYTES_MAX {
        return Err(Failure::Broken("has a file larger than any".to_owned()).into());
    }
    let content = Content { digest: metadata.digest, size };
    Ok(Entry { commit: metadata.commit, content, grant, endpoint: line.endpoint().clone() })
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Metadata {
    commit: Commit,
    digest: Digest,
    size: Option<u64>,
}

async fn head(line: &Line<'_>, url: &Url, grant: Grant) -> Result<Metadata, Miss> {
    let landed = line.go(Method::HEAD, url, None, grant, Abroad::Stop).await?;
    let stopped = matches!(landed.end, End::Door(_));
    if !stopped && !landed.response.status().is_success() {
        return Err(line.miss(landed.response, &landed.end, grant).await);
    }
    let mut hops = landed.trail;
    hops.push(landed.response.headers().clone());
    metadata(&hops, stopped)
        .ok_or_else(|| Failure::Broken("sends files without saying what they are".to_owned()).into())
}

/// Reads the hops of one question, first one first. The length of a redirect is that of its own text,
/// so the last hop's counts only if it was not `stopped` at a redirect.
fn metadata(hops: &[HeaderMap], stopped: bool) -> Option<Metadata> {
    let commit = hops.iter().find_map(|hop| answer::text(hop, "x-repo-commit")?.trim().parse().ok())?;
    let linked = || hops.iter().find_map(|hop| digest(answer::text(hop, "x-linked-etag")?));
    let plain = || {
        let own = hops.iter().filter(|hop| hop.contains_key("x-repo-commit"));
        own.filter_map(|hop| answer::text(hop, ETAG.as_str())).find_map(digest)
    };
    let size = hops.iter().find_map(|hop| number(hop, "x-linked-size"));
    let length = || hops.last().filter(|_| !stopped).and_then(|hop| number(hop, CONTENT_LENGTH.as_str()));
    Some(Metadata { commit, digest: linked().or_else(plain)?, size: size.or_else(length) })
}

/// An etag as it comes: quoted or bare, perhaps marked weak.
fn digest(etag: &str) -> Option<Digest> {
    let etag = etag.trim();
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"').parse().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    answer::text(headers, name)?.trim().parse().ok()
}

/// Asks for the first byte to learn the size: some proxies drop every header that tells it.
async fn size_by_range(line: &Line<'_>, url: &Url, grant: Grant) -> Result<u64, Miss> {
    let landed = line.go(Method::GET, url, Some("bytes=0-0".to_owned()), grant, Abroad::Follow).await?;
    let total = answer::text(landed.response.headers(), CONTENT_RANGE.as_str())
        .and_then(|range| range.rsplit_once('/')?.1.trim().parse().ok());
    total.ok_or_else(|| Failure::Broken("does not say how large its files are".to_owned()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const GIT: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";

    fn hop(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_linked_etag_of_the_first_hop_wins() {
        let hops = [
            hop(&[("x-repo-commit", GIT), ("x-linked-etag", SHA256), ("x-linked-size", "9"), ("etag", OTHER)]),
            hop(&[("etag", OTHER), ("content-length", "7")]),
        ];
        let found = metadata(&hops, false).unwrap();
        assert_eq!((found.digest, found.size), (SHA256.parse().unwrap(), Some(9)));
    }

    #[test]
    fn etags_come_quoted_bare_and_weak() {
        for etag in [GIT.to_owned(), format!("\"{GIT}\""), format!("W/\"{GIT}\"")] {
            assert_eq!(digest(&etag), Some(GIT.parse().unwrap()), "{etag}");
        }
        assert_eq!(digest("\"abc-2\""), None);
    }

    #[test]
    fn the_length_of_a_redirect_is_no_size() {
        let hops = [hop(&[("x-repo-commit", GIT), ("etag", SHA256), ("content-length", "913")])];
        assert_eq!(metadata(&hops, true).unwrap().size, None);
        assert_eq!(metadata(&hops, false).unwrap().size, Some(913));
    }

    #[test]
    fn no_commit_or_no_digest_is_no_metadata() {
        assert_eq!(metadata(&[hop(&[("etag", SHA256)])], false), None);
        assert_eq!(metadata(&[hop(&[("x-repo-commit", GIT), ("etag", "\"x\"")])], false), None);
        let foreign = [hop(&[("x-repo-commit", GIT)]), hop(&[("etag", OTHER)])];
        assert_eq!(metadata(&foreign, false), None, "an etag beside no commit is a data host's own");
    }
}
