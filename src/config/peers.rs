//! The peers that this machine's user added, on disk.
//!
//! Knows `peers.toml`. Does not know whether anybody is there.
//! Invariant: the file is replaced as a whole or not at all.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, file};
use crate::limits;
use crate::names::{Host, PeerId};

/// A peer that the user added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPeer {
    pub host: Host,
    pub port: u16,
    /// Who answered there first; `None` until somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<PeerId>,
}

#[derive(Default, Serialize, Deserialize)]
struct PeersFile {
    #[serde(default)]
    peer: Vec<SavedPeer>,
}

/// The saved peers; none when there is no such file.
pub fn read_peers(path: &Path) -> Result<Vec<SavedPeer>, Error> {
    let file = file::read_toml::<PeersFile>(path)?.unwrap_or_default();
    if file.peer.len() > limits::SAVED_PEERS_MAX {
        let why = format!("there are more than {} peers", limits::SAVED_PEERS_MAX);
        return Err(Error::Corrupted { path: path.to_owned(), line: 1, why });
    }
    Ok(file.peer)
}

/// Replaces the saved peers, atomically and for the owner's eyes only.
pub fn write_peers(path: &Path, peers: &[SavedPeer]) -> Result<(), Error> {
    let text = toml::to_string(&PeersFile { peer: peers.to_vec() }).map_err(|error| Error::Corrupted {
        path: path.to_owned(),
        line: 1,
        why: error.to_string(),
    })?;
    file::write(path, &format!("# The peers that were added with `hffs peer add`, and who they are.\n\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_back_as_they_were_written_for_the_owners_eyes_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hffs").join("peers.toml");
        assert_eq!(read_peers(&path).unwrap(), []);
        let peers = [
            SavedPeer {
                host: "::1".parse().unwrap(),
                port: 9009,
                peer_id: Some("12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq".parse().unwrap()),
            },
            SavedPeer { host: "gpu-01".parse().unwrap(), port: 1, peer_id: None },
        ];
        write_peers(&path, &peers).unwrap();
        assert_eq!(read_peers(&path).unwrap(), peers);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        write_peers(&path, &[]).unwrap();
        assert_eq!(read_peers(&path).unwrap(), []);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.toml");
        for (text, wanted) in [
            ("[[peer]]\nhost = \"gpu\"\n", 1),
            ("[[peer]]\nhost = \"gpu\"\nport = 70000\n", 3),
            ("[[peer]]\nhost = \"../gpu\"\nport = 1\n", 2),
            ("[[peer]]\nhost = \"gpu\"\nport = 1\npeer_id = \"me\"\n", 4),
            ("[[peer]\n", 1),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_peers(&path).unwrap_err();
            assert!(matches!(error, Error::Corrupted { line, .. } if line == wanted), "{text:?}: {error:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
