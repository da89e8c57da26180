//! The environment variables that hffs reads.
//!
//! Knows their names, and how `~` and `$VAR` in them are read. Does not know what they decide.
//! Invariant: this is the only place that looks at the process's environment, so nothing acts on a
//! variable that is not in the list below.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;

/// Variables whose value is a path: `~` and `$VAR` in them are expanded, as `huggingface_hub` does.
const PATHS: [&str; 6] =
    ["HFFS_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_TOKEN_PATH"];

/// Variables that are taken as they stand.
const WORDS: [&str; 21] = [
    "HFFS_LOG",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "HOME",
    "USERPROFILE",
    "XDG_CONFIG_HOME",
    "APPDATA",
    "NO_COLOR",
    "TERM",
];

/// The environment variables that hffs reads, as one process saw them. An empty one counts as unset.
///
/// It has no `Debug`, since tokens and proxy passwords are in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    vars: BTreeMap<String, String>,
    /// Listed variables whose value is no Unicode; using another path than the one meant would be worse than stopping.
    unreadable: BTreeSet<String>,
    home_dir: Option<PathBuf>,
    config_dir: Option<PathBuf>,
}

impl Environment {
    /// What this process was started with.
    pub fn of_this_process() -> Self {
        let unreadable = PATHS
            .iter()
            .chain(&WORDS)
            .filter(|name| std::env::var_os(name).is_some_and(|value| value.to_str().is_none()));
        let unreadable = unreadable.map(|name| (*name).to_owned()).collect();
        // Python asks Windows for the variable and not for the folder, and its files are what we look for.
        let profile = std::env::var_os("USERPROFILE").filter(|profile| cfg!(windows) && !profile.is_empty());
        let home_dir =
            profile.map(PathBuf::from).or_else(|| directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()));
        let config_dir = directories::ProjectDirs::from("", "", "hffs").map(|dirs| dirs.config_dir().to_owned());
        Self { unreadable, config_dir, ..Self::read(home_dir, |name| std::env::var(name).ok()) }
    }

    /// An environment that has just these variables; what the system itself knows of the user is left out.
    pub fn from_vars<N: Into<String>, V: Into<String>>(vars: impl IntoIterator<Item = (N, V)>) -> Self {
        let vars: BTreeMap<String, String> =
            vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let get = |name: &str| vars.get(name).filter(|value| !value.is_empty()).cloned();
        let home_dir = get("HOME").or_else(|| get("USERPROFILE")).map(PathBuf::from);
        let base =
            get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home_dir.as_ref().map(|home| home.join(".config")));
        let config_dir = base.map(|base| base.join("hffs"));
        Self { config_dir, ..Self::read(home_dir, get) }
    }

    fn read(home_dir: Option<PathBuf>, lookup: impl Fn(&str) -> Option<String>) -> Self {
        let mut vars = BTreeMap::new();
        for name in WORDS {
            if let Some(value) = lookup(name) {
                vars.insert(name.to_owned(), value);
            }
        }
        for name in PATHS {
            if let Some(value) = lookup(name) {
                let value = expand_home(&value, home_dir.as_deref());
                let value = if cfg!(windows) { expand_on_windows(&value, &lookup) } else { expand(&value, &lookup) };
                vars.insert(name.to_owned(), value);
            }
        }
        Self { vars, home_dir, ..Self::default() }
    }

    /// The value of a variable, when it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a path variable, made absolute.
    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        if self.unreadable.contains(name) {
            return Err(Error::Variable { name: name.to_owned(), why: "is no valid Unicode".into() });
        }
        let Some(value) = self.get(name) else { return Ok(None) };
        let path = std::path::absolute(value)
            .map_err(|error| Error::Variable { name: name.to_owned(), why: format!("is no usable path: {error}") })?;
        Ok(Some(path))
    }

    /// The user's own directory.
    pub(super) fn home_dir(&self) -> Option<&Path> {
        self.home_dir.as_deref()
    }

    /// Where this platform keeps hffs's configuration.
    pub(super) fn config_dir(&self) -> Option<&Path> {
        self.config_dir.as_deref()
    }
}

