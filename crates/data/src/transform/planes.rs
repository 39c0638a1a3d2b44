//! The working form of a crop: three separate planes.
//!
//! Colour operations mix the channels of one pixel. With the channels apart they become loops
//! over three byte slices, which the compiler turns into SIMD code on every target.

use image::RgbImage;

/// An RGB image as three planes of `width * height` bytes, rows from the top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planes {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Planes {
    /// The planes of `image`.
    pub fn from_rgb(image: &RgbImage) -> Self {
        let mut planes = Self::default();
        planes.load(image.as_raw(), image.width() as usize, image.height() as usize);
        planes
    }

    /// Replaces the content by interleaved RGB pixels; keeps the allocation.
    ///
    /// `pixels` has `3 * width * height` bytes; what it lacks stays as it was.
    pub fn load(&mut self, pixels: &[u8], width: usize, height: usize) {
        debug_assert_eq!(pixels.len(), 3 * width * height);
        (self.width, self.height) = (width, height);
        self.data.resize(3 * width * height, 0);
        let [red, green, blue] = self.channels_mut();
        let (pixels, _) = pixels.as_chunks::<3>();
        for (((pixel, r), g), b) in pixels.iter().zip(red).zip(green).zip(blue) {
            (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
        }
    }

    /// Writes interleaved RGB pixels: HWC, `3 * width * height` bytes.
    pub fn store(&self, pixels: &mut [u8]) {
        debug_assert_eq!(pixels.len(), self.data.len());
        let [red, green, blue] = self.channels();
        let (pixels, _) = pixels.as_chunks_mut::<3>();
        for (((pixel, &r), &g), &b) in pixels.iter_mut().zip(red).zip(green).zip(blue) {
            *pixel = [r, g, b];
        }
    }

    /// The image with interleaved pixels.
    pub fn to_rgb(&self) -> RgbImage {
        let mut image = RgbImage::new(self.width as u32, self.height as u32);
        self.store(&mut image);
        image
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All three planes in one slice: red, green, blue.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Red, green and blue.
    pub fn channels(&self) -> [&[u8]; 3] {
        let area = self.width * self.height;
        let (red, rest) = self.data.split_at(area);
        let (green, blue) = rest.split_at(area);
        [red, green, blue]
    }

    /// Red, green and blue, to be written.
    pub fn channels_mut(&mut self) -> [&mut [u8]; 3] {
        let area = self.width * self.height;
        let (red, rest) = self.data.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        [red, green, blue]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back_as_they_went_in() {
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, 10 + y as u8, 99]));
        let planes = Planes::from_rgb(&image);
        assert_eq!(planes.channels()[0][..5], [0, 1, 2, 3, 4]);
        assert_eq!(planes.channels()[1][5], 11);
        assert_eq!(planes.to_rgb(), image);
    }
}
