//! The key that makes this daemon one and the same peer across restarts.
//!
//! Knows the key and its file. Does not know where the file lies.
//! Invariant: the file is complete or absent, and readable by its owner only. A damaged one is never
//! replaced silently, because every peer that paired with it would then see a changed identity.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use libp2p::identity::Keypair;

use super::Error;
use crate::disk;
use crate::names::PeerId;

/// Bytes of a key file that are read at most; an ed25519 key takes 68.
const KEY_BYTES_MAX: u64 = 4_096;

/// An ed25519 key pair.
#[derive(Clone)]
pub struct Identity {
    key: Keypair,
    peer_id: PeerId,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id)
    }
}

impl Identity {
    /// A new identity that is not written anywhere.
    pub fn generate() -> Self {
        // Every ed25519 key has a peer id of our form, so the first one will do.
        loop {
            if let Some(identity) = Self::of(Keypair::generate_ed25519()) {
                return identity;
            }
        }
    }

    fn of(key: Keypair) -> Option<Self> {
        let peer_id = super::address::named(&key.public().to_peer_id())?;
        Some(Self { key, peer_id })
    }

    /// Reads the identity in the file, or makes one and writes it there.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::IdentityFile { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate();
                identity.write(path).map_err(failed)?;
                // Another process may have been first; what lies in the file now is the identity.
                Self::read(path, File::open(path).map_err(failed)?)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The peer id that others see.
    pub fn peer_id(&self) -> &PeerId {
        &self.peer_id
    }

    pub(super) fn keypair(&self) -> &Keypair {
        &self.key
    }

    fn read(path: &Path, file: File) -> Result<Self, Error> {
        let failed = |source| Error::IdentityFile { path: path.to_owned(), source };
        if disk::is_open_to_others(&file).map_err(failed)? {
            return Err(Error::IdentityOpen { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        file.take(KEY_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let corrupt = || Error::IdentityCorrupt { path: path.to_owned() };
        Keypair::from_protobuf_encoding(&bytes).ok().and_then(Self::of).ok_or_else(corrupt)
    }

    /// Writes beside the path first, then links the finished file to its name, which fails if another
    /// process did the same a moment earlier; then its identity counts.
    fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = self.key.to_protobuf_encoding().map_err(io::Error::other)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let written = disk::owner_only(OpenOptions::new().write(true).create_new(true))
            .open(&fresh)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| match fs::hard_link(&fresh, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Ok(()) => Ok(()),
                // Not every file system has links.
                Err(_) => fs::rename(&fresh, path),
            });
        let _ = fs::remove_file(&fresh);
        written?;
        disk::sync_folder(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/identity.key");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), second.peer_id());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_damaged_identity_is_an_error_that_names_the_file_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let whole = Identity::generate().key.to_protobuf_encoding().unwrap();
        for damage in [&b""[..], b"hello", &whole[..20]] {
            let _ = fs::remove_file(&path);
            disk::owner_only(OpenOptions::new().write(true).create_new(true))
                .open(&path)
                .unwrap()
                .write_all(damage)
                .unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(matches!(&error, Error::IdentityCorrupt { path: named } if *named == path), "{error:?}");
            assert!(error.hint().is_some());
            assert_eq!(fs::read(&path).unwrap(), damage);
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_identity_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        Identity::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(Error::IdentityOpen { .. })));
    }

    #[test]
    fn the_debug_form_holds_no_secret() {
        let identity = Identity::generate();
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.peer_id()));
    }
}
