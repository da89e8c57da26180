//! Selection: which files of a commit an add is about.
//!
//! Knows paths and globs. Does not know contents.
//! Invariant: every file that the user named is selected, or the selection fails.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Error;
use crate::names::{Repo, RepoPath, Revision, clean};
use crate::tree::{Content, Tree};

/// The globs of one add. `*` crosses folders and a trailing `/` means everything below, as
/// `huggingface_hub` has it (`utils/_paths.py`, `filter_repo_objects`).
pub(super) struct Globs {
    include: Option<GlobSet>,
    exclude: GlobSet,
    /// As the user wrote them.
    shown: String,
}

impl Globs {
    pub(super) fn parse(include: &[String], exclude: &[String]) -> Result<Self, Error> {
        let included = if include.is_empty() { None } else { Some(set(include)?) };
        Ok(Self { include: included, exclude: set(exclude)?, shown: shown(include, exclude) })
    }

    fn take(&self, path: &RepoPath) -> bool {
        self.include.as_ref().is_none_or(|globs| globs.is_match(path.as_str())) && !self.exclude.is_match(path.as_str())
    }
}

fn shown(include: &[String], exclude: &[String]) -> String {
    let quoted =
        |globs: &[String]| globs.iter().map(|glob| format!("`{}`", clean(glob, 80))).collect::<Vec<_>>().join(", ");
    match (include, exclude) {
        (include, []) => quoted(include),
        ([], exclude) => format!("everything but {}", quoted(exclude)),
        (include, exclude) => format!("{} without {}", quoted(include), quoted(exclude)),
    }
}

fn set(globs: &[String]) -> Result<GlobSet, Error> {
    let mut builder = GlobSetBuilder::new();
    for text in globs {
        let whole = if text.ends_with('/') { format!("{text}*") } else { text.clone() };
        let bad = |error: globset::Error| Error::BadGlob { glob: clean(text, 80), why: error.kind().to_string() };
        builder.add(GlobBuilder::new(&whole).literal_separator(false).backslash_escape(false).build().map_err(bad)?);
    }
    builder.build().map_err(|error| Error::BadGlob { glob: String::new(), why: error.kind().to_string() })
}

/// The files that an add brings: those that were named, or all, less what the globs leave out.
pub(super) fn select(
    tree: &Tree,
    named: &[RepoPath],
    globs: &Globs,
    repo: &Repo,
    revision: &Revision,
) -> Result<Vec<(RepoPath, Content)>, Error> {
    let missing = named.iter().find(|path| tree.get(path).is_none());
    if let Some(path) = missing {
        return Err(Error::NoFile { repo: repo.clone(), revision: revision.clone(), path: path.clone() });
    }
    let wanted = |path: &RepoPath| (named.is_empty() || named.contains(path)) && globs.take(path);
    let files: Vec<_> = tree.iter().filter(|(path, _)| wanted(path)).map(|(path, c)| (path.clone(), c)).collect();
    if files.is_empty() && !tree.is_empty() {
        return Err(Error::NothingSelected { repo: repo.clone(), globs: globs.shown.clone() });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(include: &[&str], exclude: &[&str], named: &[&str]) -> Result<Vec<String>, Error> {
        let mut tree = Tree::default();
        for path in ["a.bin", "a.json", "sub/b.bin", "sub/deep/c.txt", "x[1].txt"] {
            let digest = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse().unwrap();
            tree.insert(path.parse().unwrap(), Content { digest, size: 5 }).unwrap();
        }
        let repo = Repo { kind: crate::names::RepoType::Model, id: "o/n".parse().unwrap() };
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let globs = Globs::parse(&owned(include), &owned(exclude))?;
        let named: Vec<RepoPath> = named.iter().map(|path| path.parse().unwrap()).collect();
        let files = select(&tree, &named, &globs, &repo, &Revision::main())?;
        Ok(files.into_iter().map(|(path, _)| path.to_string()).collect())
    }

    #[test]
    fn globs_match_as_the_hubs_own_client_has_it() {
        assert_eq!(picked(&["*.bin"], &[], &[]).unwrap(), ["a.bin", "sub/b.bin"]);
        assert_eq!(picked(&[], &["sub/"], &[]).unwrap(), ["a.bin", "a.json", "x[1].txt"]);
        assert_eq!(picked(&["sub/*"], &["*.txt"], &[]).unwrap(), ["sub/b.bin"]);
    }

    #[test]
    fn what_was_named_must_be_there() {
        assert_eq!(picked(&[], &[], &["a.json"]).unwrap(), ["a.json"]);
        assert!(matches!(picked(&[], &[], &["A.json"]), Err(Error::NoFile { .. })));
        assert!(matches!(picked(&["*.gguf"], &[], &[]), Err(Error::NothingSelected { .. })));
        assert!(matches!(picked(&["[z-a]"], &[], &[]), Err(Error::BadGlob { .. })));
    }
}
