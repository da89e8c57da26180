//! What Unix knows of proxies: nothing beyond the environment.
//!
//! Knows that. Does not know who asks; `windows.rs` is its twin.
//! Invariant: what is said here wins over no variable.

use super::system_proxy::Said;

/// What the system's own settings say about proxies.
pub(super) fn proxy_settings() -> Option<Said> {
    None
}
