//! The working form of a crop: one plane per channel.
//!
//! Color operations mix the channels of a pixel. With separate channels, they become loops over
//! three byte slices, which the compiler turns into SIMD code on every target.

#[cfg(feature = "decode")]
use image::RgbImage;
use simd::dispatch;

use super::lanes::{LANES, map, map_pixels};
use crate::pixels::Pixels;

/// Number of pixels that are split or joined at a time.
const BLOCK: usize = 64;

/// An image as planes of `width * height` bytes, one per channel, row by row from the top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planes {
    width: usize,
    height: usize,
    channels: usize,
    data: Vec<u8>,
}

impl Planes {
    /// Creates the planes of `image`.
    #[cfg(feature = "decode")]
    pub fn from_rgb(image: &RgbImage) -> Self {
        let mut planes = Self::default();
        planes.load(image.into());
        planes
    }

    /// Resizes the planes. Their contents become unspecified, but the allocation is kept.
    pub fn reshape(&mut self, width: usize, height: usize, channels: usize) {
        (self.width, self.height, self.channels) = (width, height, channels);
        self.data.resize(width * height * channels, 0);
    }

    /// Loads the pixels of `image`, reusing the allocation.
    pub fn load(&mut self, image: Pixels<'_>) {
        self.reshape(image.width() as usize, image.height() as usize, image.channels());
        match self.rgb_mut() {
            Some(planes) => dispatch(
                #[inline(always)]
                || split(image.data(), planes),
            ),
            None => {
                for c in 0..image.channels() {
                    let values = image.data()[c..].iter().step_by(image.channels());
                    self.channel_mut(c).iter_mut().zip(values).for_each(|(to, &from)| *to = from);
                }
            }
        }
    }

    /// Writes interleaved pixels, `[height, width, channels]`, to a slice of exactly that size.
    pub fn store(&self, pixels: &mut [u8]) {
        debug_assert_eq!(pixels.len(), self.data.len());
        if let Some(planes) = self.rgb() {
            return dispatch(
                #[inline(always)]
                || join(planes, pixels),
            );
        }
        for c in 0..self.channels {
            let places = pixels[c..].iter_mut().step_by(self.channels);
            places.zip(self.channel(c)).for_each(|(to, &from)| *to = from);
        }
    }

    /// Returns the image with interleaved pixels. It is black if there are not three channels.
    #[cfg(feature = "decode")]
    pub fn to_rgb(&self) -> RgbImage {
        let mut image = RgbImage::new(self.width as u32, self.height as u32);
        if self.channels == 3 {
            self.store(&mut image);
        }
        image
    }

    /// Returns the number of pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the number of planes.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns all planes in one slice, `[channels, height, width]`.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Returns all planes in one mutable slice, `[channels, height, width]`.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Applies `f`, which must be `#[inline(always)]`, to all bytes, with the best instruction set
    /// of this machine.
    #[inline]
    pub(super) fn map(&mut self, f: impl Fn(&mut [u8; LANES])) {
        dispatch(
            #[inline(always)]
            || map(&mut self.data, f),
        );
    }

    /// Like [`Planes::map`], but for red, green, and blue together. Does nothing without three
    /// channels.
    #[inline]
    pub(super) fn map_pixels(
        &mut self,
        f: impl Fn(&mut [u8; LANES], &mut [u8; LANES], &mut [u8; LANES]),
    ) {
        let Some(rgb) = self.rgb_mut() else { return };
        dispatch(
            #[inline(always)]
            || map_pixels(rgb, f),
        );
    }

    /// Returns one plane, `[height, width]`.
    pub fn channel(&self, channel: usize) -> &[u8] {
        let area = self.width * self.height;
        &self.data[channel * area..(channel + 1) * area]
    }

    /// Returns one mutable plane, `[height, width]`.
    pub fn channel_mut(&mut self, channel: usize) -> &mut [u8] {
        let area = self.width * self.height;
        &mut self.data[channel * area..(channel + 1) * area]
    }

    /// Returns red, green, and blue, if there are three channels.
    pub fn rgb(&self) -> Option<[&[u8]; 3]> {
        (self.channels == 3).then(|| [self.channel(0), self.channel(1), self.channel(2)])
    }

    /// Returns mutable red, green, and blue, if there are three channels.
    pub fn rgb_mut(&mut self) -> Option<[&mut [u8]; 3]> {
        if self.channels != 3 {
            return None;
        }
        let area = self.width * self.height;
        let (red, rest) = self.data.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        Some([red, green, blue])
    }
}

#[inline(always)]
fn split(pixels: &[u8], [red, green, blue]: [&mut [u8]; 3]) {
    const BYTES: usize = 3 * BLOCK;
    let blocks = pixels.as_chunks::<BYTES>().0.iter();
    let planes = red.as_chunks_mut::<BLOCK>().0.iter_mut();
    let planes = planes.zip(green.as_chunks_mut::<BLOCK>().0).zip(blue.as_chunks_mut::<BLOCK>().0);
    for (pixels, ((r, g), b)) in blocks.zip(planes) {
        for i in 0..BLOCK {
            (r[i], g[i], b[i]) = (pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
        }
    }
    for i in red.len() / BLOCK * BLOCK..red.len() {
        (red[i], green[i], blue[i]) = (pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
    }
}

#[inline(always)]
fn join([red, green, blue]: [&[u8]; 3], pixels: &mut [u8]) {
    const BYTES: usize = 3 * BLOCK;
    let blocks = pixels.as_chunks_mut::<BYTES>().0.iter_mut();
    let planes = red.as_chunks::<BLOCK>().0.iter();
    let planes = planes.zip(green.as_chunks::<BLOCK>().0).zip(blue.as_chunks::<BLOCK>().0);
    for (pixels, ((r, g), b)) in blocks.zip(planes) {
        for i in 0..BLOCK {
            (pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]) = (r[i], g[i], b[i]);
        }
    }
    for i in red.len() / BLOCK * BLOCK..red.len() {
        (pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]) = (red[i], green[i], blue[i]);
    }
}

#[cfg(test)]
#[cfg(feature = "decode")]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back_as_they_went_in() {
        for (width, height) in [(5, 3), (32, 2), (67, 5)] {
            let image =
                RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, 100 + y as u8, 99]));
            let planes = Planes::from_rgb(&image);
            assert!((0..width as usize).all(|x| planes.channel(0)[x] == x as u8));
            assert_eq!(planes.channel(1)[width as usize], 101);
            assert_eq!(planes.to_rgb(), image);
        }
    }

    #[test]
    fn any_number_of_channels_comes_back() {
        let data: Vec<u8> = (0..2 * 3 * 5).collect();
        let mut planes = Planes::default();
        planes.load(Pixels::new(&data, 3, 2, 5).unwrap());
        assert_eq!(planes.channel(4), [4, 9, 14, 19, 24, 29]);
        assert!(planes.rgb().is_none());
        let mut back = vec![0; data.len()];
        planes.store(&mut back);
        assert_eq!(back, data);
    }
}
