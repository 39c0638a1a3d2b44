//! Decoded images as plain memory: 8 bits per value, any number of channels.

/// A borrowed image: rows from the top, with interleaved channels.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    data: &'a [u8],
    width: u32,
    height: u32,
    channels: usize,
}

impl<'a> Pixels<'a> {
    /// Interprets `data` as an image; `None` if it does not have `width * height * channels`
    /// bytes, or if there are no channels.
    pub fn new(data: &'a [u8], width: u32, height: u32, channels: usize) -> Option<Self> {
        let bytes = (width as usize).checked_mul(height as usize)?.checked_mul(channels)?;
        (bytes == data.len() && channels > 0).then_some(Self { data, width, height, channels })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Values of a pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// All values, `[height, width, channels]`.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// One row, `[width, channels]`.
    #[inline(always)]
    pub fn row(&self, y: usize) -> &'a [u8] {
        let bytes = self.width as usize * self.channels;
        &self.data[y * bytes..(y + 1) * bytes]
    }
}

#[cfg(feature = "decode")]
impl<'a> From<&'a image::RgbImage> for Pixels<'a> {
    fn from(image: &'a image::RgbImage) -> Self {
        Self { data: image.as_raw(), width: image.width(), height: image.height(), channels: 3 }
    }
}

#[cfg(feature = "decode")]
impl<'a> From<&'a decode::Image> for Pixels<'a> {
    fn from(image: &'a decode::Image) -> Self {
        let (width, height) = image.dimensions();
        Self { data: image.data(), width, height, channels: image.channels() }
    }
}
