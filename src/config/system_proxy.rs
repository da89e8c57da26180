//! The proxy that the system itself has been given, for whoever has not said otherwise in a variable.
//!
//! Knows how Windows writes its proxies down and what that is in the words of `HTTP_PROXY` and
//! `NO_PROXY`. Does not know where the system keeps it, or who is asked through it.
//! Invariant: what cannot be understood names no proxy.
//!
//! It is asked for again with each request, because a VPN that is switched on sets it at that moment,
//! and takes it back when it goes.

use super::{Proxies, system};

/// The system's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// `host:port`, or `scheme=host:port` for each scheme, with `;` between them.
    pub(super) server: String,
    /// Hosts that are reached without, `*` standing for anything, with `;` between them.
    pub(super) except: String,
}

/// The proxies that the system is set to use at this moment; none where it has no such setting.
pub fn system_proxies() -> Proxies {
    system::proxy_settings().map(|said| understand(&said)).unwrap_or_default()
}

fn understand(said: &Said) -> Proxies {
    let mut proxies = Proxies::default();
    let mut socks = None;
    for part in said.server.split([';', ' ']).map(str::trim) {
        let (scheme, at) = part.split_once('=').map_or(("", part), |(scheme, at)| (scheme.trim(), at.trim()));
        match scheme.to_ascii_lowercase().as_str() {
            "" => {
                proxies.http = proxies.http.or(address("http", at));
                proxies.https = proxies.https.or(address("http", at));
            }
            "http" => proxies.http = address("http", at),
            "https" => proxies.https = address("http", at),
            // Windows means version 4 by it. 4a lets the proxy look names up, which is what it is for
            // where they are answered wrongly at home.
            "socks" => socks = address("socks4a", at),
            _ => {}
        }
    }
    proxies.http = proxies.http.or_else(|| socks.clone());
    proxies.https = proxies.https.or(socks);
    proxies.no = Some(exceptions(&said.except));
    proxies
}

/// A proxy's URL. An address without a port is none: Windows would not use it either.
fn address(scheme: &str, at: &str) -> Option<String> {
    let (scheme, host) = at.split_once("://").unwrap_or((scheme, at));
    let host = host.trim_end_matches('/');
    let (name, port) = host.rsplit_once(':')?;
    let fine = !name.is_empty() && !host.chars().any(|c| c.is_whitespace() || c.is_control() || "/@?#".contains(c));
    (fine && port.parse::<u16>().is_ok_and(|port| port != 0)).then(|| format!("{scheme}://{host}"))
}

/// The exceptions as `NO_PROXY` has them. This machine itself is one unless that was taken back.
///
/// `<local>`, every name without a dot, cannot be said there, and no Hub has such a name.
fn exceptions(list: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let parts = || list.split([';', ',', ' ']).map(str::trim).filter(|part| !part.is_empty());
    if !parts().any(|part| part.eq_ignore_ascii_case("<-loopback>")) {
        out.extend(["localhost", "127.0.0.0/8", "::1"].map(str::to_owned));
    }
    for part in parts().filter(|part| !part.starts_with('<')) {
        let host = part.split_once("://").map_or(part, |(_, host)| host);
        match host.split_once('*') {
            None => out.push(host.to_owned()),
            Some(("", "")) => out.push("*".to_owned()),
            Some(("", ending)) if ending.starts_with('.') && !ending.contains('*') => out.push(ending.to_owned()),
            Some((start, rest)) if rest.chars().all(|c| matches!(c, '.' | '*')) => out.extend(network(start)),
            // Stars in other places cannot be said either.
            Some(_) => {}
        }
    }
    out.join(",")
}

/// The network whose addresses begin so: `192.168.` is `192.168.0.0/16`.
fn network(start: &str) -> Option<String> {
    let octets: Option<Vec<u8>> = start.strip_suffix('.')?.split('.').map(|octet| octet.parse::<u8>().ok()).collect();
    let octets = octets.filter(|octets| octets.len() < 4)?;
    let whole: Vec<String> = octets.iter().chain([0; 4].iter()).take(4).map(u8::to_string).collect();
    Some(format!("{}/{}", whole.join("."), octets.len() * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(server: &str, except: &str) -> Proxies {
        understand(&Said { server: server.into(), except: except.into() })
    }

    #[test]
    fn the_servers_of_windows_are_read_as_windows_reads_them() {
        let [vpn, other, socks] = ["http://127.0.0.1:7890", "http://proxy.corp:80", "socks4a://127.0.0.1:1080"];
        for (server, http, https) in [
            ("127.0.0.1:7890", Some(vpn), Some(vpn)),
            ("http://127.0.0.1:7890/", Some(vpn), Some(vpn)),
            ("http=127.0.0.1:7890;https=proxy.corp:80;ftp=x:1", Some(vpn), Some(other)),
            ("https=proxy.corp:80 ", None, Some(other)),
            ("socks=127.0.0.1:1080", Some(socks), Some(socks)),
            ("http=127.0.0.1:7890;socks=127.0.0.1:1080", Some(vpn), Some(socks)),
            ("HTTPS=http://proxy.corp:80", None, Some(other)),
            ("", None, None),
            ("nonsense", None, None),
            ("host:port", None, None),
            ("u:p@host:1", None, None),
            (":80", None, None),
        ] {
            let proxies = said(server, "");
            assert_eq!((proxies.http.as_deref(), proxies.https.as_deref()), (http, https), "{server}");
            assert_eq!(proxies.all, None);
        }
    }

    #[test]
    fn the_exceptions_of_windows_are_those_of_the_variable() {
        let own = "localhost,127.0.0.0/8,::1";
        for (except, no) in [
            ("", own.to_owned()),
            ("<local>", own.to_owned()),
            ("<-loopback>", String::new()),
            ("<-loopback>;*", "*".to_owned()),
            ("*.corp;hub.lab;10.*;192.168.*.*;<local>", format!("{own},.corp,hub.lab,10.0.0.0/8,192.168.0.0/16")),
            ("https://hub.lab, 172.16.*", format!("{own},hub.lab,172.16.0.0/16")),
            ("a*b;300.*;1.2.3.4.*", own.to_owned()),
        ] {
            assert_eq!(said("x:1", except).no, Some(no), "{except}");
        }
    }
}
