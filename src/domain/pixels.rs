//! A picture in memory: 8-bit RGB, row by row, with no metadata.

use super::Size;
use zeroize::Zeroizing;

/// An 8-bit RGB picture, zeroed when it is dropped.
///
/// `rgb` holds `width * height * 3` bytes, rows from the top, pixels from the left. No alpha, no
/// colour profile, no metadata: what an input carried of those is applied or dropped at decoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    rgb: Zeroizing<Vec<u8>>,
}

impl Pixels {
    /// Wraps `rgb`, or gives `None` where its length is not `width * height * 3` or a side is zero.
    #[must_use]
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Option<Self> {
        let bytes = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        let rgb = Zeroizing::new(rgb);
        (bytes > 0 && rgb.len() == bytes).then_some(Self { width, height, rgb })
    }

    /// Width and height.
    #[must_use]
    pub fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }

    /// Width in pixels, at least 1.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `width * height * 3` of them.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

// The picture itself never reaches a log: sizes only.
impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pixels({}x{})", self.width, self.height)
    }
}
