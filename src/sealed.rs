//! A sealed file: whole, verified, on disk, and without its final name yet.
//!
//! Knows where the file lies and what it is. Does not know how it was put together, nor where it
//! will go: it is the word that `partial` says and `cache` hears.
//! Invariant: as a `Verified<SealedFile>` it comes only from a seal, and nobody writes to it again.

use std::any::Any;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::piece::PieceList;
use crate::tree::Content;

/// A file that is complete and waits to be published.
#[derive(Debug, Clone)]
pub struct SealedFile {
    /// Where it lies now; publishing renames it away from there.
    pub path: PathBuf,
    /// The open file whose bytes were hashed.
    pub file: Arc<File>,
    pub content: Content,
    /// The BLAKE3 of each of its pieces.
    pub pieces: PieceList,
    /// What lies beside it only for its making, and goes once it is published.
    pub scraps: Vec<PathBuf>,
    /// Kept until the file is published or given up, so that nobody else claims it meanwhile.
    pub claim: Arc<dyn Any + Send + Sync>,
}
