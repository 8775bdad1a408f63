//! A number of bytes as a person reads it.

use std::fmt;

/// Shows bytes in the largest unit that fits: `33.8 GiB`, `512.0 KiB`, `17 bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(scale, _)| bytes >= *scale) {
            Some((scale, unit)) => write!(f, "{:.1} {unit}", bytes as f64 / scale as f64),
            None => write!(f, "{bytes} bytes"),
        }
    }
}
