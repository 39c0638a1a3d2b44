//! How finely the components of a frame are sampled, and how many blocks that makes.

/// The samplings that are decoded: of luminance, as against color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// No color at all.
    Gray,
    /// As finely: 4:4:4.
    Full,
    /// Twice as finely in a row: 4:2:2.
    HalfWidth,
    /// Twice as finely in a column: 4:4:0.
    HalfHeight,
    /// Both: 4:2:0.
    Quarter,
}

impl Sampling {
    /// By the horizontal and vertical sampling factor of luminance, where those of color are 1.
    pub(crate) fn of_luma(factors: (usize, usize)) -> Option<Self> {
        match factors {
            (1, 1) => Some(Self::Full),
            (2, 1) => Some(Self::HalfWidth),
            (1, 2) => Some(Self::HalfHeight),
            (2, 2) => Some(Self::Quarter),
            _ => None,
        }
    }

    /// Blocks of luminance in an MCU, from left to right.
    pub(crate) fn across(self) -> usize {
        1 + usize::from(matches!(self, Self::HalfWidth | Self::Quarter))
    }

    /// Blocks of luminance in an MCU, from top to bottom.
    pub(crate) fn down(self) -> usize {
        1 + usize::from(matches!(self, Self::HalfHeight | Self::Quarter))
    }

    /// Values of a decoded pixel, and components of the file.
    pub(crate) fn channels(self) -> usize {
        if self == Self::Gray { 1 } else { 3 }
    }
}
