//! Values of any type as they are stored in a file, and their conversion to bytes.

use image::DynamicImage;
use image::metadata::Orientation;
use tiff::decoder::DecodingResult;

use crate::error::{Error, Result};
use crate::pixels::{Image, PixelFormat};

/// An image with the original values of its file, of any type.
#[derive(Debug)]
pub struct Raw {
    pub(crate) values: Values,
    pub(crate) layout: Layout,
    /// The orientation, which is not applied yet.
    pub(crate) orientation: Orientation,
    pub(crate) format: &'static str,
}

impl Raw {
    /// Returns the name of the format: "jpeg", "png", "webp", "tiff", or "bmp".
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Converts the image to the format that `pixels` requests.
    ///
    /// # Errors
    /// Returns [`Error::Channels`] if the file has a different number of channels, and
    /// [`Error::Truncated`] if it has too few values.
    pub fn into_image(self, pixels: &PixelFormat) -> Result<Image> {
        let (format, found, expected) = (self.format, self.layout.channels, pixels.channels);
        let sources = self.layout.sources(expected);
        let sources = sources.ok_or(Error::Channels { format, found, expected })?;
        to_image(self.values, self.layout, &sources, pixels)
            .map(|image| image.oriented(self.orientation))
            .ok_or(Error::Truncated { format })
    }

    /// Returns, for each channel of the file, the values of about `count` evenly spread pixels, as
    /// statistics for choosing a [`PixelFormat::value_range`]. Returns `None` for images with 8
    /// bits, to which that does not apply.
    pub fn sample(&self, count: usize) -> Option<Vec<Vec<f64>>> {
        let (layout, pixels) =
            (self.layout, self.layout.width as usize * self.layout.height as usize);
        // The step is odd, because its multiples then do not fall into a few columns of most
        // images.
        let every = (pixels / count.max(1)).max(1) | 1;
        let places = |channel: usize| {
            let (step, stride) = layout.steps();
            (0..pixels).step_by(every).map(move |pixel| channel * stride + pixel * step)
        };
        let pick = |value: &dyn Fn(usize) -> Option<f64>| {
            let channel = |channel| places(channel).filter_map(value).collect();
            Some((0..layout.channels).map(channel).collect())
        };
        match &self.values {
            Values::U8(_) => None,
            Values::U16(v) => pick(&|i| v.get(i).map(|&v| v.into())),
            Values::U32(v) => pick(&|i| v.get(i).map(|&v| v.into())),
            Values::U64(v) => pick(&|i| v.get(i).map(|&v| v as f64)),
            Values::I8(v) => pick(&|i| v.get(i).map(|&v| v.into())),
            Values::I16(v) => pick(&|i| v.get(i).map(|&v| v.into())),
            Values::I32(v) => pick(&|i| v.get(i).map(|&v| v.into())),
            Values::I64(v) => pick(&|i| v.get(i).map(|&v| v as f64)),
            Values::F16(v) => pick(&|i| v.get(i).map(|v| v.to_f64())),
            Values::F32(v) => pick(&|i| v.get(i).map(|&v| v.into())),
            Values::F64(v) => pick(&|i| v.get(i).copied()),
        }
    }
}

/// The memory layout of an image's values, and the meaning of its channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Number of values per pixel.
    pub(crate) channels: usize,
    /// Distance from one channel to the next, in values, if channels are stored separately and not
    /// interleaved.
    pub(crate) plane: Option<usize>,
    /// Whether the last channel is alpha, or is declared to be.
    pub(crate) alpha: bool,
}

impl Layout {
    /// Returns the distances from one pixel to the next and from one channel to the next, in
    /// values.
    pub(crate) fn steps(&self) -> (usize, usize) {
        self.plane.map_or((self.channels, 1), |plane| (1, plane))
    }

    /// Returns the channel of the file for each of `wanted` channels, or `None` if the file does
    /// not have matching channels.
    fn sources(&self, wanted: usize) -> Option<Vec<usize>> {
        match (wanted, self.channels, self.alpha) {
            (wanted, found, _) if wanted == found => Some((0..wanted).collect()),
            (3, 1, _) | (3, 2, true) => Some(vec![0; 3]),
            (3, 4, true) => Some(vec![0, 1, 2]),
            _ => None,
        }
    }
}

/// The values of an image in a single array; see [`Layout`].
pub(crate) type Values = DecodingResult;

