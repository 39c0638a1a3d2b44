//! Decoded images, and the pixel format that a caller requests.

use image::metadata::Orientation;
use image::{Rgb, RgbImage};

/// The requested format of a decoded image.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelFormat {
    /// Number of values per pixel. With 3, gray is replicated and alpha is dropped; with any other
    /// number, an image must have exactly that many.
    pub channels: usize,
    /// For images with more than 8 bits per value: the values that become 0 and 255, with linear
    /// scaling between them and clipping outside. Either one pair for all channels, or one per
    /// channel; empty means the full range of the file's type, which is [0, 1] for floats.
    pub value_range: Vec<[f64; 2]>,
}

impl PixelFormat {
    /// Red, green, and blue.
    pub const RGB: Self = Self { channels: 3, value_range: Vec::new() };

    /// Returns the pair for `channel`, if there is one.
    pub(crate) fn range(&self, channel: usize) -> Option<[f64; 2]> {
        match self.value_range.as_slice() {
            [one] => Some(*one),
            each => each.get(channel).copied(),
        }
    }
}

impl Default for PixelFormat {
    fn default() -> Self {
        Self::RGB
    }
}

/// An image with 8 bits per value and any number of channels, which are interleaved. Rows are
/// stored from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    data: Vec<u8>,
    width: u32,
    height: u32,
    channels: usize,
}

impl Image {
    /// Creates an image from `data`, `[height, width, channels]`. Returns `None` if the size does
    /// not match or there are no channels.
    pub fn new(data: Vec<u8>, width: u32, height: u32, channels: usize) -> Option<Self> {
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

    /// Returns the width and the height.
    pub fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Returns the number of values per pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns all values, `[height, width, channels]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Consumes the image and returns all values, `[height, width, channels]`.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// Converts the image for display: the first three channels become red, green, and blue; if
    /// there are fewer, the first one becomes gray.
    pub fn to_rgb(&self) -> RgbImage {
        let mut rgb = RgbImage::new(self.width, self.height);
        for (to, from) in rgb.pixels_mut().zip(self.data.chunks_exact(self.channels)) {
            *to = match *from {
                [r, g, b, ..] => Rgb([r, g, b]),
                [gray, ..] => Rgb([gray; 3]),
                [] => Rgb([0; 3]),
            };
        }
        rgb
    }

    /// Applies the orientation.
    pub(crate) fn oriented(self, orientation: Orientation) -> Self {
        use Orientation::*;
        if orientation == NoTransforms {
            return self;
        }
        let (w, h) = (self.width as usize, self.height as usize);
        let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
        let (width, height) = if turned { (h, w) } else { (w, h) };
        let source = |x: usize, y: usize| match orientation {
            NoTransforms => (x, y),
            FlipHorizontal => (w - 1 - x, y),
            FlipVertical => (x, h - 1 - y),
            Rotate180 => (w - 1 - x, h - 1 - y),
            Rotate90 => (y, h - 1 - x),
            Rotate270 => (w - 1 - y, x),
            Rotate90FlipH => (y, x),
            Rotate270FlipH => (w - 1 - y, h - 1 - x),
        };
        let mut data = Vec::with_capacity(self.data.len());
        for y in 0..height {
            for x in 0..width {
                let (x, y) = source(x, y);
                let pixel = (y * w + x) * self.channels;
                data.extend_from_slice(&self.data[pixel..pixel + self.channels]);
            }
        }
        Self { data, width: width as u32, height: height as u32, ..self }
    }
}

impl PartialEq<RgbImage> for Image {
    fn eq(&self, other: &RgbImage) -> bool {
        self.channels == 3 && self.dimensions() == other.dimensions() && self.data == **other
    }
}

impl From<RgbImage> for Image {
    fn from(image: RgbImage) -> Self {
        let (width, height) = image.dimensions();
        Self { data: image.into_raw(), width, height, channels: 3 }
    }
}

#[cfg(test)]
mod tests {
    use image::DynamicImage;

    use super::*;

    #[test]
    fn orientations_are_those_of_the_image_crate() {
        let rgb = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 7]));
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = DynamicImage::from(rgb.clone());
            expected.apply_orientation(orientation);
            let got = Image::from(rgb.clone()).oriented(orientation);
            assert_eq!(got, Image::from(expected.into_rgb8()), "{exif}");
        }
    }

    #[test]
    fn any_number_of_channels_can_be_looked_at() {
        let of = |channels| Image::new((0..channels as u8).collect(), 1, 1, channels).unwrap();
        assert_eq!(of(1).to_rgb().as_raw(), &[0, 0, 0]);
        assert_eq!(of(2).to_rgb().as_raw(), &[0, 0, 0]);
        assert_eq!(of(5).to_rgb().as_raw(), &[0, 1, 2]);
        assert!(Image::new(vec![0; 5], 2, 1, 2).is_none());
        assert!(Image::new(vec![], 2, 1, 0).is_none());
    }
}
