//! The work directory: which one is in force, and where everything in it lies.
//!
//! Knows the rule that chooses it and the names below it. Does not know what is in the files.
//! Invariant: no other room makes up a path below the work directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Environment, Error, file};
use crate::digest::short_name;
use crate::disk;
use crate::limits;

/// Who chose the work directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `HFFS_HOME`.
    Env,
    /// `hffs conf cache set`.
    Conf,
    /// Nobody: it is where `huggingface_hub` keeps its cache.
    Default,
}

/// The work directory in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    hub_cache: PathBuf,
    origin: Origin,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    home: PathBuf,
}

impl Home {
    /// The work directory in force: `HFFS_HOME`, else the stored one, else `huggingface_hub`'s own.
    ///
    /// A chosen one must be there: it may lie on a disk that is not mounted, and a new directory in
    /// its place would fill the wrong disk. The default one is made when it is first written to.
    pub fn find(environment: &Environment) -> Result<Self, Error> {
        match environment.path("HFFS_HOME")? {
            Some(root) => Self::at(root, Origin::Env, environment),
            None => Self::find_without_env(environment),
        }
    }

    /// The work directory that would be in force without `HFFS_HOME`.
    pub fn find_without_env(environment: &Environment) -> Result<Self, Error> {
        match Self::stored(environment)? {
            Some(root) => Self::at(root, Origin::Conf, environment),
            None => Self::at(default_root(environment)?, Origin::Default, environment),
        }
    }

