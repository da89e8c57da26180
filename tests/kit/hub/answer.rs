//! One request in, one answer out: access, faults, redirects and file bytes.
//!
//! Knows headers and status codes of the real Hub and of its data host. Does not know how bytes flow (`body`).
//! Invariant: every request is noted before it is answered, so the ledger has also those that never get an answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shares};
use axum::http::{HeaderMap, Method, header, request::Parts, response::Builder};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Digest as _;

use super::repo::{File, Kind, Repo, hex};
use super::route::Route;
use super::{Fault, Host, Seen, Shared, State, body, fault, metadata};

/// A request, read.
pub(super) struct Asked {
    pub host: Host,
    pub method: Method,
    pub route: Route,
    pub target: String,
    pub headers: HeaderMap,
    pub form: Vec<u8>,
    pub proxied: bool,
    /// Scheme, host and port as the client named them.
    pub origin: String,
}

impl Asked {
    fn header(&self, name: impl header::AsHeaderName) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// The decoded value of a query parameter.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.query(name).as_deref(), Some("true" | "True" | "1"))
    }
}

/// The pairs of a query or of a form.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&').filter_map(|pair| pair.split_once('=')).map(move |(key, value)| (decode(key), decode(value)))
}

/// Why there is no ordinary answer, in the Hub's own form.
pub(super) struct Refusal {
    pub status: u16,
    pub code: Option<&'static str>,
    pub message: String,
    pub commit: Option<String>,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code: (!code.is_empty()).then_some(code), message: message.into(), commit: None }
    }

    fn response(self) -> Response {
        let text = serde_json::json!({ "error": self.message }).to_string();
        let mut builder = Response::builder()
            .status(self.status)
            .header("content-type", "application/json; charset=utf-8")
            .header("content-length", text.len())
            .header("x-error-message", &self.message);
        if let Some(code) = self.code {
            builder = builder.header("x-error-code", code);
        }
        if let Some(commit) = self.commit {
            builder = builder.header("x-repo-commit", commit);
        }
        finish(builder, text.into())
    }
}

type Answer = Result<Response, Refusal>;

pub(super) fn router(shared: Arc<Shared>, host: Host) -> Router {
    Router::new().fallback(answer).with_state((shared, host))
}

async fn answer(Shares((shared, host)): Shares<(Arc<Shared>, Host)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let form = to_bytes(body, 1 << 20).await.unwrap_or_default().to_vec();
    let asked = read(host, &parts, form);
    let (faults, at) = {
        let mut state = shared.lock();
        let file = file_asked(&state, &asked);
        let faults = fault::strike(&mut state.rules, host, (&asked.method, asked.route.label()), file.as_deref());
        let seen = note(&asked, file);
        state.ledger.seen.push(seen);
        (faults, state.ledger.seen.len() - 1)
    };
    for fault in &faults {
        match fault {
            Fault::Silent => std::future::pending().await,
            Fault::Late { millis } => tokio::time::sleep(Duration::from_millis(*millis)).await,
            _ => {}
        }
    }
    let mut response = refused_by_fault(&faults).unwrap_or_else(|| {
        let state = shared.lock();
        ordinary(&shared, &state, &asked, &faults).unwrap_or_else(Refusal::response)
    });
    if faults.contains(&Fault::NoCommit) {
        response.headers_mut().remove("x-repo-commit");
    }
    if asked.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    if let Some(seen) = shared.lock().ledger.seen.get_mut(at) {
        seen.status = response.status().as_u16();
    }
    response
}

fn read(host: Host, parts: &Parts, form: Vec<u8>) -> Asked {
    let authority = parts.uri.authority().map(ToString::to_string);
    let named = authority.or_else(|| parts.headers.get(header::HOST)?.to_str().ok().map(str::to_owned));
    Asked {
        host,
        method: parts.method.clone(),
        route: Route::read(parts.uri.path()),
        target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers.clone(),
        form,
        proxied: parts.uri.authority().is_some(),
        origin: format!("http://{}", named.unwrap_or_default()),
    }
}

fn note(asked: &Asked, file: Option<String>) -> Seen {
    Seen {
        host: asked.host,
        method: asked.method.to_string(),
        route: asked.route.label(),
        target: asked.target.clone(),
        file,
        range: asked.header(header::RANGE),
        authorization: asked.header(header::AUTHORIZATION),
        user_agent: asked.header(header::USER_AGENT),
        proxied: asked.proxied,
        status: 0,
    }
}

