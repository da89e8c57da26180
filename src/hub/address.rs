//! Addresses: the URLs of the Hub's API, and where a redirect may lead.
//!
//! Knows how the Hub writes names into URLs and what makes two URLs one origin. Does not know what
//! is asked or answered there.
//! Invariant: a target of a redirect is plain http or https, never a step down from https to http,
//! and never this machine unless the endpoint is on this machine, too.

use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use super::Failure;
use crate::config::Endpoint;
use crate::names::{Repo, RepoPath, RepoType, clean};

/// What Python's `quote(…, safe="")` leaves as it is, because that is what the Hub's own client sends.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~');
const QUOTED_BUT_SLASHES: &AsciiSet = &QUOTED.remove(b'/');

/// `/api/models/org/name/revision/REVISION`.
pub(super) fn revision(endpoint: &Endpoint, repo: &Repo, revision: &str) -> Result<Url, Failure> {
    api(endpoint, repo, "revision", revision, "")
}

/// The same with sizes and digests of all files: what mirrors without `/tree` have.
pub(super) fn siblings(endpoint: &Endpoint, repo: &Repo, revision: &str) -> Result<Url, Failure> {
    api(endpoint, repo, "revision", revision, "?blobs=true")
}

/// The first page of a listing.
pub(super) fn tree(endpoint: &Endpoint, repo: &Repo, revision: &str) -> Result<Url, Failure> {
    api(endpoint, repo, "tree", revision, "?recursive=true&expand=false")
}

/// `/org/name/resolve/REVISION/path`: one file.
pub(super) fn resolve(endpoint: &Endpoint, repo: &Repo, revision: &str, path: &RepoPath) -> Result<Url, Failure> {
    let kind = match repo.kind {
        RepoType::Model => "",
        RepoType::Dataset => "datasets/",
        RepoType::Space => "spaces/",
    };
    let revision = utf8_percent_encode(revision, QUOTED);
    let path = utf8_percent_encode(path.as_str(), QUOTED_BUT_SLASHES);
    parse(endpoint, &format!("/{kind}{}/resolve/{revision}/{path}", repo.id))
}

fn api(endpoint: &Endpoint, repo: &Repo, route: &str, revision: &str, query: &str) -> Result<Url, Failure> {
    let revision = utf8_percent_encode(revision, QUOTED);
    parse(endpoint, &format!("/api/{}/{}/{route}/{revision}{query}", repo.kind.plural(), repo.id))
}

fn parse(endpoint: &Endpoint, rest: &str) -> Result<Url, Failure> {
    let url = Url::parse(&format!("{}{rest}", endpoint.url.trim_end_matches('/')));
    url.ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Failure::Broken("is no http or https address".to_owned()))
}

/// An endpoint as a person may see it: a login in its URL stays hidden.
pub(super) fn shown(endpoint: &Endpoint) -> String {
    let mut text = endpoint.url.clone();
    if let Ok(mut url) = Url::parse(&text)
        && (!url.username().is_empty() || url.password().is_some())
    {
        strip_login(&mut url);
        text = url.as_str().trim_end_matches('/').to_owned();
    }
    clean(&text, 200)
}

/// A URL's host and port, for logs and messages: never its query, which may be a signature.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether scheme, host and port are the same: only then a secret may follow.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// Where a redirect from `at` leads.
pub(super) fn hop(at: &Url, location: &str) -> Result<Url, Failure> {
    let broken = |why: &str| Err(Failure::Broken(format!("redirects {why}")));
    let Ok(mut next) = at.join(location) else {
        return broken("to something that is no address");
    };
    if !matches!(next.scheme(), "http" | "https") || !next.has_host() {
        return broken("to something that is no web address");
    }
    if at.scheme() == "https" && next.scheme() == "http" {
        return broken("from https to http");
    }
    if is_this_machine(&next) && !is_this_machine(at) {
        return broken("to the machine that asks");
    }
    if !same_origin(at, &next) {
        strip_login(&mut next);
    }
    next.set_fragment(None);
    Ok(next)
}

/// The next page of a listing, by the answer's `Link` headers. Its origin is rewritten to the endpoint
/// that was asked, since mirrors pass on links that name the Hub.
pub(super) fn next_page<'a>(
    endpoint: &Endpoint,
    at: &Url,
    links: impl Iterator<Item = &'a str>,
) -> Result<Option<Url>, Failure> {
    let Some(link) = links.flat_map(split_links).find_map(next_target) else {
        return Ok(None);
    };
    let target = at.join(link).map_err(|_| Failure::Broken("links to a page that is no address".to_owned()))?;
    let mut next = parse(endpoint, "")?;
    let base = next.path().trim_end_matches('/').to_owned();
    let below = target.path() == base || target.path().starts_with(&format!("{base}/"));
    next.set_path(&if below { target.path().to_owned() } else { format!("{base}{}", target.path()) });
    next.set_query(target.query());
    Ok(Some(next))
}

