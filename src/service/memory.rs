//! How many bytes of inputs may be in memory at once, and the uploads that they arrive in.
//!
//! Two budgets. Uploads and decoded pictures last as long as their job, so what does not fit is
//! refused at once, with the numbers: nobody who holds bytes waits for more of them. What decoding
//! takes besides lasts milliseconds, so decoders queue for it, the first one first.

use super::ServiceError;
use crate::domain::SecretBytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits count pieces of this many bytes: a semaphore has about 2^29 of them at least.
const PIECE: u64 = 4096;
/// An upload takes room in steps of this many bytes.
const STEP: u64 = 256 << 10;
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

fn pieces(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX)
}

impl InputMemory {
    /// `limit` bytes for inputs, and as many for decoding as the largest picture takes.
    pub(super) fn new(limit: u64, max_pixels: u64) -> Self {
        let scratch_limit = pieces(max_pixels.saturating_mul(DECODING)).max(1);
        Self {
            inputs: Arc::new(Semaphore::new(pieces(limit) as usize)),
            limit,
            scratch: Arc::new(Semaphore::new(scratch_limit as usize)),
            scratch_limit,
        }
    }

    /// Room for inputs, now or not at all.
    pub(super) fn take(&self, bytes: u64) -> Result<Hold, ServiceError> {
        let permit = Arc::clone(&self.inputs).try_acquire_many_owned(pieces(bytes));
        permit.map(|permit| Hold(Some(permit))).map_err(|_| ServiceError::InputMemory {
            needed: bytes,
            free: self.inputs.available_permits() as u64 * PIECE,
            limit: self.limit,
        })
    }

    /// Bytes that are taken.
    pub(super) fn used(&self) -> u64 {
        self.limit.saturating_sub(self.inputs.available_permits() as u64 * PIECE)
    }

    /// Room to decode that many pixels; waits for its turn.
    pub(super) async fn scratch(&self, pixels: u64) -> Hold {
        let wanted = pieces(pixels.saturating_mul(DECODING)).clamp(1, self.scratch_limit);
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
/// inputs while they are there.
#[derive(Debug)]
pub struct Upload {
    bytes: SecretBytes,
    memory: InputMemory,
    hold: Hold,
    room: u64,
}

impl Upload {
    pub(super) fn new(memory: InputMemory) -> Self {
        Self { bytes: SecretBytes::default(), memory, hold: Hold(None), room: 0 }
    }

    /// Adds what has come.
    ///
    /// # Errors
    /// [`ServiceError::InputMemory`] where there is no room for it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        let needed = (self.bytes.len() + bytes.len()) as u64;
        if needed > self.room {
            let more = (needed - self.room).next_multiple_of(STEP);
            self.hold.join(self.memory.take(more)?);
            self.room += more;
        }
        self.bytes.extend(bytes);
        Ok(())
    }
}

impl std::ops::Deref for Upload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
