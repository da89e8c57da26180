//! Unfinished adds on disk: what goes on after a restart.
//!
//! Knows one small file an order. Does not know how an order is carried out.
//! Invariant: no secret is ever written. After a restart the daemon's own token is used, where its
//! environment has one for that Hub.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Wishes;
use crate::control::AddRequest;
use crate::digest::short_name;
use crate::limits;
use crate::names::{Repo, RepoPath, Revision};

/// An order as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) repo: Repo,
    pub(super) revision: Revision,
    pub(super) files: Vec<RepoPath>,
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) wishes: Wishes,
}

impl Remembered {
    pub(super) fn of(request: &AddRequest) -> Self {
        let AddRequest { repo, revision, files, include, exclude, wishes, talk: _ } = request.clone();
        Self { repo, revision, files, include, exclude, wishes: wishes.without_secrets() }
    }
}

/// The folder of unfinished adds.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Writes an order down; equal orders share one file.
    pub(super) fn remember(&self, order: &Remembered) -> io::Result<PathBuf> {
        let text = serde_json::to_vec(order)?;
        let path = self.path.join(format!("{}.json", short_name(&text)));
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        io::Write::write_all(&mut file, &text)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }

    pub(super) fn forget(&self, path: &Path) {
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(path = %path.display(), %error, "could not forget a finished add");
        }
    }

    /// All orders; a file that cannot be read is named, left alone, and stops nothing.
    pub(super) fn all(&self) -> Vec<(PathBuf, Remembered)> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let read = |path: PathBuf| {
            let order = std::fs::read(&path).map_err(|error| error.to_string());
            match order.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
                Ok(order) => Some((path, order)),
                Err(error) => {
                    warn!(path = %path.display(), error, "an unfinished add cannot be read, and is left out");
                    None
                }
            }
        };
        let ours = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
        paths.filter(ours).filter_map(read).take(limits::ADDS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Proxies, Token, TokenChoice};
    use crate::control::Talk;
    use crate::names::RepoType;

    #[test]
    fn an_order_is_remembered_without_its_secrets_and_garbage_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("unfinished")).unwrap();
        let secret = "hf_canaryCanaryCanary";
        let request = AddRequest {
            repo: Repo { kind: RepoType::Model, id: "org/name".parse().unwrap() },
            revision: Revision::main(),
            files: Vec::new(),
            include: vec!["*.bin".to_owned()],
            exclude: Vec::new(),
            wishes: Wishes {
                token: Token::new(secret).map(TokenChoice::Send),
                proxies: Some(Proxies { https: Some(format!("http://u:{secret}@proxy")), ..Proxies::default() }),
                ..Wishes::default()
            },
            talk: Talk::Usual,
        };
        let order = Remembered::of(&request);
        let path = folder.remember(&order).unwrap();
        assert_eq!(folder.remember(&order).unwrap(), path);
        assert!(!std::fs::read_to_string(&path).unwrap().contains(secret));
        std::fs::write(path.with_file_name("torn.json"), b"{\"repo\":").unwrap();
        assert_eq!(folder.all(), [(path.clone(), order)]);
        folder.forget(&path);
        assert!(folder.all().is_empty());
    }
}