/// Converts values to the image that `pixels` requests, whose channels are those of `sources` in the
/// file. Returns `None` if there are too few values.
fn to_image(
    values: Values,
    layout: Layout,
    sources: &[usize],
    pixels: &PixelFormat,
) -> Option<Image> {
    let Layout { width, height, channels, plane, .. } = layout;
    if let Values::U8(bytes) = values {
        let same = channels == pixels.channels && plane.is_none();
        let bytes = match (same, sources) {
            (true, _) => bytes,
            // Gray photographs are common, so they are converted in one pass.
            (false, [0, 0, 0]) if channels == 1 => bytes.iter().flat_map(|&v| [v; 3]).collect(),
            (false, sources) => gather(&bytes, layout, sources, |_, v| v)?,
        };
        return Image::new(bytes, width, height, pixels.channels);
    }
    // `$low` and `$high` become 0 and 255 unless a range is requested.
    macro_rules! scaled {
        ($values:expr, $low:expr, $high:expr) => {
            scale(&$values, layout, sources, |c| pixels.range(c).unwrap_or([$low, $high]))?
        };
    }
    macro_rules! integers {
        ($values:expr, $type:ty) => {
            scaled!($values, <$type>::MIN as f64, <$type>::MAX as f64)
        };
    }
    let bytes = match values {
        Values::U8(_) => return None,
        Values::U16(v) => integers!(v, u16),
        Values::U32(v) => integers!(v, u32),
        Values::U64(v) => integers!(v.iter().map(|&v| v as f64).collect::<Vec<_>>(), u64),
        Values::I8(v) => integers!(v, i8),
        Values::I16(v) => integers!(v, i16),
        Values::I32(v) => integers!(v, i32),
        Values::I64(v) => integers!(v.iter().map(|&v| v as f64).collect::<Vec<_>>(), i64),
        Values::F16(v) => scaled!(v.iter().map(|v| v.to_f64()).collect::<Vec<_>>(), 0.0, 1.0),
        Values::F32(v) => scaled!(v, 0.0, 1.0),
        Values::F64(v) => scaled!(v, 0.0, 1.0),
    };
    Image::new(bytes, width, height, pixels.channels)
}

/// Scales the range of each channel to 0..=255, rounding to the nearest; NaN becomes 0.
fn scale<T: Copy + Into<f64>>(
    values: &[T],
    layout: Layout,
    sources: &[usize],
    range: impl Fn(usize) -> [f64; 2],
) -> Option<Vec<u8>> {
    let lines: Vec<[f64; 2]> = (0..sources.len())
        .map(|channel| {
            let [low, high] = range(channel);
            let factor = 255.0 / (high - low);
            [factor, 0.5 - low * factor]
        })
        .collect();
    gather(values, layout, sources, |channel, value: T| {
        let [factor, offset] = lines[channel];
        // The cast truncates towards zero and saturates at both ends.
        (value.into() * factor + offset) as u8
    })
}

/// Collects bytes pixel by pixel. `byte` converts a value, given the number of the requested
/// channel. Returns `None` if there are too few values.
fn gather<T: Copy>(
    values: &[T],
    layout: Layout,
    sources: &[usize],
    byte: impl Fn(usize, T) -> u8,
) -> Option<Vec<u8>> {
    let count = layout.width as usize * layout.height as usize;
    let (step, stride) = layout.steps();
    let mut bytes = vec![0; count * sources.len()];
    for (channel, &source) in sources.iter().enumerate() {
        let from = values.get(source * stride..)?.iter().step_by(step);
        if from.len() < count {
            return None;
        }
        let to = bytes.iter_mut().skip(channel).step_by(sources.len());
        to.zip(from).for_each(|(to, &from)| *to = byte(channel, from));
    }
    Some(bytes)
}

/// Takes an image of the `image` crate apart into its values and their layout.
pub(crate) fn of_dynamic(image: DynamicImage) -> (Values, Layout) {
    let color = image.color();
    let layout = Layout {
        width: image.width(),
        height: image.height(),
        channels: usize::from(color.channel_count()),
        plane: None,
        alpha: color.has_alpha(),
    };
    let values = match image {
        DynamicImage::ImageLuma8(image) => Values::U8(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => Values::U8(image.into_raw()),
        DynamicImage::ImageRgb8(image) => Values::U8(image.into_raw()),
        DynamicImage::ImageRgba8(image) => Values::U8(image.into_raw()),
        DynamicImage::ImageLuma16(image) => Values::U16(image.into_raw()),
        DynamicImage::ImageLumaA16(image) => Values::U16(image.into_raw()),
        DynamicImage::ImageRgb16(image) => Values::U16(image.into_raw()),
        DynamicImage::ImageRgba16(image) => Values::U16(image.into_raw()),
        DynamicImage::ImageRgb32F(image) => Values::F32(image.into_raw()),
        DynamicImage::ImageRgba32F(image) => Values::F32(image.into_raw()),
        // For kinds that this version of the crate does not have.
        other => Values::U8(other.into_rgb8().into_raw()),
    };
    (values, layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_values_are_an_error() {
        // 3 x 2 pixels of 2 channels, interleaved and in planes, as RGB, in which the last channel
        // is ignored alpha, or with both channels.
        for (plane, wanted, least) in
            [(None, 2, 12), (None, 3, 11), (Some(6), 2, 12), (Some(6), 3, 6)]
        {
            let layout = Layout { width: 3, height: 2, channels: 2, plane, alpha: true };
            for count in [0, least - 1, least] {
                let pixels = PixelFormat { channels: wanted, ..PixelFormat::RGB };
                for values in [Values::U8(vec![9; count]), Values::U16(vec![999; count])] {
                    let (orientation, format) = (Orientation::NoTransforms, "tiff");
                    let image = Raw { values, layout, orientation, format }.into_image(&pixels);
                    match count < least {
                        true => assert!(matches!(image, Err(Error::Truncated { .. })), "{image:?}"),
                        false => assert_eq!(image.unwrap().dimensions(), (3, 2)),
                    }
                }
            }
        }
    }
}
