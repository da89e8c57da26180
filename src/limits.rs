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

/// Ranges in flight with one source for one file: enough to hide a round trip and a slow disk; each
/// further one only queues.
pub const RANGES_PER_SOURCE: usize = 4;
/// The longest range asked of a peer. Larger ones save nothing more (reference measurements: 16 MiB
/// is the cheapest), and a taker holds one upload slot for no longer.
pub const PEER_RANGE_BYTES: u64 = 16 * MIB;
/// The longest range asked of an endpoint: fewer requests on a slow line with long round trips.
pub const ENDPOINT_RANGE_BYTES: u64 = 64 * MIB;
/// What is asked of a source that has not been measured.
pub const FIRST_RANGE_BYTES: u64 = 4 * MIB;
/// How long one range should take: long enough to be worth a request, short enough to deal anew.
pub const RANGE_TIME: Duration = Duration::from_secs(4);
/// The planner looks at clocks and rates this often.
pub const PLAN_TICK: Duration = Duration::from_millis(200);
/// A peer on a LAN that sends nothing for this long is stuck, frozen or gone.
pub const PEER_STALL: Duration = Duration::from_secs(3);
/// A WAN line may pause for longer; `hf` itself waits this long for a byte.
pub const ENDPOINT_STALL: Duration = Duration::from_secs(10);
/// A range without a byte for this long may be fetched from an idle source as well.
pub const HEDGE_AFTER: Duration = Duration::from_millis(1_000);
/// Peers that hold everything are measured for this long before the WAN is asked to help.
pub const LAN_HEAD_START: Duration = Duration::from_millis(1_000);
/// Peers that together give this many bytes a second are "full LAN speed": the WAN is left alone.
pub const LAN_FULL_BYTES_PER_SEC: f64 = 40.0e6;
/// The WAN is also left alone when the peers give this many times what it gives.
pub const LAN_OVER_WAN: f64 = 8.0;
/// Waiting time after a source's first failure; it doubles up to `SOURCE_BACKOFF_MAX`.
pub const SOURCE_BACKOFF: Duration = Duration::from_millis(500);
pub const SOURCE_BACKOFF_MAX: Duration = Duration::from_secs(30);

// ---- wire and swarm ----------------------------------------------------------------------------

// ---- hub ---------------------------------------------------------------------------------------

// ---- config and control ------------------------------------------------------------------------

// ---- cache and partial -------------------------------------------------------------------------

// ---- fetch and share ---------------------------------------------------------------------------

/// How long `daemon stop` may take before the process is ended anyway.
pub const SHUTDOWN: Duration = Duration::from_secs(4);
