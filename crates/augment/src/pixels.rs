//! Decoded images as plain memory: 8 bits per value, any number of channels.

/// A borrowed image with interleaved channels, row by row from the top.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    data: &'a [u8],
    width: u32,
    height: u32,
    channels: usize,
}

impl<'a> Pixels<'a> {
    /// Interprets `data`, `[height, width, channels]`, as an image. Returns `None` if the size does
    /// not match or there are no channels.
    pub fn new(data: &'a [u8], width: u32, height: u32, channels: usize) -> Option<Self> {
        let bytes = (width as usize).checked_mul(height as usize)?.checked_mul(channels)?;
        (bytes == data.len() && channels > 0).then_some(Self { data, width, height, channels })
    }

    /// Returns the number of pixels per row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Returns the number of rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Returns the number of values per pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns all values, `[height, width, channels]`.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Returns one row, `[width, channels]`.
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
