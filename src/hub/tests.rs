//! The room as a whole against small real servers, one for each trap.

mod bytes;
mod names;
mod server;
mod token;

use std::time::Duration;

use server::{Reply, Server};

use super::*;
use crate::config::{Proxies, Role, Token};
use crate::names::RepoType;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SECRET: &str = "hf_canary";
const PUBLIC: &str = r#"{"sha":"0123456789abcdef0123456789abcdef01234567","private":false,"gated":false}"#;

/// Waits long enough for a busy machine, where no test is about silence.
fn hub() -> Hub {
    Hub::with_patience(Patience {
        connect: Duration::from_secs(10),
        answer: Duration::from_secs(10),
        stall: Duration::from_secs(10),
    })
}

/// Gives up soon, for tests that are about silence.
fn impatient() -> Hub {
    let soon = Duration::from_millis(700);
    Hub::with_patience(Patience { connect: soon, answer: soon, stall: soon })
}

fn access(endpoints: &[Endpoint]) -> Access {
    Access { endpoints: endpoints.to_vec(), token: Token::new(SECRET), offline: false, proxies: Proxies::default() }
}

fn without_token(endpoints: &[Endpoint]) -> Access {
    Access { token: None, ..access(endpoints) }
}

fn repo() -> Repo {
    Repo { kind: RepoType::Model, id: "acme/tiny".parse().unwrap() }
}

fn commit() -> Commit {
    COMMIT.parse().unwrap()
}

/// An endpoint where nobody listens.
async fn nobody(role: Role) -> Endpoint {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Endpoint { url: format!("http://{}", listener.local_addr().unwrap()), role }
}

fn says_no(status: u16, code: &str) -> Reply {
    Reply::new(status).header("x-error-code", code).json(r#"{"error":"no"}"#)
}