/// Puts the home directory in place of a leading `~`.
fn expand_home(text: &str, home_dir: Option<&Path>) -> String {
    match (home_dir.and_then(Path::to_str), text.strip_prefix('~')) {
        (Some(home), Some(after)) if after.is_empty() || after.starts_with(std::path::is_separator) => {
            format!("{home}{after}")
        }
        _ => text.to_owned(),
    }
}

/// Expands `$VAR` and `${VAR}`; a variable that is not set stays as it is written.
fn expand(mut rest: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, whole) = match after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                (after.get(..end).unwrap_or_default(), end)
            }
        };
        let (written, tail) = after.split_at(whole);
        match lookup(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(&value),
            None => {
                out.push('$');
                out.push_str(written);
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The same by the rules that Python has for Windows: there is `%VAR%` as well, a doubled sign stands for itself,
/// nothing is expanded between single quotes, and what is not closed reaches to the end.
fn expand_on_windows(mut rest: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    while let Some((before, from)) = rest.find(['\'', '%', '$']).and_then(|at| rest.split_at_checked(at)) {
        out.push_str(before);
        if let Some(after) = from.strip_prefix("%%").or_else(|| from.strip_prefix("$$")) {
            out.extend(from.chars().next());
            rest = after;
            continue;
        }
        let between = |open: &str, close: char| {
            let inside = from.strip_prefix(open)?;
            Some(inside.split_once(close).map_or(("", from.len()), |(name, _)| (name, open.len() + name.len() + 1)))
        };
        let quoted = between("'", '\'').map(|(_, whole)| ("", whole));
        let (name, whole) = quoted.or_else(|| between("%", '%')).or_else(|| between("${", '}')).unwrap_or_else(|| {
            let after = from.get(1..).unwrap_or_default();
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)).unwrap_or(after.len());
            (after.get(..end).unwrap_or_default(), end + 1)
        });
        let (written, after) = from.split_at(whole);
        match lookup(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(&value),
            None => out.push_str(written),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn paths_are_expanded_as_a_shell_would() {
        for (written, meant) in [
            ("~", "/home/u"),
            ("~/x", "/home/u/x"),
            ("~other/x", "~other/x"),
            ("/a/~/b", "/a/~/b"),
            ("$SCRATCH/hf", "/scratch/hf"),
            ("${SCRATCH}2/hf", "/scratch2/hf"),
            ("$NOT_SET/hf", "$NOT_SET/hf"),
            ("${SCRATCH", "${SCRATCH"),
            ("a$", "a$"),
            ("$$SCRATCH", "$/scratch"),
        ] {
            let vars = [("HF_HOME", written), ("SCRATCH", "/scratch"), ("HOME", "/home/u")];
            assert_eq!(Environment::from_vars(vars).get("HF_HOME"), Some(meant), "{written}");
        }
    }

    #[test]
    fn paths_are_expanded_as_python_does_it_on_windows() {
        let lookup = |name: &str| (name == "DATA").then(|| r"D:\data".to_owned());
        for (written, meant) in [
            (r"%DATA%\hf", r"D:\data\hf"),
            (r"$DATA\hf", r"D:\data\hf"),
            (r"${DATA}s\hf", r"D:\datas\hf"),
            ("%DATA%%DATA%", r"D:\dataD:\data"),
            (r"C:\100%\%DATA%", r"C:\100%\%DATA%"),
            ("%NOT_SET%%DATA%", r"%NOT_SET%D:\data"),
            ("$NOT_SET$DATA-x$$DATA", "$NOT_SET$DATA-x$DATA"),
            ("a%%b$$c%", "a%b$c%"),
            ("'%DATA%'$DATA'$DATA", r"'%DATA%'D:\data'$DATA"),
            ("%DATA", "%DATA"),
            ("${DATA%DATA%", "${DATA%DATA%"),
            ("%€%$€", "%€%$€"),
        ] {
            assert_eq!(expand_on_windows(written, lookup), meant, "{written}");
        }
    }

    #[test]
    fn an_empty_variable_is_unset_and_an_unlisted_one_is_not_seen() {
        let environment = Environment::from_vars([("HF_ENDPOINT", ""), ("LD_PRELOAD", "x")]);
        assert_eq!(environment.get("HF_ENDPOINT"), None);
        assert_eq!(environment.get("LD_PRELOAD"), None);
    }
}
