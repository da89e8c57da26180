//! hffs turns the machines of a lab into one cache of Hugging Face models: a file that any machine
//! has is on every machine at LAN speed, a file that nobody has crosses the WAN once, an interrupted
//! download goes on where it stopped, and no wrong byte is ever handed to the user.
//!
//! This page is the map. The library is not a stable interface: it exists so that tests can reach in.
//!
//! # The life of a file
//!
//! [`cli`] asks the [`daemon`] → [`hub`] turns repo, revision and path into a commit, a digest and a
//! size (unless a paired peer has just heard it from there; with no Hub: a paired peer's word, or the
//! cache's own ref) → [`swarm`] asks the peers who
//! holds that digest → [`plan`] deals pieces to sources → [`partial`] writes pieces at their place,
//! remembers them durably, and seals → [`cache`] publishes blob, snapshot link and ref → [`share`]
//! answers for it.
//!
//! # Rooms
//!
//! A room imports only rooms of layers above its own. A third-party crate named in the last column is
//! named in that room only. `tests/tidy.rs` reads `src/` and holds the code to this table.
//!
//! | layer | room | is | door to |
//! | --- | --- | --- | --- |
//! | words | [`limits`] | every bound in the program, each with its reason | |
//! | | [`names`] | the only place that accepts a name from outside | |
//! | | [`digest`] | what a blob is, and the proof that bytes have it | sha2, sha1, blake3 |
//! | | [`piece`] | piece arithmetic, sets, piece lists | |
//! | | [`tree`] | what a commit holds, path by path | |
//! | | [`sealed`] | a whole, verified file on its way from `partial` to `cache` | |
//! | | [`pace`] | how fast bytes may flow, and the wait for it | |
//! | | [`disk`] | the few things that files need and the standard library lacks | fs4, rustix, winapi-util |
//! | rules | [`plan`] | which piece from which source next | |
//! | | [`trust`] | what we know of each peer | |
//! | | [`wire`] | peer messages ⇄ bytes | cbor4ii |
//! | | [`config`] | work directory, settings, environment | directories, toml, toml_edit, windows-registry |
//! | doors | [`hub`] | the Hub and its mirrors; the only room that sees the token | reqwest, rustls |
//! | | [`swarm`] | the network of peers | libp2p, yamux, snow, x25519_dalek, prost, socket2 |
//! | | [`control`] | command line ⇄ daemon | interprocess, widestring |
//! | state | [`cache`] | the Hugging Face cache on disk, and what hffs itself put there | |
//! | | [`partial`] | an unfinished file: claim, write, resume, seal | |
//! | verbs | [`fetch`] | bring files here | |
//! | | [`share`] | say what we hold, and serve it | |
//! | process | [`daemon`] | the composition root | |
//! | face | [`cli`] | the command tree, tables, progress | clap, indicatif, comfy-table, filedescriptor |
//!
//! What only one kind of system has stands in a file named `unix.rs` or `windows.rs` below the room that
//! needs it, and its twin offers the same: the rooms themselves are the same everywhere.
//!
//! # What is never so
//!
//! - Peers speak digests, never paths.
//! - Nothing unverified has a final name.
//! - The token never enters [`swarm`] or [`wire`].
//! - Rules never read a clock.
//! - No queue is without a bound.
//! - With no peers at all, hffs does what `hf download` does.

pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod digest;
pub mod disk;
pub mod fetch;
pub mod hub;
pub mod limits;
pub mod names;
pub mod pace;
pub mod partial;
pub mod piece;
pub mod plan;
pub mod sealed;
pub mod share;
pub mod swarm;
pub mod tree;
pub mod trust;
pub mod wire;
