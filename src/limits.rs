//! Every bound in the program, each with its reason.
//!
//! Knows numbers. Does not know who uses them.
//! Invariant: no other room holds a bare limit, so this page tells what the program can be made to do.

use std::time::Duration;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

// ---- names -------------------------------------------------------------------------------------

/// The Hub's own limit for a repo id.
pub const REPO_ID_BYTES_MAX: usize = 96;
/// A ref becomes a file name below `refs/`; git hosts refuse longer ones.
pub const REVISION_BYTES_MAX: usize = 200;
/// Leaves room below Linux's 4,096-byte paths for the cache folder in front.
pub const PATH_BYTES_MAX: usize = 1_024;
/// What file systems take for one path part.
pub const PATH_PART_BYTES_MAX: usize = 255;
/// A base58 ed25519 peer id has 52 characters; an RSA one 46.
pub const PEER_ID_BYTES_MAX: usize = 64;

// ---- trees and pieces --------------------------------------------------------------------------

/// The largest public repos have some tens of thousands of files.
pub const TREE_ENTRIES_MAX: usize = 200_000;
/// Four times the largest file that the Hub takes (500 GB); keeps arithmetic far from overflow.
pub const FILE_BYTES_MAX: u64 = 1 << 41;
/// A piece lost to a cut line costs a second at 1 MB/s.
pub const PIECE_BYTES_MIN: u64 = MIB;
/// A full piece list is then 2 MiB, and a piece set 8 KiB.
pub const PIECES_MAX: u32 = 65_536;

// ---- plan --------------------------------------------------------------------------------------

// ---- wire and swarm ----------------------------------------------------------------------------

// ---- hub ---------------------------------------------------------------------------------------

// ---- config and control ------------------------------------------------------------------------

// ---- cache and partial -------------------------------------------------------------------------

// ---- fetch and share ---------------------------------------------------------------------------

/// How long `daemon stop` may take before the process is ended anyway.
pub const SHUTDOWN: Duration = Duration::from_secs(4);
