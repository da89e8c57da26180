//! Configuration: the work directory, the settings in it, and what the environment says.
//!
//! Knows variables, `config.toml` and the rules by which one wins over the other. Does not know who
//! uses what it decides.
//! Invariant: defaults stand here and nowhere else, and a token is never printed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The environment variables that hffs reads, as one process saw them. An empty one counts as unset.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    vars: BTreeMap<String, String>,
}

impl Environment {
    /// The value of a variable, when it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// A user's Hub token. It goes to the endpoint that the user named as the Hub, and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A token as it stood in a variable or a file; blanks around it are dropped, and nothing is no token.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The secret itself. Only the `hub` room may ask.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What an endpoint is to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The Hub that the user named, or huggingface.co: the only one that is sent the token.
    Hub,
    /// Anything else that serves the Hub's API.
    Mirror,
}

/// A Hub or mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The base URL, `http` or `https`, without a slash at its end.
    pub url: String,
    pub role: Role,
}

/// The proxies for Hub and mirrors, as `HTTP_PROXY` and its kin name them. Never used for peers.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proxies {
    pub http: Option<String>,
    pub https: Option<String>,
    pub all: Option<String>,
    pub no: Option<String>,
}

impl fmt::Debug for Proxies {
    /// A proxy's URL may carry a password, so only which of them are set is told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |proxy: &Option<String>| if proxy.is_some() { "set" } else { "unset" };
        write!(f, "Proxies(http {}, https {}, all {})", set(&self.http), set(&self.https), set(&self.all))
    }
}

/// How one request reaches the Hub: what the command's own environment says, else the daemon's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// In the order in which they are asked.
    pub endpoints: Vec<Endpoint>,
    pub token: Option<Token>,
    /// No Hub and no mirror: peers and the cache only.
    pub offline: bool,
    pub proxies: Proxies,
}
