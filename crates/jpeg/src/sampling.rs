//! The resolution at which the components of a frame are sampled, and the number of blocks that
//! results.

/// The samplings of the usual files: the resolution of luminance compared with that of color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// No color.
    Gray,
    /// The same resolution: 4:4:4.
    Full,
    /// Twice the horizontal resolution: 4:2:2.
    HalfWidth,
    /// Twice the vertical resolution: 4:4:0.
    HalfHeight,
    /// Twice both resolutions: 4:2:0.
    Quarter,
}

impl Sampling {
    /// Returns the sampling for the horizontal and vertical sampling factors of luminance, if those
    /// of color are 1.
    pub(crate) fn of_luma(factors: (usize, usize)) -> Option<Self> {
        match factors {
            (1, 1) => Some(Self::Full),
            (2, 1) => Some(Self::HalfWidth),
            (1, 2) => Some(Self::HalfHeight),
            (2, 2) => Some(Self::Quarter),
            _ => None,
        }
    }

    /// Returns the number of blocks of luminance in an MCU, from left to right.
    pub(crate) fn across(self) -> usize {
        1 + usize::from(matches!(self, Self::HalfWidth | Self::Quarter))
    }

    /// Returns the number of blocks of luminance in an MCU, from top to bottom.
    pub(crate) fn down(self) -> usize {
        1 + usize::from(matches!(self, Self::HalfHeight | Self::Quarter))
    }

    /// Returns the number of values of a decoded pixel, which is the number of components of the
    /// file.
    pub(crate) fn channels(self) -> usize {
        if self == Self::Gray { 1 } else { 3 }
    }
}
