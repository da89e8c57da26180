//! Which of the Hub's routes a URL is.
//!
//! Knows URLs. Does not know which repos there are, so a revision and the path behind it are told apart later.

use percent_encoding::percent_decode_str;

use super::repo::Kind;

/// A route with what the URL says about it. Paths and revisions are decoded, segment by segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    Info(Kind, String),
    Revision(Kind, String, Vec<String>),
    Tree(Kind, String, Vec<String>),
    PathsInfo(Kind, String, Vec<String>),
    Refs(Kind, String),
    Resolve(Kind, String, Vec<String>),
    ResolveCache(Kind, String, Vec<String>),
    Data,
    Xet,
    Other,
}

impl Route {
    pub fn read(path: &str) -> Self {
        let segments: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["data", ..] => Route::Data,
            ["api", "resolve-cache", kind, rest @ ..] => match plural(kind) {
                // Two segments of repo id at most; the commit is the first segment that looks like one.
                Some(kind) => match rest.iter().position(|word| word.len() == 40) {
                    Some(at) => Route::ResolveCache(kind, rest[..at].join("/"), owned(&rest[at..])),
                    None => Route::Other,
                },
                None => Route::Other,
            },
            ["api", kind, rest @ ..] => plural(kind).map_or(Route::Other, |kind| api(kind, rest)),
            ["datasets", rest @ ..] => resolve(Kind::Dataset, rest),
            ["spaces", rest @ ..] => resolve(Kind::Space, rest),
            rest => resolve(Kind::Model, rest),
        }
    }

    pub fn label(&self) -> &'static str {
        match self {
            Route::Info(..) => "info",
            Route::Revision(..) => "revision",
            Route::Tree(..) => "tree",
            Route::PathsInfo(..) => "paths-info",
            Route::Refs(..) => "refs",
            Route::Resolve(..) => "resolve",
            Route::ResolveCache(..) => "resolve-cache",
            Route::Data => "data",
            Route::Xet => "xet",
            Route::Other => "other",
        }
    }

    pub fn repo(&self) -> Option<(Kind, &str)> {
        match self {
            Route::Info(kind, id) | Route::Refs(kind, id) => Some((*kind, id)),
            Route::Revision(kind, id, _)
            | Route::Tree(kind, id, _)
            | Route::PathsInfo(kind, id, _)
            | Route::Resolve(kind, id, _)
            | Route::ResolveCache(kind, id, _) => Some((*kind, id)),
            Route::Data | Route::Xet | Route::Other => None,
        }
    }
}

fn plural(word: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.plural() == word)
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn api(kind: Kind, words: &[&str]) -> Route {
    let marker = |word: &&str| matches!(*word, "revision" | "tree" | "paths-info" | "refs" | "xet-read-token");
    let at = words.iter().take(3).skip(1).position(marker).map(|at| at + 1);
    let Some(at) = at else {
        return if (1..=2).contains(&words.len()) { Route::Info(kind, words.join("/")) } else { Route::Other };
    };
    let (id, rest) = (words[..at].join("/"), owned(&words[at + 1..]));
    match words[at] {
        "revision" => Route::Revision(kind, id, rest),
        "tree" => Route::Tree(kind, id, rest),
        "paths-info" => Route::PathsInfo(kind, id, rest),
        "refs" => Route::Refs(kind, id),
        _ => Route::Xet,
    }
}

fn resolve(kind: Kind, words: &[&str]) -> Route {
    match words.iter().take(3).skip(1).position(|word| *word == "resolve").map(|at| at + 1) {
        Some(at) => Route::Resolve(kind, words[..at].join("/"), owned(&words[at + 1..])),
        None => Route::Other,
    }
}
