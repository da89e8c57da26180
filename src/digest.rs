//! Digests: the identity of a blob, and the proof that bytes have it.
//!
//! Knows the two digests that the Hub uses as etags, and the BLAKE3 that hffs keeps of each piece.
//! Does not know files, pieces' places or who sent the bytes.
//! Invariant: a `Verified` exists only where the whole content was hashed and matched.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Why a digest's text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("etag `{0}` is neither a sha256 nor a git blob id")]
pub struct BadDigest(String);

/// What a blob is: the Hub's etag, normalised.
///
/// LFS and Xet files have the sha256 of their content. Small files have their git blob id, which is
/// `sha1("blob " + length + "\0" + content)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Digest {
    Sha256([u8; 32]),
    GitSha1([u8; 20]),
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Digest::Sha256(bytes) => write_hex(f, bytes),
            Digest::GitSha1(bytes) => write_hex(f, bytes),
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        read_hex(text)
            .map(Digest::Sha256)
            .or_else(|| read_hex(text).map(Digest::GitSha1))
            .ok_or_else(|| BadDigest(crate::names::clean(text, 80)))
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// The BLAKE3 of one piece. It proves nothing about the file; it says which bytes a piece had.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PieceHash(pub [u8; 32]);

impl fmt::Display for PieceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for PieceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for PieceHash {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        read_hex(text).map(PieceHash).ok_or_else(|| BadDigest(crate::names::clean(text, 80)))
    }
}

impl TryFrom<String> for PieceHash {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<PieceHash> for String {
    fn from(hash: PieceHash) -> String {
        hash.to_string()
    }
}

/// Hashes one piece as its bytes pass.
#[derive(Clone, Default)]
pub struct PieceHasher(blake3::Hasher);

impl PieceHasher {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The piece's hash; the hasher is ready for the next piece afterwards.
    pub fn finish(&mut self) -> PieceHash {
        let hash = PieceHash(*self.0.finalize().as_bytes());
        self.0.reset();
        hash
    }
}

/// A thing whose content was hashed as a whole and matched the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    digest: Digest,
    thing: T,
}

impl<T> Verified<T> {
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn get(&self) -> &T {
        &self.thing
    }

    pub fn into_inner(self) -> T {
        self.thing
    }

    /// Carries the proof over to what the content has become, say an open file that is synced.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Verified<U> {
        Verified { digest: self.digest, thing: change(self.thing) }
    }
}

/// The content has another digest than it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("content has digest `{found}`, not `{wanted}`")]
pub struct Mismatch {
    pub wanted: Digest,
    pub found: Digest,
}

/// Hashes a whole file, in order, towards the digest that it should have.
#[derive(Clone)]
pub struct Hasher {
    wanted: Digest,
    state: State,
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    GitSha1(sha1::Sha1),
}

impl Hasher {
    /// Starts a hash of `size` bytes; git's digest covers the length before the first byte.
    pub fn new(wanted: Digest, size: u64) -> Self {
        let state = match wanted {
            Digest::Sha256(_) => State::Sha256(sha2::Sha256::new()),
            Digest::GitSha1(_) => {
                let mut sha1 = sha1::Sha1::new();
                sha1.update(format!("blob {size}\0").as_bytes());
                State::GitSha1(sha1)
            }
        };
        Self { wanted, state }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(hash) => hash.update(bytes),
            State::GitSha1(hash) => hash.update(bytes),
        }
    }

    /// Ends the hash and attests `thing`, or says what the content really is.
    pub fn verify<T>(self, thing: T) -> Result<Verified<T>, Mismatch> {
        let found = match self.state {
            State::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            State::GitSha1(hash) => Digest::GitSha1(hash.finalize().into()),
        };
        if found == self.wanted {
            Ok(Verified { digest: found, thing })
        } else {
            Err(Mismatch { wanted: self.wanted, found })
        }
    }
}

/// The git blob id of the LFS pointer file that stands in the repo for a large file
/// (git-lfs specification, version 1), and the pointer's length in bytes.
pub fn lfs_pointer(sha256: &[u8; 32], size: u64) -> (Digest, u64) {
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {size}\n", Digest::Sha256(*sha256));
    let mut sha1 = sha1::Sha1::new();
    sha1.update(format!("blob {}\0{pointer}", pointer.len()).as_bytes());
    (Digest::GitSha1(sha1.finalize().into()), pointer.len() as u64)
}

/// A short name for a long text, the same on every run: the first 16 hexadecimal digits of its BLAKE3.
pub fn short_name(text: &[u8]) -> String {
    let mut name = blake3::hash(text).to_hex().to_string();
    name.truncate(16);
    name
}

/// A number made of a text, the same on every machine, as likely to be any `u64` as another.
pub fn spread(text: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(text).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_agree_with_git_and_sha256sum() {
        // `printf hello | git hash-object --stdin` and `printf hello | sha256sum`.
        let git: Digest = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".parse().unwrap();
        let sha: Digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse().unwrap();
        for digest in [git, sha] {
            let mut hasher = Hasher::new(digest, 5);
            hasher.update(b"hel");
            hasher.update(b"lo");
            assert_eq!(hasher.verify("it").unwrap().digest(), digest);
            let mut wrong = Hasher::new(digest, 5);
            wrong.update(b"hellO");
            assert!(wrong.verify("it").is_err());
        }
    }

    #[test]
    fn only_plain_lowercase_hex_is_a_digest() {
        for bad in ["", "abc", "../../etc", &"A".repeat(64), &"g".repeat(40), &"a".repeat(41), "W/\"abc\""] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken");
        }
    }
}
