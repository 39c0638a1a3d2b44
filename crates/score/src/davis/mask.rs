//! The mask of one object.

/// The pixels of one object in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMask {
    width: usize,
    height: usize,
    pixels: Vec<bool>,
}

impl ObjectMask {
    /// A mask of these pixels, row by row; none unless there are `width * height`.
    #[must_use]
    pub fn new(width: usize, height: usize, pixels: Vec<bool>) -> Option<Self> {
        (width.checked_mul(height) == Some(pixels.len())).then_some(Self { width, height, pixels })
    }

    /// Pixels per row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }
}
