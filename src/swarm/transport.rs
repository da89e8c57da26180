//! How connections are made: TCP, encrypted with noise, shared by yamux.
//!
//! Knows libp2p's transports. Does not know what runs over a connection.
//! Invariant: a connection that is not complete within `CONNECT` is dropped.

use std::io;

use libp2p::PeerId;
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;

use super::muxer::Yamux;
use super::noise::Noise;
use super::system;
use crate::limits;

/// The transport of all connections. Fails only when the key cannot be used for noise.
pub(super) fn build(key: &Keypair) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let noise = Noise::new(key)?;
    let tcp = libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::default());
    let transport = tcp
        .map(|stream, _| system::short_queue(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(Yamux)
        .timeout(limits::CONNECT)
        .boxed();
    Ok(transport)
}