/// The path of the file that the request is about.
fn file_asked(state: &State, asked: &Asked) -> Option<String> {
    match &asked.route {
        Route::Data => asked.query("path"),
        Route::ResolveCache(_, _, words) => Some(words[1..].join("/")),
        Route::Resolve(kind, id, words) => match state.repos.get(&(*kind, id.clone())) {
            Some(repo) => Some(split_revision(repo, words).1),
            None => words.get(1..).map(|path| path.join("/")),
        },
        _ => None,
    }
}

/// A revision may hold slashes that a proxy has decoded, so the longest known one is taken.
pub(super) fn split_revision(repo: &Repo, words: &[String]) -> (String, String) {
    let known = (1..=words.len()).rev().find(|n| repo.resolve(&words[..*n].join("/")).is_some());
    let (revision, path) = words.split_at(known.unwrap_or(1).min(words.len()));
    (revision.join("/"), path.join("/"))
}

fn refused_by_fault(faults: &[Fault]) -> Option<Response> {
    faults.iter().find_map(|fault| match fault {
        Fault::Busy { wait_secs, modern } => {
            let builder = Response::builder().status(429);
            let builder = if *modern {
                builder
                    .header("ratelimit", format!("\"resolvers\";r=0;t={wait_secs}"))
                    .header("ratelimit-policy", "\"fixed window\";\"resolvers\";q=3000;w=300")
            } else {
                builder.header("retry-after", wait_secs.to_string())
            };
            Some(finish(builder, "We had to rate limit you".into()))
        }
        Fault::Status { status } => Some(finish(Response::builder().status(*status), "upstream trouble".into())),
        Fault::CaptivePage => {
            let page = "<!DOCTYPE html><html><body>Welcome! Please log in to use this network.</body></html>";
            Some(finish(Response::builder().header("content-type", "text/html"), page.into()))
        }
        _ => None,
    })
}

fn ordinary(shared: &Arc<Shared>, state: &State, asked: &Asked, faults: &[Fault]) -> Answer {
    match &asked.route {
        Route::Data => data(shared, state, asked, faults),
        // Xet is offered in every header; a client that takes it up stands out in the ledger.
        Route::Xet | Route::Other => Err(Refusal::new(404, "", "Not Found")),
        _ => match find(state, asked)? {
            Found::Moved(location) => Ok(redirect(Response::builder(), &location)),
            Found::Repo(repo) => match &asked.route {
                Route::Resolve(_, _, words) => resolve(shared, state, asked, repo, words, faults),
                Route::ResolveCache(_, _, words) => {
                    let file = repo.files(&words[0]).and_then(|files| files.get(&words[1..].join("/")));
                    let file = file.ok_or_else(|| entry_not_found(&words[0]))?;
                    let builder = Response::builder().header("x-repo-commit", &words[0]);
                    Ok(bytes(shared, asked, &words[1..].join("/"), file, etag(file, faults), builder, faults))
                }
                _ => metadata::answer(state, asked, repo, faults),
            },
        },
    }
}

enum Found<'a> {
    Repo(&'a Repo),
    Moved(String),
}

/// The repo, when this asker may know of it.
fn find<'a>(state: &'a State, asked: &Asked) -> Result<Found<'a>, Refusal> {
    let token = asked.header(header::AUTHORIZATION).map(|value| value.trim_start_matches("Bearer ").to_owned());
    let licensed = token.as_ref().is_some_and(|token| state.tokens.contains(token));
    if let Some(token) = &token
        && !licensed
        && !state.unlicensed.contains(token)
    {
        return Err(Refusal::new(401, "", "Invalid credentials in Authorization header"));
    }
    let missing = || match token {
        Some(_) => Refusal::new(404, "RepoNotFound", "Repository not found"),
        None => Refusal::new(401, "RepoNotFound", "Invalid username or password."),
    };
    let Some((kind, id)) = asked.route.repo() else { return Err(missing()) };
    let Some(repo) = state.repos.get(&(kind, id.to_owned())) else {
        let other_case = state.repos.keys().find(|(k, name)| *k == kind && name.eq_ignore_ascii_case(id));
        let moved = state.renamed.get(id).or(other_case.map(|(_, name)| name)).ok_or_else(missing)?;
        return Ok(Found::Moved(asked.target.replacen(id, moved, 1)));
    };
    if repo.private && !licensed {
        return Err(missing());
    }
    if repo.disabled {
        return Err(Refusal::new(403, "", "Access to this resource is disabled."));
    }
    if repo.gated && !licensed && matches!(asked.route, Route::Resolve(..) | Route::ResolveCache(..)) {
        let (status, why) = match token {
            Some(_) => (403, "and you are not in the authorized list. Visit the repo to ask for access."),
            None => (401, "You must have access to it and be authenticated to access it. Please log in."),
        };
        return Err(Refusal::new(status, "GatedRepo", format!("Access to model {id} is restricted. {why}")));
    }
    Ok(Found::Repo(repo))
}