    fn at(root: PathBuf, origin: Origin, environment: &Environment) -> Result<Self, Error> {
        match fs::metadata(&root) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(Error::NotADirectory { path: root, origin }),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory || is_below_a_file(&root) => {
                return Err(Error::NotADirectory { path: root, origin });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if origin != Origin::Default {
                    return Err(Error::Missing { path: root, origin });
                }
            }
            Err(source) => return Err(Error::Read { path: root, source }),
        }
        let moved = match origin {
            Origin::Default => match environment.path("HF_HUB_CACHE")? {
                Some(path) => Some(path),
                None => environment.path("HUGGINGFACE_HUB_CACHE")?,
            },
            Origin::Env | Origin::Conf => None,
        };
        let hub_cache = moved.unwrap_or_else(|| root.join("hub"));
        Ok(Self { root, hub_cache, origin })
    }

    /// Makes the work directory ready to be written to, or says why it cannot be.
    pub fn prepare(&self) -> Result<(), Error> {
        let own = self.own();
        let failed = |source| Error::NotWritable { path: self.root.clone(), source };
        fs::create_dir_all(&own).map_err(failed)?;
        // The identity key and the names of private repos are in there.
        disk::close_folder(&own).map_err(failed)?;
        fs::create_dir_all(&self.hub_cache)
            .map_err(|source| Error::NotWritable { path: self.hub_cache.clone(), source })?;
        // Rights on paper are not enough: file systems are mounted read-only, full, or over quota.
        let mut probe = disk::private_temp(&own).map_err(failed)?;
        probe.write_all(&[0; 1]).map_err(failed)
    }

    /// The work directory itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The Hugging Face cache: `hub/` in the work directory, unless `HF_HUB_CACHE` moved it.
    pub fn hub_cache(&self) -> &Path {
        &self.hub_cache
    }

    /// Who chose the work directory.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The directory of everything that is ours and not Hugging Face's.
    pub fn own(&self) -> PathBuf {
        self.root.join("hffs")
    }

    /// The settings that the user writes.
    pub fn config_toml(&self) -> PathBuf {
        self.own().join("config.toml")
    }

    /// The daemon's secret key, which is its identity.
    pub fn identity_key(&self) -> PathBuf {
        self.own().join("identity.key")
    }

    /// The peers that the user added.
    pub fn peers_toml(&self) -> PathBuf {
        self.own().join("peers.toml")
    }

    /// The directory of the adds that go on at the next start.
    pub fn unfinished(&self) -> PathBuf {
        self.own().join("unfinished")
    }

    /// The daemon's log; older parts stand beside it with a number.
    pub fn log_file(&self) -> PathBuf {
        self.own().join("hffs.log")
    }

    /// The file that the running daemon holds a lock on.
    pub fn lock_file(&self) -> PathBuf {
        self.own().join("daemon.lock")
    }

    /// The file that says which process the running daemon is, where the socket cannot tell whose it is.
    pub fn pid_file(&self) -> PathBuf {
        self.own().join("daemon.pid")
    }

    /// Every file and folder that hffs makes beside the models; some may not be there.
    pub fn state_files(&self) -> Vec<PathBuf> {
        let own = self.own();
        let older_logs = (1..limits::LOG_FILES).map(|number| own.join(format!("hffs.log.{number}")));
        let ours = [
            own.join("ledger.jsonl"),
            own.join("pieces"),
            self.config_toml(),
            self.identity_key(),
            self.peers_toml(),
            self.unfinished(),
            self.log_file(),
            self.lock_file(),
            self.pid_file(),
        ];
        // It may lie elsewhere, and a pipe is no file.
        let socket = (!cfg!(windows)).then(|| self.control_socket());
        ours.into_iter().chain(socket).chain(older_logs).chain(self.scraps()).collect()
    }

    /// Temporary names in our own directory whose makers died before they gave them the final one.
    fn scraps(&self) -> Vec<PathBuf> {
        let is_scrap = |name: &str| {
            let key = name.strip_prefix("identity.").and_then(|rest| rest.strip_suffix(".new"));
            name.starts_with(".tmp") || key.is_some_and(|pid| pid.parse::<u32>().is_ok())
        };
        let entries = fs::read_dir(self.own()).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_scrap)).map(|entry| entry.path()).collect()
    }

    /// Where the daemon listens for commands.
    ///
    /// A socket's path is at most about 100 bytes long (`sun_path` in unix(7)), so a long work directory
    /// gets its socket in a directory of its own in `/tmp`. That is not `TMPDIR`, which cluster jobs
    /// and log-ins set differently: the daemon and every later command must come to the same place.
    /// The name is made from the canonical path, so all ways to write one directory are one daemon.
    pub fn control_socket(&self) -> PathBuf {
        let canonical = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let name = short_name(canonical.as_os_str().as_encoded_bytes());
        if cfg!(windows) {
            return PathBuf::from(format!(r"\\.\pipe\hffs-{name}"));
        }
        let inside = canonical.join("hffs").join("control.sock");
        if inside.as_os_str().len() <= limits::SOCKET_PATH_BYTES_MAX {
            return inside;
        }
        Path::new("/tmp").join(format!("hffs-{name}")).join("control.sock")
    }

    /// The file that `conf cache set` writes, which may not be there.
    pub fn stored_file(environment: &Environment) -> Option<PathBuf> {
        environment.config_dir().map(|dir| dir.join("home.toml"))
    }

    /// The work directory that `conf cache set` stored.
    pub fn stored(environment: &Environment) -> Result<Option<PathBuf>, Error> {
        let Some(path) = Self::stored_file(environment) else { return Ok(None) };
        Ok(file::read_toml::<Stored>(&path)?.map(|stored| stored.home))
    }

    /// Stores a work directory, which must exist, for all later commands; returns its absolute path.
    pub fn store(environment: &Environment, path: &Path) -> Result<PathBuf, Error> {
        let origin = Origin::Conf;
        let home = std::path::absolute(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        match fs::metadata(&home) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(Error::NotADirectory { path: home, origin }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing { path: home, origin }),
            Err(source) => return Err(Error::Read { path: home, source }),
        }
        let text = toml::to_string(&Stored { home: home.clone() }).map_err(|_| Error::Corrupted {
            path: home.clone(),
            line: 1,
            why: "the path is no valid Unicode".into(),
        })?;
        file::write(&Self::stored_file(environment).ok_or(Error::NoHome)?, &text)?;
        Ok(home)
    }

    /// Forgets the stored work directory; says which file went, when there was one.
    pub fn forget_stored(environment: &Environment) -> Result<Option<PathBuf>, Error> {
        let Some(path) = Self::stored_file(environment) else { return Ok(None) };
        match fs::remove_file(&path) {
            Ok(()) => {
                // Where it is ours alone it is empty, and goes too.
                let _ = path.parent().map(fs::remove_dir);
                Ok(Some(path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Write { path, source }),
        }
    }
}

/// Whether a path goes on where a file stands. Not every system tells that from a path that leads nowhere.
fn is_below_a_file(path: &Path) -> bool {
    let nearest = path.ancestors().skip(1).find_map(|above| fs::metadata(above).ok());
    nearest.is_some_and(|meta| !meta.is_dir())
}

/// Where `huggingface_hub` keeps everything (`constants.py`, `HF_HOME`).
pub(super) fn default_root(environment: &Environment) -> Result<PathBuf, Error> {
    if let Some(root) = environment.path("HF_HOME")? {
        return Ok(root);
    }
    if let Some(cache) = environment.path("XDG_CACHE_HOME")? {
        return Ok(cache.join("huggingface"));
    }
    let home = environment.home_dir().ok_or(Error::NoHome)?;
    Ok(home.join(".cache").join("huggingface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user's directory with everything in it that the tests' variables name.
    struct User(tempfile::TempDir);

    impl User {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["work", "stored", "hf"] {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            fs::write(dir.path().join("file"), "").unwrap();
            Self(dir)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// `~` and `$HOME` are the user's directory.
        fn environment(&self, vars: &[(&str, &str)]) -> Environment {
            let home = self.0.path().to_str().unwrap();
            Environment::from_vars([("HOME", home)].iter().chain(vars).copied())
        }
    }

    #[test]
    fn the_work_directory_is_chosen_by_the_variable_then_the_stored_one_then_huggingface_hubs_place() {
        let user = User::new();
        for (vars, stored, root, hub, origin) in [
            (&[][..], None, ".cache/huggingface", ".cache/huggingface/hub", Origin::Default),
            (&[("HF_HOME", "~/hf")], None, "hf", "hf/hub", Origin::Default),
            (&[("XDG_CACHE_HOME", "$HOME/x")], None, "x/huggingface", "x/huggingface/hub", Origin::Default),
            (&[("HF_HUB_CACHE", "~/c")], None, ".cache/huggingface", "c", Origin::Default),
            (&[("HF_HOME", "~/hf"), ("HUGGINGFACE_HUB_CACHE", "~/d")], None, "hf", "d", Origin::Default),
            (
                &[("HF_HUB_CACHE", "~/c"), ("HUGGINGFACE_HUB_CACHE", "~/d")],
                None,
                ".cache/huggingface",
                "c",
                Origin::Default,
            ),
            (&[("HF_HOME", "~/hf")], Some("stored"), "stored", "stored/hub", Origin::Conf),
            (&[("HF_HUB_CACHE", "~/c")], Some("stored"), "stored", "stored/hub", Origin::Conf),
            (
                &[("HFFS_HOME", "${HOME}/work"), ("HF_HUB_CACHE", "~/c")],
                Some("stored"),
                "work",
                "work/hub",
                Origin::Env,
            ),
        ] {
            let environment = user.environment(vars);
            match stored {
                Some(name) => Home::store(&environment, &user.path(name)).map(drop).unwrap(),
                None => Home::forget_stored(&environment).map(drop).unwrap(),
            }
            let home = Home::find(&environment).unwrap();
            assert_eq!(home.root(), user.path(root), "{vars:?}");
            assert_eq!(home.hub_cache(), user.path(hub), "{vars:?}");
            assert_eq!(home.origin(), origin, "{vars:?}");
        }
    }

    #[test]
    fn a_chosen_work_directory_that_is_not_there_is_an_error_and_is_not_made() {
        let user = User::new();
        let find = |path: &str| Home::find(&user.environment(&[("HFFS_HOME", path)]));
        assert!(matches!(find("~/missing"), Err(Error::Missing { .. })));
        assert!(matches!(find("~/file"), Err(Error::NotADirectory { .. })));
        assert!(matches!(find("~/file/below"), Err(Error::NotADirectory { .. })));
        assert!(!user.path("missing").exists());
        let store = |path: &str| Home::store(&user.environment(&[]), &user.path(path));
        assert!(matches!(store("missing"), Err(Error::Missing { .. })));
        assert!(matches!(store("file"), Err(Error::NotADirectory { .. })));
        assert_eq!(Home::stored(&user.environment(&[])).unwrap(), None);
        assert!(matches!(Home::find(&Environment::default()), Err(Error::NoHome)));
    }

    #[test]
    fn a_damaged_note_of_the_stored_directory_names_its_file_and_line() {
        let user = User::new();
        let environment = user.environment(&[]);
        Home::store(&environment, &user.path("stored")).unwrap();
        let file = Home::stored_file(&environment).unwrap();
        fs::write(&file, "# a note\nhome = \n").unwrap();
        let error = Home::find(&environment).unwrap_err();
        assert!(matches!(&error, Error::Corrupted { path, line: 2, .. } if *path == file), "{error:?}");
        // The variable is the way out.
        assert!(Home::find(&user.environment(&[("HFFS_HOME", "~/work")])).is_ok());
    }

    #[test]
    fn a_forgotten_directory_leaves_nothing_behind() {
        let user = User::new();
        let environment = user.environment(&[]);
        Home::store(&environment, &user.path("stored")).unwrap();
        assert!(Home::forget_stored(&environment).unwrap().is_some());
        assert!(Home::forget_stored(&environment).unwrap().is_none());
        assert!(!user.path(".config/hffs").exists());
    }

    #[test]
    fn preparing_makes_our_directory_private_and_finds_out_what_cannot_be_written() {
        let user = User::new();
        let home = Home::find(&user.environment(&[("HF_HOME", "~/new")])).unwrap();
        home.prepare().unwrap();
        assert!(home.hub_cache().is_dir());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(home.own()).unwrap().permissions().mode() & 0o777, 0o700);
        }
        let home = Home::find(&user.environment(&[("HFFS_HOME", "~/work")])).unwrap();
        fs::write(home.own(), "in the way").unwrap();
        assert!(matches!(home.prepare(), Err(Error::NotWritable { .. })));
    }

    #[test]
    fn state_is_what_hffs_made_and_nothing_that_a_user_keeps_beside_it() {
        let user = User::new();
        let home = Home::find(&user.environment(&[("HFFS_HOME", "~/work")])).unwrap();
        home.prepare().unwrap();
        let own = home.own();
        for (name, ours) in [
            (".tmpAb3xY9", true),
            ("identity.4711.new", true),
            ("identity.old.new", false),
            ("notes.txt", false),
            ("config.toml", true),
            ("hffs.log.1", true),
        ] {
            fs::write(own.join(name), "").unwrap();
            assert_eq!(home.state_files().contains(&own.join(name)), ours, "{name}");
        }
        assert!(cfg!(windows) || home.state_files().contains(&home.control_socket()));
    }

    #[cfg(unix)]
    #[test]
    fn one_directory_has_one_socket_however_it_is_written_and_however_long_it_is() {
        let user = User::new();
        let deep = user.path(&format!("{}/{}", "a".repeat(80), "b".repeat(80)));
        fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink(&deep, user.path("short")).unwrap();
        let socket = |path: &Path| {
            Home::find(&user.environment(&[("HFFS_HOME", path.to_str().unwrap())])).unwrap().control_socket()
        };
        assert_eq!(socket(&user.path("work")), fs::canonicalize(user.path("work")).unwrap().join("hffs/control.sock"));
        let far = socket(&deep);
        assert_eq!(far, socket(&user.path("short")));
        assert!(far.starts_with("/tmp") && far.as_os_str().len() <= limits::SOCKET_PATH_BYTES_MAX);
        assert_ne!(far, socket(deep.parent().unwrap()));
    }
}
