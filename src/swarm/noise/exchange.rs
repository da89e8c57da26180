//! The key exchange, in the form in which snow wants it.
//!
//! Knows X25519, from the crate that libp2p takes it from as well: ring does not give out the secret keys that
//! noise has to hold for more than one exchange. Does not know the handshake.
//! Invariant: an exchange whose outcome does not depend on our secret fails.

use snow::params::DHChoice;
use snow::params::{CipherChoice, HashChoice};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, FallbackResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

const KEY_BYTES: usize = 32;

/// All of noise's cryptography: ring, and X25519.
pub(super) fn resolver() -> BoxedCryptoResolver {
    Box::new(FallbackResolver::new(Box::new(RingResolver), Box::new(OnlyExchange)))
}

struct OnlyExchange;

impl CryptoResolver for OnlyExchange {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        None
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| Box::new(X25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        None
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        None
    }
}

#[derive(Default)]
struct X25519 {
    secret: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, secret: &[u8]) {
        // Ours all have this length; of another one comes a key that no handshake succeeds with.
        self.secret = secret.try_into().unwrap_or_default();
        self.public = x25519(self.secret, X25519_BASEPOINT_BYTES);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = [0; KEY_BYTES];
        random.try_fill_bytes(&mut secret)?;
        self.set(&secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, public: &[u8], shared: &mut [u8]) -> Result<(), snow::Error> {
        let public = public.first_chunk().ok_or(snow::Error::Dh)?;
        let outcome = x25519(self.secret, *public);
        // A public key of low order makes the same of every secret.
        if outcome == [0; KEY_BYTES] {
            return Err(snow::Error::Dh);
        }
        shared.get_mut(..KEY_BYTES).ok_or(snow::Error::Dh)?.copy_from_slice(&outcome);
        Ok(())
    }
}
