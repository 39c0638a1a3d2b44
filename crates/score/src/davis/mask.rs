//! The mask of one object.

/// The pixels of one object in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMask {
    width: usize,
    height: usize,
    pixels: Vec<bool>,
}

impl ObjectMask {
    /// Creates a mask from `width * height` pixels in row-major order; returns `None` if their
    /// number differs.
    #[must_use]
    pub fn new(width: usize, height: usize, pixels: Vec<bool>) -> Option<Self> {
        (width.checked_mul(height) == Some(pixels.len())).then_some(Self { width, height, pixels })
    }

    /// Returns the number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the pixels in row-major order.
    #[must_use]
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }
}
