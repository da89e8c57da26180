//! The local socket on Windows: a named pipe that only its owner may open.
//!
//! Knows access lists of pipes. Does not know what the pipe is for; `unix.rs` is its twin.
//! Invariant: the pipe refuses every other user, over the network too, and a command speaks to no pipe
//! that another user made under its name.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};

use interprocess::local_socket::ListenerOptions;
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon;
use interprocess::os::windows::local_socket::ListenerOptionsExt;
use interprocess::os::windows::security_descriptor::SecurityDescriptor;
use widestring::u16cstr;

use super::{Error, Owner};
use crate::config::Home;
use crate::disk;

/// Prepares the place where a pipe will be. A pipe goes with the last process that has it open, so there
/// never is anything to take away; but anybody may make one of any name, so commands are told which
/// process is the daemon, in a file that only its user can write.
pub(super) fn make_room(home: &Home) -> Result<(), Error> {
    let path = home.pid_file();
    let write = || {
        let mut file = disk::private_temp(&home.own())?;
        file.write_all(std::process::id().to_string().as_bytes())?;
        disk::settle(file, &path)
    };
    write().map_err(|source| Error::Socket { path: path.clone(), source })
}

/// Whose process a command has reached. A request carries the user's token, so it goes only to the
/// process that said that it is the daemon, and only while the daemon's lock shows that it lives: a
/// dead one's number could be anybody's by now.
pub(super) fn is_daemon(home: &Home, stream: &Stream) -> io::Result<Owner> {
    let is_locked = matches!(File::open(home.lock_file())?.try_lock_shared(), Err(TryLockError::WouldBlock));
    let daemon = fs::read_to_string(home.pid_file())?.parse().ok();
    let reached = stream.peer_creds()?.pid();
    Ok(if is_locked && reached.is_some() && reached == daemon { Owner::Us } else { Owner::SomebodyElse })
}

/// Lets nobody else use the pipe. What Windows gives a pipe by itself lets everybody read from it.
///
/// A list that is protected from inheritance, with everything for whoever owns the pipe, who is the
/// user of the process that made it (`OWNER RIGHTS`, S-1-3-4), and nothing for anybody else
/// (<https://learn.microsoft.com/windows/win32/secauthz/security-descriptor-string-format>).
pub(super) fn for_us_only(options: ListenerOptions<'_>) -> io::Result<ListenerOptions<'_>> {
    let owner_only = SecurityDescriptor::deserialize(u16cstr!("D:P(A;;GA;;;S-1-3-4)"))?;
    Ok(options.security_descriptor(owner_only))
}

/// Whose process is at the other end: nobody else's gets past the pipe's access list.
pub(super) fn is_ours(_: &Stream) -> io::Result<Owner> {
    Ok(Owner::Us)
}
