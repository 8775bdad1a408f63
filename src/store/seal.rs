//! The seam to encryption: everything that is not in the clear goes through a [`Sealer`].

use super::Kind;
use crate::domain::{ObjectId, OwnerId};
use std::fmt::Debug;

/// A seal could not be made or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes are not what was sealed, or not for this owner, object and kind.
    #[error("its seal does not open")]
    Broken,
}

/// Seals bytes to the owner, the object and the kind that they belong to.
///
/// The store hands it every record and every content, and writes nothing of them but what it
/// returns. What a seal is bound to is not stored in it: rows and files that were swapped must not
/// open.
pub trait Sealer: Debug + Send + Sync {
    /// Its name in the privacy report.
    fn name(&self) -> &'static str;

    /// Seals `bytes`.
    ///
    /// # Errors
    /// There is no key for them.
    fn seal(
        &self,
        owner: OwnerId,
        object: ObjectId,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<Vec<u8>, SealError>;

    /// Opens what [`Sealer::seal`] gave for the same owner, object and kind.
    ///
    /// # Errors
    /// The bytes were changed, or belong elsewhere.
    fn open(
        &self,
        owner: OwnerId,
        object: ObjectId,
        kind: Kind,
        sealed: Vec<u8>,
    ) -> Result<Vec<u8>, SealError>;
}

/// No seal: bytes are stored as they are. Who can read the disk can read the pictures, and the
/// privacy report says so by this sealer's name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Sealer for Plain {
    fn name(&self) -> &'static str {
        "plain (not encrypted)"
    }

    fn seal(&self, _: OwnerId, _: ObjectId, _: Kind, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(bytes.to_vec())
    }

    fn open(
        &self,
        _: OwnerId,
        _: ObjectId,
        _: Kind,
        sealed: Vec<u8>,
    ) -> Result<Vec<u8>, SealError> {
        Ok(sealed)
    }
}
