//! Converts what a TIFF stores to gray, RGB, or plain channels.

use ::jpeg::ink;
use tiff::decoder::ifd::Value;
use tiff::tags::{CompressionMethod, PhotometricInterpretation, Tag};

use super::head::{Head, Reader, broken, failed, unsupported};
use crate::parts::Failure;
use crate::raw::{Layout, Values};

/// Interprets the values. Gray, RGB, and plain channels are kept, except that gray of fewer than 8
/// bits is scaled; palettes, CMYK, and YCbCr become RGB.
///
/// # Errors
/// Returns [`Failure::Image`] if the colors are invalid or not supported.
pub(super) fn convert(
    values: Values,
    layout: Layout,
    decoder: &mut Reader<'_>,
    head: &Head,
) -> Result<(Values, Layout), Failure> {
    use PhotometricInterpretation::*;
    let jpeg = head.compression == CompressionMethod::ModernJPEG;
    let of_bytes = |values| match values {
        Values::U8(bytes) => Ok(bytes),
        _ => Err(unsupported(format!("{:?} with {} bits", head.colors, head.bits))),
    };
    let rgb =
        Layout { width: head.width, height: head.height, channels: 3, plane: None, alpha: false };
    match head.colors {
        BlackIsZero | WhiteIsZero if head.bits < 8 => {
            let most = (1 << head.bits) - 1;
            let scaled = of_bytes(values)?.into_iter().map(|v| (u16::from(v) * 255 / most) as u8);
            Ok((Values::U8(scaled.collect()), layout))
        }
        WhiteIsZero if jpeg => {
            Ok((Values::U8(of_bytes(values)?.into_iter().map(|v| 255 - v).collect()), layout))
        }
        BlackIsZero | WhiteIsZero | RGB => Ok((values, layout)),
        YCbCr if jpeg => Ok((values, rgb)),
        YCbCr if layout.channels < 3 => Err(unsupported("YCbCr with fewer than 3 channels".into())),
        YCbCr => Ok((Values::U8(Ycbcr::new(decoder)?.all(&of_bytes(values)?, layout, head)), rgb)),
        RGBPalette => {
            let indices = of_bytes(values)?;
            let palette = palette(decoder, head.bits)?;
            let indices = pixels(&indices, layout, [0]);
            Ok((Values::U8(indices.flat_map(|[index]| palette[usize::from(index)]).collect()), rgb))
        }
        CMYK if layout.channels >= 4 => {
            let bytes = match values {
                Values::U16(values) => values.into_iter().map(|value| (value >> 8) as u8).collect(),
                values => of_bytes(values)?,
            };
            let inks = pixels(&bytes, layout, [0, 1, 2, 3]);
            let colors = inks.flat_map(|[c, m, y, k]| [c, m, y].map(|v| ink(255 - v, 255 - k)));
            Ok((Values::U8(colors.collect()), rgb))
        }
        other => Err(unsupported(format!("{other:?} with {} channels", layout.channels))),
    }
}

/// Iterates over the values of each pixel in these channels.
fn pixels<const N: usize>(
    bytes: &[u8],
    layout: Layout,
    channels: [usize; N],
) -> impl Iterator<Item = [u8; N]> + '_ {
    let count = layout.width as usize * layout.height as usize;
    let (step, stride) = layout.steps();
    (0..count).map(move |pixel| {
        channels.map(|channel| bytes.get(pixel * step + channel * stride).copied().unwrap_or(0))
    })
}

/// Expands values of fewer than 8 bits to a byte each. In the file, each row begins with a new
/// byte.
pub(super) fn unpack(bytes: &[u8], width: usize, bits: u8) -> Vec<u8> {
    let in_byte = usize::from(8 / bits);
    let rows = bytes.chunks_exact(width.div_ceil(in_byte).max(1));
    let value = |row: &[u8], x: usize| {
        let shift = 8 - usize::from(bits) * (x % in_byte + 1);
        row[x / in_byte] >> shift & ((1_u16 << bits) - 1) as u8
    };
    rows.flat_map(|row| (0..width).map(move |x| value(row, x))).collect()
}

/// Returns the colors of all palette indices. Those that the file does not define are black, as in
/// Pillow.
fn palette(decoder: &mut Reader<'_>, bits: u16) -> Result<[[u8; 3]; 256], Failure> {
    let values = decoder.find_tag_unsigned_vec::<u16>(Tag::ColorMap).map_err(failed)?;
    let values = values.ok_or_else(|| broken("a palette image without a palette"))?;
    let count = values.len() / 3;
    if bits > 8 || count < 1 << bits {
        return Err(broken(format!("a palette of {count} colors for {bits} bits")));
    }
    let mut palette = [[0; 3]; 256];
    for (index, color) in palette.iter_mut().enumerate().take(count) {
        *color = [0, 1, 2].map(|channel| (values[channel * count + index] >> 8) as u8);
    }
    Ok(palette)
}

