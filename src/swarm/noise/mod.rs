//! Encrypted connections: libp2p's noise handshake, and which cipher follows it.
//!
//! Knows the handshake that proves who the peer is. Does not know what is said afterwards.
//! Invariant: a session exists only after the peer has signed the key that encrypts it, with the key that
//! its id is made of. All cryptography is `snow`'s, ring's and dalek's; here are only the messages around it.
//!
//! libp2p's own upgrade is spoken to the letter: `/noise`, `Noise_XX_25519_ChaChaPoly_SHA256`
//! (<https://github.com/libp2p/specs/blob/master/noise/README.md>). It is done here because libp2p's offers no
//! other cipher, and copies each byte several times on its way.
//!
//! Where both processors have instructions for AES, peers agree on AES-256-GCM in place of ChaCha20: the same
//! handshake and the same proof. ChaCha20 at both ends is a good part of what a whole verified transfer costs, and AES
//! takes far less. Which of the two it is, somebody between the peers may decide; both are sound.

mod exchange;
mod session;

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::{Keypair, PublicKey};
use prost::Message;
use snow::HandshakeState;

pub(super) use session::Session;

use crate::limits;

/// What is signed begins with this, so that the signature is good for nothing else.
const DOMAIN: &[u8] = b"noise-libp2p-static-key:";

/// The cipher of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// libp2p's, which every peer speaks.
    ChaCha,
    /// Ours, between peers that have AES in hardware.
    Aes,
}

impl Suite {
    /// What this machine is good at, the best first.
    fn of_this_machine() -> &'static [Suite] {
        if has_aes() { &[Suite::Aes, Suite::ChaCha] } else { &[Suite::ChaCha] }
    }

    fn pattern(self) -> &'static str {
        match self {
            Suite::ChaCha => "Noise_XX_25519_ChaChaPoly_SHA256",
            Suite::Aes => "Noise_XX_25519_AESGCM_SHA256",
        }
    }
}

/// The name under which a suite is agreed on.
impl AsRef<str> for Suite {
    fn as_ref(&self) -> &str {
        match self {
            Suite::ChaCha => "/noise",
            Suite::Aes => "/hffs/noise-aes/1",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// Who a side says that it is, in libp2p's form.
#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    identity: Vec<u8>,
    /// The identity's signature of `DOMAIN` and the key of this handshake.
    #[prost(bytes = "vec", tag = "2")]
    signature: Vec<u8>,
}

/// The upgrade of a connection.
#[derive(Clone)]
pub(super) struct Noise {
    /// The key of all this process's handshakes; it is new in each process.
    secret: Arc<[u8]>,
    payload: Arc<[u8]>,
    suites: &'static [Suite],
}

impl Noise {
    pub(super) fn new(identity: &Keypair) -> io::Result<Self> {
        let keys = builder(Suite::ChaCha)?.generate_keypair().map_err(broken)?;
        let signature = identity.sign(&[DOMAIN, &keys.public].concat()).map_err(io::Error::other)?;
        let payload = Payload { identity: identity.public().encode_protobuf(), signature };
        Ok(Self {
            secret: keys.private.into(),
            payload: payload.encode_to_vec().into(),
            suites: Suite::of_this_machine(),
        })
    }

    /// Speaks first.
    async fn call<T>(self, mut io: T, suite: Suite) -> io::Result<(PeerId, Session<T>)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let state = builder(suite)?.local_private_key(&self.secret).map_err(broken)?;
        let mut state = state.build_initiator().map_err(broken)?;
        send(&mut io, &mut state, &[]).await?;
        let theirs = receive(&mut io, &mut state).await?;
        send(&mut io, &mut state, &self.payload).await?;
        let peer = prove(&state, &theirs)?;
        Ok((peer, Session::new(io, state.into_transport_mode().map_err(broken)?, suite)))
    }

    /// Answers.
    async fn answer<T>(self, mut io: T, suite: Suite) -> io::Result<(PeerId, Session<T>)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let state = builder(suite)?.local_private_key(&self.secret).map_err(broken)?;
        let mut state = state.build_responder().map_err(broken)?;
        // Whatever came before there is a key could have been said by anybody.
        if !receive(&mut io, &mut state).await?.is_empty() {
            return Err(broken("a handshake began with more than its key"));
        }
        send(&mut io, &mut state, &self.payload).await?;
        let theirs = receive(&mut io, &mut state).await?;
        let peer = prove(&state, &theirs)?;
        Ok((peer, Session::new(io, state.into_transport_mode().map_err(broken)?, suite)))
    }
}

impl UpgradeInfo for Noise {
    type Info = Suite;
    type InfoIter = std::iter::Copied<std::slice::Iter<'static, Suite>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.suites.iter().copied()
    }
}

type Future<T> = Pin<Box<dyn std::future::Future<Output = io::Result<(PeerId, Session<T>)>> + Send>>;

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<T> for Noise {
    type Output = (PeerId, Session<T>);
    type Error = io::Error;
    type Future = Future<T>;

    fn upgrade_inbound(self, io: T, suite: Suite) -> Self::Future {
        Box::pin(self.answer(io, suite))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<T> for Noise {
    type Output = (PeerId, Session<T>);
    type Error = io::Error;
    type Future = Future<T>;

    fn upgrade_outbound(self, io: T, suite: Suite) -> Self::Future {
        Box::pin(self.call(io, suite))
    }
}

fn builder<'a>(suite: Suite) -> io::Result<snow::Builder<'a>> {
    Ok(snow::Builder::with_resolver(suite.pattern().parse().map_err(broken)?, exchange::resolver()))
}

/// The peer that has proven to own the other end of this handshake.
fn prove(state: &HandshakeState, payload: &[u8]) -> io::Result<PeerId> {
    let Payload { identity, signature } = Payload::decode(payload).map_err(broken)?;
    let identity = PublicKey::try_decode_protobuf(&identity).map_err(broken)?;
    let key = state.get_remote_static().ok_or_else(|| broken("a handshake without a key"))?;
    if !identity.verify(&[DOMAIN, key].concat(), &signature) {
        return Err(broken("the key of a handshake is not signed by who sent it"));
    }
    Ok(identity.to_peer_id())
}

async fn send(io: &mut (impl AsyncWrite + Unpin), state: &mut HandshakeState, payload: &[u8]) -> io::Result<()> {
    let mut message = vec![0; limits::HANDSHAKE_BYTES_MAX];
    let len = state.write_message(payload, &mut message).map_err(broken)?;
    io.write_all(&u16::try_from(len).map_err(broken)?.to_be_bytes()).await?;
    io.write_all(message.get(..len).unwrap_or_default()).await?;
    io.flush().await
}

async fn receive(io: &mut (impl AsyncRead + Unpin), state: &mut HandshakeState) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    io.read_exact(&mut len).await?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > limits::HANDSHAKE_BYTES_MAX {
        return Err(broken("a handshake of too many bytes"));
    }
    let mut message = vec![0; len];
    io.read_exact(&mut message).await?;
    let mut payload = vec![0; len];
    let len = state.read_message(&message, &mut payload).map_err(broken)?;
    payload.truncate(len);
    Ok(payload)
}

/// The peer, or somebody between us, does not keep to the protocol.
fn broken(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