/// Cuts a `Link` header (RFC 8288) at the commas that stand outside of `<…>`.
fn split_links(header: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    header.split(move |c| {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            _ => {}
        }
        c == ',' && !inside
    })
}

fn next_target(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        parameter.trim().split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        })
    });
    is_next.then_some(target)
}

fn strip_login(url: &mut Url) {
    // These fail only for URLs without a host, which have no login either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

/// Whether the URL's host is written as this machine, or as an address that only this link knows.
fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
            None => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
        },
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint { url: url.to_owned(), role: Role::Hub }
    }

    fn repo(kind: RepoType) -> Repo {
        Repo { kind, id: "acme/tiny".parse().unwrap() }
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn names_are_written_as_the_hubs_own_client_writes_them() {
        let hub = endpoint("https://hub.test/");
        let at = |found: Result<Url, Failure>| found.unwrap().to_string();
        assert_eq!(
            at(revision(&hub, &repo(RepoType::Model), "refs/pr/1")),
            "https://hub.test/api/models/acme/tiny/revision/refs%2Fpr%2F1"
        );
        assert_eq!(
            at(resolve(&hub, &repo(RepoType::Dataset), "feature/x", &"sub dir/a+b é.bin".parse().unwrap())),
            "https://hub.test/datasets/acme/tiny/resolve/feature%2Fx/sub%20dir/a%2Bb%20%C3%A9.bin"
        );
        assert_eq!(
            at(tree(&endpoint("http://host:1/below"), &repo(RepoType::Space), "main")),
            "http://host:1/below/api/spaces/acme/tiny/tree/main?recursive=true&expand=false"
        );
        assert!(revision(&endpoint("ftp://host"), &repo(RepoType::Model), "main").is_err());
        assert!(revision(&endpoint("nonsense"), &repo(RepoType::Model), "main").is_err());
    }

    #[test]
    fn one_origin_is_scheme_and_host_and_port() {
        let home = url("https://hub.test/a");
        assert!(same_origin(&home, &url("https://HUB.test:443/b?c")));
        for other in ["http://hub.test/a", "https://hub.test:444/a", "https://hub.test.evil/a", "https://x.hub.test/"] {
            assert!(!same_origin(&home, &url(other)), "{other}");
        }
    }

    #[test]
    fn redirects_are_followed_as_written_and_never_downwards() {
        let at = url("https://hub.test/acme/tiny/resolve/main/config.json");
        let to = |location: &str| hop(&at, location).map(|url| url.to_string());
        assert_eq!(to("/api/x?%2Fa=&etag=%22b%22").unwrap(), "https://hub.test/api/x?%2Fa=&etag=%22b%22");
        assert_eq!(to("//cdn.test/y?sig=1").unwrap(), "https://cdn.test/y?sig=1");
        assert_eq!(to("https://me:pw@cdn.test/y#z").unwrap(), "https://cdn.test/y");
        for bad in [
            "http://hub.test/",
            "file:///etc/passwd",
            "javascript:x",
            "data:,x",
            "https://127.0.0.1/x",
            "https://localhost/x",
            "https://[::1]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://169.254.169.254/latest",
            "https://0.0.0.0/",
            "https://",
            "https://2130706433/",
        ] {
            assert!(to(bad).is_err(), "{bad} was followed to {:?}", to(bad));
        }
        assert!(hop(&url("http://127.0.0.1:1/"), "http://127.0.0.1:2/").is_ok());
    }

    #[test]
    fn a_next_page_is_asked_of_the_endpoint_in_use() {
        let at = url("https://mirror.test/hf/api/models/a/b/tree/main?recursive=true");
        let next = |links: &[&str]| {
            next_page(&endpoint("https://mirror.test/hf"), &at, links.iter().copied())
                .unwrap()
                .map(|url| url.to_string())
        };
        let wanted = Some("https://mirror.test/hf/api/models/a/b/tree/main?cursor=a,b%3D".to_owned());
        assert_eq!(
            next(&["<https://huggingface.co/api/models/a/b/tree/main?cursor=a,b%3D>; rel=\"next\""]),
            wanted,
            "a comma inside the brackets is part of the address"
        );
        assert_eq!(next(&["</x>; rel=prev", "</hf/api/models/a/b/tree/main?cursor=a,b%3D>;rel=next"]), wanted);
        assert_eq!(next(&["<https://x/y>; rel=\"prev\", garbage, <unclosed"]), None);
        assert_eq!(next(&[]), None);
    }

    #[test]
    fn a_login_in_an_endpoint_is_never_shown() {
        assert_eq!(shown(&endpoint("https://me:secret@hub.test")), "https://hub.test");
        assert_eq!(shown(&endpoint("https://hub.test")), "https://hub.test");
    }
}
