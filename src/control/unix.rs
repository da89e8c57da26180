//! The local socket on Unix: a file in a directory of its user's own.
//!
//! Knows owners and modes of files. Does not know what the socket is for; `windows.rs` is its twin.
//! Invariant: nobody else can enter the socket's directory, and a stream's other end is our own user's.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use interprocess::local_socket::ListenerOptions;
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use interprocess::os::unix::local_socket::ListenerOptionsExt;

use super::{Error, Owner};
use crate::config::Home;

/// Prepares the place where a socket will be: its directory is ours alone, and what a dead daemon left
/// there is taken away.
pub(super) fn make_room(home: &Home) -> Result<(), Error> {
    let socket = home.control_socket();
    private_dir(&socket)?;
    match fs::remove_file(&socket) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Socket { path: socket, source }),
        _ => Ok(()),
    }
}

/// Lets nobody else use the socket.
pub(super) fn for_us_only(options: ListenerOptions<'_>) -> io::Result<ListenerOptions<'_>> {
    Ok(options.mode(0o600))
}

/// Whose process a command has reached.
pub(super) fn is_daemon(_: &Home, stream: &Stream) -> io::Result<Owner> {
    is_ours(stream)
}

/// Whose process is at the other end.
pub(super) fn is_ours(stream: &Stream) -> io::Result<Owner> {
    let theirs = stream.peer_creds()?.euid();
    Ok(if theirs == Some(own_uid()?) { Owner::Us } else { Owner::SomebodyElse })
}

/// Our own effective user id: what the other end of a socket pair of ours is told.
fn own_uid() -> io::Result<u32> {
    Ok(tokio::net::UnixStream::pair()?.0.peer_cred()?.uid())
}

/// Makes the socket's directory ours alone, or refuses one that somebody else put in its place.
fn private_dir(socket: &Path) -> Result<(), Error> {
    let Some(dir) = socket.parent() else { return Ok(()) };
    let failed = |source| Error::Socket { path: socket.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let meta = fs::symlink_metadata(dir).map_err(failed)?;
    if meta.is_dir() && meta.uid() == own_uid().map_err(failed)? && meta.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(Error::Foreign { path: dir.to_owned() })
    }
}
