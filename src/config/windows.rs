//! What Windows knows of proxies: the user's Internet settings, which VPN clients change as they come
//! and go.
//!
//! Knows their place in the registry. Does not know what they mean; `unix.rs` is its twin.
//! Invariant: only this user's settings are read, and nothing is written.

use windows_registry::CURRENT_USER;

use super::system_proxy::Said;

const PLACE: &str = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings";

/// What the system's own settings say about proxies; `None` when they are switched off.
pub(super) fn proxy_settings() -> Option<Said> {
    let settings = CURRENT_USER.open(PLACE).ok()?;
    if settings.get_u32("ProxyEnable").ok()? == 0 {
        return None;
    }
    Some(Said {
        server: settings.get_string("ProxyServer").ok()?,
        except: settings.get_string("ProxyOverride").unwrap_or_default(),
    })
}
