//! Fitting: which files of a commit can have their names on this system.
//!
//! Knows what systems demand of names. Does not know contents, or what is on the disk already.
//! Invariant: of files that fit, none takes the place of another; and what does not fit is told before
//! anything is downloaded.
//!
//! The Hub's names are Linux's. A whole repo is worth having without a file that cannot be had; a file that
//! the user named is not.

use std::collections::HashMap;

use super::Error;
use crate::cache::Cache;
use crate::disk::{self, Letters};
use crate::names::{RepoPath, Revision};
use crate::tree::Content;

/// What names obey here beyond what every name obeys that comes from outside.
pub(super) struct Demands {
    /// What no name may hold.
    refused: &'static [char],
    letters: Letters,
}

impl Demands {
    pub(super) fn of(cache: &Cache) -> Self {
        Self { refused: disk::REFUSED_IN_NAMES, letters: cache.letters() }
    }
}

/// Takes out what cannot have its name here, with a warning for each. `named` are the files that the user
/// asked for, if any.
pub(super) fn fit(
    files: Vec<(RepoPath, Content)>,
    named: &[RepoPath],
    demands: &Demands,
    mut warn: impl FnMut(String),
) -> Result<Vec<(RepoPath, Content)>, Error> {
    let mut taken = HashMap::new();
    let mut fitting = Vec::new();
    for (path, content) in files {
        match refusal(path.as_str(), demands).or_else(|| rival(&path, &mut taken, demands)) {
            None => fitting.push((path, content)),
            Some(why) => leave_out(&path, Error::Unfit { name: path.to_string(), why }, named, &mut warn)?,
        }
    }
    Ok(fitting)
}

/// Goes on without a file that cannot be had here, unless the user named it.
pub(super) fn leave_out(
    path: &RepoPath,
    why: Error,
    named: &[RepoPath],
    mut warn: impl FnMut(String),
) -> Result<(), Error> {
    if named.contains(path) {
        return Err(why);
    }
    warn(format!("a file was left out: {why}"));
    Ok(())
}

/// Refuses a revision that cannot be noted here: its name becomes that of a file.
pub(super) fn revision(revision: &Revision, demands: &Demands) -> Result<(), Error> {
    match refusal(revision.as_str(), demands) {
        Some(why) => Err(Error::Unfit { name: revision.to_string(), why }),
        None => Ok(()),
    }
}

fn refusal(name: &str, demands: &Demands) -> Option<String> {
    let refused = name.chars().find(|c| demands.refused.contains(c))?;
    Some(format!("this system allows no `{refused}` in a name"))
}

/// Why a path cannot stand beside those that fitted before it: a folder or file of it is one of theirs, but for large
/// and small letters.
fn rival(path: &RepoPath, taken: &mut HashMap<String, String>, demands: &Demands) -> Option<String> {
    if demands.letters == Letters::Different {
        return None;
    }
    let ends = path.as_str().match_indices('/').map(|(at, _)| at).chain([path.as_str().len()]);
    let parts: Vec<&str> = ends.filter_map(|end| path.as_str().get(..end)).collect();
    let spelt_otherwise =
        parts.iter().find_map(|part| taken.get(&part.to_lowercase()).filter(|spelt| *spelt != part).cloned());
    if spelt_otherwise.is_none() {
        taken.extend(parts.iter().map(|part| (part.to_lowercase(), (*part).to_owned())));
    }
    spelt_otherwise.map(|spelt| format!("this system does not tell it from `{spelt}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Demands = Demands { refused: &['?', '<'], letters: Letters::Alike };

    fn files(paths: &[&str]) -> Vec<(RepoPath, Content)> {
        let digest = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse().unwrap();
        paths.iter().map(|path| (path.parse().unwrap(), Content { digest, size: 5 })).collect()
    }

    fn fitted(paths: &[&str], demands: &Demands) -> (Vec<String>, Vec<String>) {
        let mut warnings = Vec::new();
        let files = fit(files(paths), &[], demands, |warning| warnings.push(warning)).unwrap();
        (files.into_iter().map(|(path, _)| path.to_string()).collect(), warnings)
    }

    #[test]
    fn where_nothing_is_demanded_everything_fits() {
        let demands = Demands { refused: &[], letters: Letters::Different };
        let paths = ["A", "a", "b?", "c/d", "C/e"];
        assert_eq!(fitted(&paths, &demands), (paths.map(str::to_owned).to_vec(), Vec::new()));
        revision(&"a<b".parse().unwrap(), &demands).unwrap();
    }

    #[test]
    fn of_a_whole_repo_what_cannot_have_its_name_is_left_out_and_told() {
        let (fitting, warnings) = fitted(&["what?.txt", "a.txt", "x<y/b.txt"], &STRICT);
        assert_eq!(fitting, ["a.txt"]);
        assert_eq!(
            warnings[0],
            "a file was left out: `what?.txt` cannot be had here: this system allows no `?` in a name"
        );
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn of_names_that_only_their_letters_tell_apart_the_first_is_had() {
        for (paths, had) in [
            (&["README.md", "Readme.md"][..], &["README.md"][..]),
            (&["Sub/a", "sub/b", "sub/a"], &["Sub/a"]),
            (&["A", "a/b"], &["A"]),
            (&["a/b", "a/c", "ab"], &["a/b", "a/c", "ab"]),
            (&["ÄRGER", "ärger"], &["ÄRGER"]),
        ] {
            let (fitting, warnings) = fitted(paths, &STRICT);
            assert_eq!(fitting, had);
            assert_eq!(warnings.len(), paths.len() - had.len());
        }
    }

    #[test]
    fn what_was_named_and_cannot_be_had_is_refused() {
        let named: Vec<RepoPath> = vec!["Readme.md".parse().unwrap()];
        let fit = |paths: &[&str]| fit(files(paths), &named, &STRICT, |warning| panic!("{warning}"));
        assert_eq!(fit(&["Readme.md"]).unwrap().len(), 1);
        let error = fit(&["README.md", "Readme.md"]).unwrap_err();
        assert_eq!(error.to_string(), "`Readme.md` cannot be had here: this system does not tell it from `README.md`");
        assert!(error.hint().is_some() && !error.may_pass());
        assert!(matches!(revision(&"a<b".parse().unwrap(), &STRICT), Err(Error::Unfit { .. })));
    }
}
