//! Unfinished adds on disk: what goes on after a restart.
//!
//! Knows one small file an order. Does not know how an order is carried out.
//! Invariant: no secret is ever written. After a restart the daemon's own token is used, where its
//! environment has one for that Hub.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::Wishes;
use crate::control::AddRequest;
use crate::digest::short_name;
use crate::disk;
use crate::limits;
use crate::names::{Repo, RepoPath, Revision};
use crate::pace::Rate;

/// An order as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) repo: Repo,
    pub(super) revision: Revision,
    pub(super) files: Vec<RepoPath>,
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) wishes: Wishes,
    /// What the command allowed it to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limit_rate: Option<Rate>,
}

impl Remembered {
    pub(super) fn of(request: &AddRequest) -> Self {
        let AddRequest { repo, revision, files, include, exclude, wishes, limit_rate, talk: _ } = request.clone();
        Self { repo, revision, files, include, exclude, wishes: wishes.without_secrets(), limit_rate }
    }
}

/// What becomes of an order when somebody stops carrying it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It goes on at the next start.
    Keep,
    /// It is done, was cancelled, or cannot be done.
    Forget,
}

/// Who carries an order out.
#[derive(Debug, Default)]
struct Users {
    /// The commands that wait for it.
    commands: usize,
    /// Stops the add that goes on after a restart, while there is one.
    resumed: Option<CancellationToken>,
}

/// The folder of unfinished adds, and who is at work on them.
///
/// Equal orders share one file. Whoever is the last to wait for one decides what becomes of it; the add
/// that nobody waits for does as the commands say.
pub(super) struct Folder {
    path: PathBuf,
    users: Mutex<BTreeMap<PathBuf, Users>>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned(), users: Mutex::default() })
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Users>> {
        // Each change is complete in itself, so a panic elsewhere leaves it true.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the order of a command down, which has to `leave` it in the end.
    pub(super) fn join(&self, order: &Remembered) -> io::Result<PathBuf> {
        let text = serde_json::to_vec(order)?;
        // Orders that differ in how fast they may go are equal, and the last one says how fast that is.
        let name = short_name(&serde_json::to_vec(&Remembered { limit_rate: None, ..order.clone() })?);
        let path = self.path.join(format!("{name}.json"));
        // Held while writing, so that nobody forgets the file of an order that somebody joins.
        let mut users = self.users();
        if std::fs::read_dir(&self.path)?.count() >= limits::ADDS_MAX && !path.exists() {
            return Err(io::Error::other(format!("there are {} unfinished ones", limits::ADDS_MAX)));
        }
        let mut file = disk::private_temp(&self.path)?;
        io::Write::write_all(&mut file, &text)?;
        file.as_file().sync_all()?;
        disk::settle(file, &path)?;
        users.entry(path.clone()).or_default().commands += 1;
        Ok(path)
    }

    /// Notes that an order goes on without a command. The token stops it: with the daemon, or when the
    /// commands for an equal order have ended.
    pub(super) fn resume(&self, path: &Path, stopping: &CancellationToken) -> CancellationToken {
        let stop = stopping.child_token();
        self.users().entry(path.to_owned()).or_default().resumed = Some(stop.clone());
        stop
    }

    /// A command does not wait for its order any more.
    pub(super) fn leave(&self, path: &Path, ending: Ending) {
        let mut users = self.users();
        let Some(left) = users.get_mut(path) else { return };
        left.commands = left.commands.saturating_sub(1);
        if left.commands == 0 && ending == Ending::Forget {
            left.resumed.iter().for_each(CancellationToken::cancel);
            forget(path);
        }
        if left.commands == 0 && left.resumed.is_none() {
            users.remove(path);
        }
    }

    /// The add that went on without a command has ended.
    pub(super) fn leave_resumed(&self, path: &Path, ending: Ending) {
        let mut users = self.users();
        let Some(left) = users.get_mut(path) else { return };
        left.resumed = None;
        if left.commands == 0 {
            users.remove(path);
            if ending == Ending::Forget {
                forget(path);
            }
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

fn forget(path: &Path) {
    if let Err(error) = disk::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(path = %path.display(), %error, "could not forget a finished add");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Proxies, Token, TokenChoice};
    use crate::control::Talk;
    use crate::names::RepoType;

    const SECRET: &str = "hf_canaryCanaryCanary";

    fn order() -> Remembered {
        Remembered::of(&AddRequest {
            repo: Repo { kind: RepoType::Model, id: "org/name".parse().unwrap() },
            revision: Revision::main(),
            files: Vec::new(),
            include: vec!["*.bin".to_owned()],
            exclude: Vec::new(),
            wishes: Wishes {
                token: Token::new(SECRET).map(TokenChoice::Send),
                proxies: Some(Proxies { https: Some(format!("http://u:{SECRET}@proxy")), ..Proxies::default() }),
                ..Wishes::default()
            },
            limit_rate: None,
            talk: Talk::Usual,
        })
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(&dir.path().join("unfinished")).unwrap();
        (dir, folder)
    }

    #[test]
    fn an_order_is_remembered_without_its_secrets_and_garbage_is_left_out() {
        let (_dir, folder) = folder();
        let path = folder.join(&order()).unwrap();
        assert!(!std::fs::read_to_string(&path).unwrap().contains(SECRET));
        std::fs::write(path.with_file_name("torn.json"), b"{\"repo\":").unwrap();
        assert_eq!(folder.all(), [(path.clone(), order())]);
        folder.leave(&path, Ending::Forget);
        assert!(folder.all().is_empty());
    }

    #[test]
    fn an_order_is_kept_as_long_as_one_of_equal_commands_wants_it() {
        let (_dir, folder) = folder();
        let path = folder.join(&order()).unwrap();
        assert_eq!(folder.join(&order()).unwrap(), path);
        folder.leave(&path, Ending::Forget);
        assert!(path.exists(), "the other one is still at it");
        folder.leave(&path, Ending::Keep);
        assert!(path.exists(), "the other one failed for now");
        let slower = Remembered { limit_rate: "1MB".parse().ok(), ..order() };
        assert_eq!(folder.join(&slower).unwrap(), path);
        assert_eq!(folder.all(), [(path.clone(), slower)]);
        folder.leave(&path, Ending::Keep);
        folder.join(&order()).unwrap();
        folder.leave(&path, Ending::Forget);
        assert!(!path.exists());
    }

    #[test]
    fn the_last_command_stops_what_goes_on_without_one() {
        let (_dir, folder) = folder();
        let stopping = CancellationToken::new();
        let path = folder.join(&order()).unwrap();
        let stop = folder.resume(&path, &stopping);
        folder.join(&order()).unwrap();
        folder.leave(&path, Ending::Forget);
        assert!(!stop.is_cancelled());
        folder.leave(&path, Ending::Forget);
        assert!(stop.is_cancelled() && !path.exists() && !stopping.is_cancelled());
        // Whoever orders the same before that one has ended keeps the file.
        folder.join(&order()).unwrap();
        folder.leave_resumed(&path, Ending::Forget);
        assert!(path.exists());
    }

    #[test]
    fn what_goes_on_without_a_command_forgets_its_order_when_it_is_done_and_keeps_it_else() {
        let (_dir, folder) = folder();
        let path = folder.join(&order()).unwrap();
        folder.leave(&path, Ending::Keep);
        for (ending, kept) in [(Ending::Keep, true), (Ending::Forget, false)] {
            folder.resume(&path, &CancellationToken::new());
            folder.leave_resumed(&path, ending);
            assert_eq!(path.exists(), kept);
        }
    }
}
