//! How many bytes of inputs may be in memory at once, and the uploads that they arrive in.
//!
//! Two budgets. Uploads and decoded pictures last as long as their job, so what does not fit is
//! refused at once, with the numbers: nobody who holds bytes waits for more of them. What decoding
//! takes besides lasts milliseconds, so decoders queue for it, the first one first.

use super::ServiceError;
use crate::domain::SecretBytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits count units of this many bytes: a semaphore has about 2^29 of them at least.
const UNIT: u64 = 4096;
/// Bytes of a piece of an upload.
const STEP: usize = 256 << 10;
/// Bytes that decoding a pixel takes at most; see [`imaging::Limits`](crate::imaging::Limits).
const DECODING: u64 = 14;

/// The budgets, shared by all requests.
#[derive(Clone, Debug)]
pub(super) struct InputMemory {
    inputs: Arc<Semaphore>,
    limit: u64,
    scratch: Arc<Semaphore>,
    scratch_limit: u32,
}

/// Bytes of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Hold(Option<OwnedSemaphorePermit>);

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl InputMemory {
    /// `limit` bytes for inputs, and as many for decoding as the largest picture takes.
    pub(super) fn new(limit: u64, max_pixels: u64) -> Self {
        let scratch_limit = units(max_pixels.saturating_mul(DECODING)).max(1);
        Self {
            inputs: Arc::new(Semaphore::new(units(limit) as usize)),
            limit,
            scratch: Arc::new(Semaphore::new(scratch_limit as usize)),
            scratch_limit,
        }
    }

    /// Room for inputs, now or not at all.
    pub(super) fn take(&self, bytes: u64) -> Result<Hold, ServiceError> {
        let permit = Arc::clone(&self.inputs).try_acquire_many_owned(units(bytes));
        permit.map(|permit| Hold(Some(permit))).map_err(|_| ServiceError::InputMemory {
            needed: bytes,
            free: self.inputs.available_permits() as u64 * UNIT,
            limit: self.limit,
        })
    }

    /// Bytes that are taken.
    pub(super) fn used(&self) -> u64 {
        self.limit.saturating_sub(self.inputs.available_permits() as u64 * UNIT)
    }

    /// Room to decode that many pixels; waits for its turn.
    pub(super) async fn scratch(&self, pixels: u64) -> Hold {
        let wanted = units(pixels.saturating_mul(DECODING)).clamp(1, self.scratch_limit);
        // Never closed; and a decoder without a permit would only be one too many.
        Hold(Arc::clone(&self.scratch).acquire_many_owned(wanted).await.ok())
    }
}

impl Hold {
    fn join(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(mine), Some(more)) => mine.merge(more),
            (mine, more) => *mine = mine.take().or(more),
        }
    }
}

/// Bytes that are being received: zeroed when they are dropped, and counted against the memory for
/// inputs while they are there. They lie in pieces, so that none is moved while more come.
#[derive(Debug)]
pub struct Upload {
    pieces: Vec<SecretBytes>,
    memory: InputMemory,
    hold: Hold,
}

/// An upload that is complete, in one piece.
#[derive(Debug)]
pub struct Received {
    bytes: SecretBytes,
    _hold: Hold,
}

impl Upload {
    pub(super) fn new(memory: InputMemory) -> Self {
        Self { pieces: Vec::new(), memory, hold: Hold(None) }
    }

    /// Adds what has come.
    ///
    /// # Errors
    /// [`ServiceError::InputMemory`] where there is no room for it.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), ServiceError> {
        while !bytes.is_empty() {
            let free = self.pieces.last().map_or(0, |piece| STEP - piece.len());
            if free == 0 {
                self.hold.join(self.memory.take(STEP as u64)?);
                self.pieces.push(SecretBytes::with_capacity(STEP));
                continue;
            }
            let (now, later) = bytes.split_at(free.min(bytes.len()));
            if let Some(piece) = self.pieces.last_mut() {
                piece.extend(now);
            }
            bytes = later;
        }
        Ok(())
    }

    /// Puts it together, which takes a while for a large one: not on a thread that others wait for.
    #[must_use]
    pub fn join(self) -> Received {
        let Self { mut pieces, hold, .. } = self;
        let bytes = match (pieces.pop(), pieces.len()) {
            (None, _) => SecretBytes::default(),
            (Some(only), 0) => only,
            (Some(last), full) => {
                let mut bytes = SecretBytes::with_capacity(full * STEP + last.len());
                // Each is gone as soon as it is copied.
                pieces.into_iter().chain([last]).for_each(|piece| bytes.extend(&piece));
                bytes
            }
        };
        Received { bytes, _hold: hold }
    }
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
