//! Bytes that are zeroed when they are dropped: what a person sent, before it is decoded.
//!
//! [`Pixels`](super::Pixels) and [`Prompt`](super::Prompt) zero themselves, too. What the network
//! library, the decoders and the device hold meanwhile is theirs and is not zeroed.

use zeroize::Zeroize;

/// Bytes of a request. They have no `Display`, and their `Debug` shows a length only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// None yet, with room for `capacity` of them.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Adds bytes. A vector that grows by itself leaves its old bytes behind; this one zeroes them.
    pub fn extend(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Vec::with_capacity(needed.max(2 * self.0.capacity()));
            larger.extend_from_slice(&self.0);
            // The old ones are zeroed as they are dropped.
            drop(Self(std::mem::replace(&mut self.0, larger)));
        }
        self.0.extend_from_slice(bytes);
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        // Not the room behind them, which was never written: to touch that takes longer than all else.
        self.0.as_mut_slice().zeroize();
    }
}

impl std::ops::Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.len())
    }
}
