//! The local socket itself: a file only its owner may use, or a named pipe on Windows.
//!
//! Knows paths, owners and rights. Does not know what is said over it.
//! Invariant: a stream from here ends at a process of our own user, where the system can tell.

use std::fs;
use std::io;
use std::path::Path;

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::{Listener as _, Stream as _};
use interprocess::local_socket::{GenericFilePath, ListenerOptions, Name, ToFsName};

use super::Error;
use crate::config::Home;

/// Connects to the daemon of a work directory.
pub(super) async fn connect(home: &Home) -> Result<Stream, Error> {
    let path = home.control_socket();
    let failed = |source| Error::Socket { path: path.clone(), source };
    let name = name_of(&path).map_err(failed)?;
    let stream = match Stream::connect(name).await {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                    Error::NoDaemon { home: home.root().to_owned() }
                }
                io::ErrorKind::PermissionDenied => Error::Foreign { path },
                _ => failed(error),
            });
        }
    };
    if is_ours(&stream).map_err(failed)? == Owner::Us { Ok(stream) } else { Err(Error::Foreign { path }) }
}

/// Listens at a path where nobody else does; what a dead daemon left there is taken away.
pub(super) fn listen(path: &Path) -> Result<Listener, Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    private_dir(path)?;
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) if cfg!(windows) => {}
        Err(error) => return Err(failed(error)),
    }
    let options = ListenerOptions::new().name(name_of(path).map_err(failed)?);
    #[cfg(unix)]
    let options = interprocess::os::unix::local_socket::ListenerOptionsExt::mode(options, 0o600);
    options.create_tokio().map_err(failed)
}

/// The next connection of our own user; others are hung up on.
pub(super) async fn accept(listener: &Listener) -> io::Result<Stream> {
    loop {
        let stream = listener.accept().await?;
        match is_ours(&stream) {
            Ok(Owner::Us) => return Ok(stream),
            Ok(Owner::SomebodyElse) => tracing::warn!("another user tried the control socket"),
            Err(error) => tracing::debug!(%error, "a command went away before it was known whose it is"),
        }
    }
}

fn name_of(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>()
}

#[derive(PartialEq, Eq)]
enum Owner {
    Us,
    SomebodyElse,
}

#[cfg(unix)]
fn is_ours(stream: &Stream) -> io::Result<Owner> {
    use interprocess::local_socket::traits::StreamCommon;
    let theirs = stream.peer_creds()?.euid();
    Ok(if theirs == Some(own_uid()?) { Owner::Us } else { Owner::SomebodyElse })
}

/// On Windows the pipe's default security descriptor keeps other users from writing to it.
#[cfg(windows)]
fn is_ours(_: &Stream) -> io::Result<Owner> {
    Ok(Owner::Us)
}

/// Our own effective user id: what the other end of a socket pair of ours is told.
#[cfg(unix)]
fn own_uid() -> io::Result<u32> {
    Ok(tokio::net::UnixStream::pair()?.0.peer_cred()?.uid())
}

/// Makes the socket's directory ours alone, or refuses one that somebody else put in its place.
#[cfg(unix)]
fn private_dir(socket: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
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

#[cfg(windows)]
fn private_dir(_: &Path) -> Result<(), Error> {
    Ok(())
}
