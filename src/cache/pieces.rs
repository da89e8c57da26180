//! Piece lists on disk: one file a digest, in the `pieces` folder of what is ours.
//!
//! Knows its own format. Does not know whether a list is right: it is what was computed when the file
//! was sealed or verified here.
//! Invariant: a list that was cut off or written over is removed, and never half believed.
//!
//! The format is one line of text, `hffs-pieces 1 <digest> <size> <blake3 of the rest>`, and then the
//! hashes, 32 bytes each.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use tracing::warn;

use super::{Cache, Error};
use crate::digest::PieceHasher;
use crate::disk;
use crate::limits;
use crate::piece::{Cut, PieceList};
use crate::tree::Content;

/// The header with the longest digest and size has 170 bytes.
const HEADER_BYTES_MAX: u64 = 256;

impl Cache {
    /// The piece list of a file that was sealed or verified here. Files of one piece have none: their
    /// digest says as much.
    pub fn piece_list(&self, content: &Content) -> Option<PieceList> {
        let path = self.piece_list_path(content);
        let mut bytes = Vec::new();
        let bound = HEADER_BYTES_MAX + u64::from(limits::PIECES_MAX) * 32;
        File::open(&path).ok()?.take(bound).read_to_end(&mut bytes).ok()?;
        match parse(&bytes) {
            Some((of, list)) => (of == *content).then_some(list),
            None => {
                warn!(path = %path.display(), "removing a piece list that is damaged");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps the piece list of a file.
    pub fn save_piece_list(&self, content: &Content, list: &PieceList) -> Result<(), Error> {
        if list.hashes().len() <= 1 {
            return Ok(());
        }
        let path = self.piece_list_path(content);
        let body = list.to_bytes();
        let write = || -> io::Result<()> {
            let folder = self.0.own.join("pieces");
            fs::create_dir_all(&folder)?;
            let mut temp = disk::private_temp(&folder)?;
            temp.write_all(header(content, &body).as_bytes())?;
            temp.write_all(&body)?;
            // The checksum finds what a power cut leaves of it, so it needs no fsync.
            disk::settle(temp, &path)
        };
        write().map_err(|error| Error::at("write", &path, error))
    }

    fn piece_list_path(&self, content: &Content) -> PathBuf {
        self.0.own.join("pieces").join(content.digest.to_string())
    }
}

fn header(content: &Content, body: &[u8]) -> String {
    let mut hasher = PieceHasher::new();
    hasher.update(body);
    format!("hffs-pieces 1 {} {} {}\n", content.digest, content.size, hasher.finish())
}

fn parse(bytes: &[u8]) -> Option<(Content, PieceList)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')? + 1;
    let (head, body) = bytes.split_at_checked(end)?;
    let mut words = std::str::from_utf8(head).ok()?.split(' ').skip(2);
    let content = Content { digest: words.next()?.parse().ok()?, size: words.next()?.parse().ok()? };
    if content.size > limits::FILE_BYTES_MAX || head != header(&content, body).as_bytes() {
        return None;
    }
    Some((content, PieceList::from_bytes(body, Cut::new(content.size))?))
}