fn entry_not_found(commit: &str) -> Refusal {
    Refusal { commit: Some(commit.to_owned()), ..Refusal::new(404, "EntryNotFound", "Entry not found") }
}

fn resolve(
    shared: &Arc<Shared>,
    state: &State,
    asked: &Asked,
    repo: &Repo,
    words: &[String],
    faults: &[Fault],
) -> Answer {
    let (revision, path) = split_revision(repo, words);
    let commit = repo
        .resolve(&revision)
        .ok_or_else(|| Refusal::new(404, "RevisionNotFound", format!("Invalid rev id: {revision}")))?;
    let file = repo.files(commit).and_then(|files| files.get(&path)).ok_or_else(|| entry_not_found(commit))?;
    let builder = Response::builder()
        .header("x-repo-commit", commit)
        .header("accept-ranges", "bytes")
        .header("access-control-expose-headers", "X-Repo-Commit,X-Error-Code,X-Error-Message,ETag,Link");
    let Some(sha256) = &file.sha256 else {
        let encoded: Vec<String> = path.split('/').map(encode).collect();
        let location = format!(
            "/api/resolve-cache/{}/{}/{commit}/{}?{}=&etag=%22{}%22",
            repo.kind.plural(),
            repo.id,
            encoded.join("/"),
            encode(asked.target.split('?').next().unwrap_or_default()),
            file.oid
        );
        return Ok(redirect(builder, &location));
    };
    let xet = bait("xet", sha256);
    let builder = builder
        .header("x-linked-size", told_size(file, faults))
        .header("x-linked-etag", format!("\"{}\"", etag(file, faults)))
        .header("x-xet-hash", &xet)
        .header(
            "link",
            format!(
                "<{0}/api/{1}/{2}/xet-read-token/{commit}>; rel=\"xet-auth\", \
                 <{0}/api/xet/v1/reconstructions/{xet}>; rel=\"xet-reconstruction-info\"",
                asked.origin,
                repo.kind.plural(),
                repo.id
            ),
        );
    Ok(redirect(builder, &signed(shared, state, repo, &path, commit)))
}

/// Where the data host has a file, for as long as signatures last.
fn signed(shared: &Shared, state: &State, repo: &Repo, path: &str, commit: &str) -> String {
    let expires = now_millis() + state.signed_for.as_millis();
    let key = format!("{}/{}/{commit}/{}", repo.kind.plural(), repo.id, encode(path));
    let signature = signature(&key, expires, state.epoch);
    format!("http://{}/data/{key}?path={}&Expires={expires}&Signature={signature}", shared.data, encode(path))
}

fn signature(key: &str, expires: u128, epoch: u64) -> String {
    let mut text = bait("signature", &format!("{key} {expires} {epoch}"));
    text.truncate(32);
    text
}

fn now_millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// The data host: bytes for whoever has a signed URL, and none of the Hub's headers.
fn data(shared: &Arc<Shared>, state: &State, asked: &Asked, faults: &[Fault]) -> Answer {
    let plain = |status: u16, code: &str| {
        let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        finish(Response::builder().status(status).header("content-type", "application/xml"), text.into())
    };
    if asked.headers.contains_key(header::AUTHORIZATION) {
        // Real stores refuse two kinds of proof at once.
        return Ok(plain(400, "InvalidArgument"));
    }
    let key = asked.target.split('?').next().unwrap_or_default().trim_start_matches("/data/");
    let expires = asked.query("Expires").and_then(|text| text.parse::<u128>().ok()).unwrap_or_default();
    let genuine = asked.query("Signature").is_some_and(|given| given == signature(key, expires, state.epoch));
    if !genuine || expires < now_millis() || faults.contains(&Fault::Expired) {
        return Ok(plain(403, "AccessDenied"));
    }
    let Some((repo, commit)) = repo_of_key(state, key) else { return Ok(plain(404, "NoSuchKey")) };
    let path = asked.query("path").unwrap_or_default();
    let Some(file) = repo.files(&commit).and_then(|files| files.get(&path)) else {
        return Ok(plain(404, "NoSuchKey"));
    };
    // A store's own etag is also 64 hexadecimal digits, and is not the file's digest.
    let own_etag = bait("store", file.etag());
    Ok(bytes(shared, asked, &path, file, own_etag, Response::builder(), faults))
}