/// Converts YCbCr to RGB with the factors that a file states, in fixed point like libtiff.
struct Ycbcr {
    /// The brightness of each value of luminance.
    y: Vec<i32>,
    /// What each value of Cr adds to red, and each value of Cb to blue.
    red: Vec<i32>,
    blue: Vec<i32>,
    /// What each value of Cb and of Cr adds to green, with [`FRACTION`] fractional bits.
    green: [Vec<i32>; 2],
}

/// Returns the numbers of a tag of fractions, or `default` if the tag is missing or invalid, or has
/// a different number of values.
fn fractions(decoder: &mut Reader<'_>, tag: u16, default: &[f32]) -> Result<Vec<f32>, Failure> {
    let found = decoder.find_tag(Tag::Unknown(tag)).map_err(failed)?;
    let number = |value| match value {
        Value::Rational(n, d) => Some((f64::from(n) / f64::from(d)) as f32),
        Value::Float(value) => Some(value),
        Value::Short(value) => Some(f32::from(value)),
        Value::Unsigned(value) => Some(value as f32),
        _ => None,
    };
    let found = match found {
        Some(Value::List(values)) => values.into_iter().map(number).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let usable = |found: &Vec<f32>| {
        found.len() == default.len() && found.iter().all(|number| number.is_finite())
    };
    Ok(found.filter(usable).unwrap_or_else(|| default.to_vec()))
}

/// Number of fractional bits.
const FRACTION: u32 = 16;

impl Ycbcr {
    fn new(decoder: &mut Reader<'_>) -> Result<Self, Failure> {
        // YCbCrCoefficients and ReferenceBlackWhite.
        let luma = fractions(decoder, 529, &[0.299, 0.587, 0.114])?;
        let range = fractions(decoder, 532, &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0])?;
        if luma[1] == 0.0 {
            return Err(broken("YCbCr whose green does not contribute to luminance"));
        }
        let fixed = |factor: f32| (f64::from(factor.clamp(0.0, 2.0)) * 65536.0 + 0.5) as i32;
        let (red, blue) = (2.0 - 2.0 * luma[0], 2.0 - 2.0 * luma[2]);
        let green = [luma[2] * blue / luma[1], luma[0] * red / luma[1]].map(|f| -fixed(f));
        let (red, blue) = (fixed(red), fixed(blue));
        let half = 1 << (FRACTION - 1);
        let value = |code: i32, low: f32, high: f32, most: f32| {
            let span = if high - low == 0.0 { 1.0 } else { high - low };
            let value = (code - low as i32) as f32 * most / span;
            value.clamp(-128.0 * 32.0, 128.0 * 32.0) as i32
        };
        let color = |low: f32, high: f32| -> Vec<i32> {
            (0..256).map(|code| value(code - 128, low - 128.0, high - 128.0, 127.0)).collect()
        };
        let (cb, cr) = (color(range[2], range[3]), color(range[4], range[5]));
        Ok(Self {
            y: (0..256).map(|code| value(code, range[0], range[1], 255.0)).collect(),
            red: cr.iter().map(|cr| (red * cr + half) >> FRACTION).collect(),
            blue: cb.iter().map(|cb| (blue * cb + half) >> FRACTION).collect(),
            green: [
                cb.iter().map(|cb| green[0] * cb + half).collect(),
                cr.iter().map(|cr| green[1] * cr).collect(),
            ],
        })
    }

    fn rgb(&self, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let [y, cb, cr] = [y, cb, cr].map(usize::from);
        let green = (self.green[0][cb] + self.green[1][cr]) >> FRACTION;
        [self.red[cr], green, self.blue[cb]].map(|color| (self.y[y] + color).clamp(0, 255) as u8)
    }

    /// Converts all pixels. Pixels that share their color values get the same ones.
    fn all(&self, bytes: &[u8], layout: Layout, head: &Head) -> Vec<u8> {
        if !head.is_subsampled() {
            return pixels(bytes, layout, [0, 1, 2]).flat_map(|pixel| self.rgb(pixel)).collect();
        }
        let [across, down] = head.shared.map(|side| side as usize);
        let unit_row = layout.width as usize * layout.channels;
        let mut rgb = Vec::with_capacity(3 * head.width as usize * head.height as usize);
        for y in 0..head.height as usize {
            let Some(units) = bytes.get(y / down * unit_row..).and_then(|b| b.get(..unit_row))
            else {
                break;
            };
            for x in 0..head.width as usize {
                let unit = &units[x / across * layout.channels..][..layout.channels];
                let luma = unit[y % down * across + x % across];
                rgb.extend(self.rgb([luma, unit[across * down], unit[across * down + 1]]));
            }
        }
        rgb
    }
}
