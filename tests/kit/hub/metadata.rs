//! The Hub's JSON: repo info, trees in pages, path info and refs.

use axum::response::Response;
use serde_json::{Value, json};

use super::answer::{Asked, Refusal, bait, encode, etag, finish, pairs, split_revision, told_size};
use super::repo::{File, Repo};
use super::route::Route;
use super::{Fault, State};

pub(super) fn answer(state: &State, asked: &Asked, repo: &Repo, faults: &[Fault]) -> Result<Response, Refusal> {
    match &asked.route {
        Route::Info(..) => Ok(whole(&about(repo, repo.head(), asked.flag("blobs"), faults))),
        Route::Revision(_, _, words) => {
            let commit = commit_of(repo, &words.join("/"))?;
            Ok(whole(&about(repo, commit, asked.flag("blobs"), faults)))
        }
        Route::Refs(..) => Ok(whole(&refs(repo, asked.flag("include_prs")))),
        Route::PathsInfo(_, _, words) => {
            let files = repo.files(commit_of(repo, &words.join("/"))?);
            let wanted = wanted_paths(asked);
            let found = wanted
                .iter()
                .filter_map(|path| files.and_then(|files| files.get(path)).map(|file| entry(path, file, faults)));
            Ok(whole(&found.collect()))
        }
        Route::Tree(_, _, words) => {
            let (revision, below) = split_revision(repo, words);
            let commit = commit_of(repo, &revision)?;
            tree(state, asked, repo, (commit, &below), faults)
        }
        _ => Err(Refusal::new(404, "", "Not Found")),
    }
}

fn commit_of<'a>(repo: &'a Repo, revision: &str) -> Result<&'a str, Refusal> {
    repo.resolve(revision).ok_or_else(|| Refusal::new(404, "RevisionNotFound", format!("Invalid rev id: {revision}")))
}

fn whole(value: &Value) -> Response {
    let text = value.to_string();
    let builder = Response::builder()
        .header("content-type", "application/json; charset=utf-8")
        .header("content-length", text.len());
    finish(builder, text.into())
}

fn about(repo: &Repo, commit: &str, blobs: bool, faults: &[Fault]) -> Value {
    let siblings: Vec<Value> = repo
        .files(commit)
        .into_iter()
        .flatten()
        .map(|(path, file)| {
            let mut sibling = json!({ "rfilename": path });
            if blobs {
                sibling["size"] = told_size(file, faults).into();
                sibling["blobId"] = told_oid(file, faults).into();
                if file.sha256.is_some() {
                    sibling["lfs"] = json!({ "sha256": etag(file, faults), "size": told_size(file, faults),
                        "pointerSize": file.pointer_len });
                }
            }
            sibling
        })
        .collect();
    json!({
        "_id": "test", "id": repo.id, "modelId": repo.id, "author": repo.id.split('/').next(), "sha": commit,
        "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
        "private": repo.private, "gated": if repo.gated { json!("auto") } else { json!(false) },
        "disabled": repo.disabled, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
    })
}

fn refs(repo: &Repo, with_prs: bool) -> Value {
    let below = |prefix: &str| -> Vec<Value> {
        repo.refs()
            .iter()
            .filter_map(|(name, commit)| {
                let short = name.strip_prefix(prefix)?;
                Some(json!({ "name": short, "ref": name, "targetCommit": commit }))
            })
            .collect()
    };
    let mut value = json!({ "branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": [] });
    if with_prs {
        value["pullRequests"] = below("refs/pr/").into();
    }
    value
}

/// The paths of a form (what the Python client sends) or of a JSON body.
fn wanted_paths(asked: &Asked) -> Vec<String> {
    let text = String::from_utf8_lossy(&asked.form);
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => value["paths"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|path| path.as_str().map(str::to_owned))
            .collect(),
        Err(_) => pairs(&text).filter(|(key, _)| key == "paths").map(|(_, path)| path).collect(),
    }
}

fn told_oid(file: &File, faults: &[Fault]) -> String {
    if file.sha256.is_some() { file.oid.clone() } else { etag(file, faults) }
}

fn entry(path: &str, file: &File, faults: &[Fault]) -> Value {
    let size = told_size(file, faults);
    let mut entry = json!({ "type": "file", "oid": told_oid(file, faults), "size": size, "path": path });
    if let Some(sha256) = &file.sha256 {
        entry["lfs"] = json!({ "oid": etag(file, faults), "size": size, "pointerSize": file.pointer_len });
        entry["xetHash"] = bait("xet", sha256).into();
    }
    entry
}

/// A page of the entries below a folder, directories among them, and where the next page is.
fn tree(
    state: &State,
    asked: &Asked,
    repo: &Repo,
    (commit, below): (&str, &str),
    faults: &[Fault],
) -> Result<Response, Refusal> {
    let recursive = asked.flag("recursive");
    let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
    let mut entries: Vec<Value> = Vec::new();
    let mut folders = std::collections::BTreeSet::new();
    for (path, file) in repo.files(commit).into_iter().flatten() {
        let Some(rest) = path.strip_prefix(&prefix) else { continue };
        for (at, _) in rest.match_indices('/').filter(|(at, _)| *at > 0) {
            let folder = format!("{prefix}{}", &rest[..at]);
            let shown = recursive || !rest[..at].contains('/');
            if shown && folders.insert(folder.clone()) {
                let oid = super::repo::git_blob(folder.as_bytes());
                entries.push(json!({ "type": "directory", "oid": oid, "size": 0, "path": folder }));
            }
        }
        if recursive || !rest.contains('/') {
            entries.push(entry(path, file, faults));
        }
    }
    if entries.is_empty() && !below.is_empty() {
        let refusal = Refusal::new(404, "EntryNotFound", format!("{below} does not exist on \"{commit}\""));
        return Err(Refusal { commit: Some(commit.to_owned()), ..refusal });
    }
    let start = asked.query("cursor").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let end = entries.len().min(start + state.page);
    let text = Value::from(entries.get(start..end).unwrap_or_default()).to_string();
    let mut builder = Response::builder()
        .header("content-type", "application/json; charset=utf-8")
        .header("content-length", text.len());
    if end < entries.len() {
        let origin = if faults.contains(&Fault::ForeignNextPage) { "https://hub.invalid" } else { &asked.origin };
        let sub = if below.is_empty() { String::new() } else { format!("/{}", encode(below)) };
        let next = format!(
            "<{origin}/api/{}/{}/tree/{commit}{sub}?recursive={recursive}&expand=false&cursor={end}>; rel=\"next\"",
            repo.kind.plural(),
            repo.id
        );
        builder = builder.header("link", next);
    }
    Ok(finish(builder, text.into()))
}
