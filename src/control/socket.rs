//! The local socket itself: a file only its owner may use, or a named pipe on Windows.
//!
//! Knows paths, owners and rights; what each kind of system has of these stands in `unix.rs` and
//! `windows.rs`. Does not know what is said over it.
//! Invariant: a stream from here ends at a process of our own user, where the system can tell.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod system;

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
    if system::is_daemon(home, &stream).map_err(failed)? == Owner::Us {
        Ok(stream)
    } else {
        Err(Error::Foreign { path })
    }
}

/// Listens where nobody else does, as the daemon of a work directory that this process has locked; what
/// a dead daemon left there is taken away.
pub(super) fn listen(home: &Home) -> Result<Listener, Error> {
    let path = home.control_socket();
    let failed = |source| Error::Socket { path: path.clone(), source };
    system::make_room(home)?;
    let options = ListenerOptions::new().name(name_of(&path).map_err(failed)?);
    system::for_us_only(options).and_then(ListenerOptions::create_tokio).map_err(failed)
}

/// The next connection of our own user; others are hung up on.
pub(super) async fn accept(listener: &Listener) -> io::Result<Stream> {
    loop {
        let stream = listener.accept().await?;
        match system::is_ours(&stream) {
            Ok(Owner::Us) => return Ok(stream),
            Ok(Owner::SomebodyElse) => tracing::warn!("another user tried the control socket"),
            Err(error) => tracing::debug!(%error, "a command went away before it was known whose it is"),
        }
    }
}

fn name_of(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>()
}

/// Whose process is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Us,
    SomebodyElse,
}