fn repo_of_key<'a>(state: &'a State, key: &str) -> Option<(&'a Repo, String)> {
    let words: Vec<&str> = key.split('/').collect();
    let kind = Kind::ALL.into_iter().find(|kind| Some(&kind.plural()) == words.first())?;
    let at = words.iter().position(|word| word.len() == 40)?;
    Some((state.repos.get(&(kind, words.get(1..at)?.join("/")))?, words.get(at)?.to_string()))
}

pub(super) fn told_size(file: &File, faults: &[Fault]) -> u64 {
    let by = faults.iter().find_map(|fault| match fault {
        Fault::WrongSize { by } => Some(*by),
        _ => None,
    });
    (file.size() as u64).saturating_add_signed(by.unwrap_or(0))
}

pub(super) fn etag(file: &File, faults: &[Fault]) -> String {
    let wrong = faults.iter().find_map(|fault| match fault {
        Fault::WrongEtag { etag } => Some(etag.clone()),
        _ => None,
    });
    wrong.unwrap_or_else(|| file.etag().to_owned())
}

/// A file or the asked range of it.
fn bytes(
    shared: &Arc<Shared>,
    asked: &Asked,
    path: &str,
    file: &File,
    etag: String,
    builder: Builder,
    faults: &[Fault],
) -> Response {
    let size = file.size();
    let range = asked.header(header::RANGE).filter(|_| !faults.contains(&Fault::IgnoreRange));
    let (start, end) = match range.as_deref().map(|text| read_range(text, size)) {
        Some(None) => {
            let builder = builder.status(416).header("content-range", format!("bytes */{size}"));
            return finish(builder, Body::empty());
        }
        Some(Some(range)) => range,
        None => (0, size),
    };
    // The real Hub compresses small text on the way unless told not to, and then cannot tell its length.
    let squeezed = file.sha256.is_none() && asked.header(header::ACCEPT_ENCODING).is_some_and(|it| it.contains("gzip"));
    let weak = if squeezed && range.is_none() { "W/" } else { "" };
    let mut builder = builder
        .header("etag", format!("{weak}\"{etag}\""))
        .header("accept-ranges", "bytes")
        .header("content-type", "application/octet-stream");
    if range.is_some() {
        builder = builder.status(206).header("content-range", format!("bytes {start}-{}/{size}", end - 1));
    }
    let short = faults.iter().find_map(|fault| match fault {
        Fault::ShortBody { bytes } => Some(*bytes as usize),
        _ => None,
    });
    if !(faults.contains(&Fault::NoLength) || squeezed && range.is_none()) {
        builder = builder.header("content-length", (end - start).min(short.unwrap_or(usize::MAX)));
    }
    if asked.method == Method::HEAD {
        return finish(builder, Body::empty());
    }
    let body = body::body(shared.clone(), path.to_owned(), file.content.clone(), (start, end), faults);
    finish(builder, body)
}

/// The half-open range that `bytes=…` asks for; `None` when it lies outside the file.
fn read_range(text: &str, size: usize) -> Option<(usize, usize)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = if from.is_empty() {
        (size.saturating_sub(to.parse().ok()?), size)
    } else {
        let last = if to.is_empty() { size.checked_sub(1)? } else { to.parse::<usize>().ok()? };
        (from.parse().ok()?, last.saturating_add(1).min(size))
    };
    (start < end).then_some((start, end))
}

pub(super) fn redirect(builder: Builder, location: &str) -> Response {
    // As on the real Hub: the redirect has a body, whose length is no file's.
    let status = if location.starts_with('/') { 307 } else { 302 };
    let text = format!("Temporary Redirect. Redirecting to {location}");
    let builder = builder
        .status(status)
        .header("location", location)
        .header("content-type", "text/plain; charset=utf-8")
        .header("content-length", text.len());
    finish(builder, text.into())
}

pub(super) fn finish(builder: Builder, body: Body) -> Response {
    builder.header("x-request-id", "Root=1-test").body(body).expect("headers that HTTP allows")
}

pub(super) fn encode(text: &str) -> String {
    const KEPT: percent_encoding::AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, &KEPT).to_string()
}

/// A digest that is not the file's, the same each time.
pub(super) fn bait(what: &str, of: &str) -> String {
    hex(&sha2::Sha256::digest(format!("{what} {of}")))
}
