//! TIFF with any number of channels, by the `tiff` crate itself: `image` stops at four, and reads
//! no signed values.
//!
//! Two kinds of files that remote sensing has many of are read wrongly by that crate. Where the
//! first three channels are called red, green and blue, it leaves out the others; where channels lie
//! in tiles of their own, it counts the rows of the last tiles wrongly. Such a file is shown to it
//! with another tag ([`repairs`]).

use std::io::Cursor;

use image::error::{DecodingError, LimitError, LimitErrorKind, UnsupportedError};
use image::metadata::Orientation;
use image::{ImageError, ImageFormat};
use tiff::decoder::{Decoder, Limits};
use tiff::tags::{PhotometricInterpretation, PlanarConfiguration, Tag};
use tiff::{ColorType, TiffError};

use crate::raw::{Layout, Values};
use crate::{Failure, MAX_IMAGE_BYTES, Parts, check_size};

/// Most bytes of one tag; places of tiles are the longest.
const MAX_TAG_BYTES: usize = 16 << 20;

/// What the tags say.
struct Head {
    width: u32,
    height: u32,
    channels: u16,
    /// The first channels are red, green and blue.
    rgb: bool,
    alpha: bool,
    planar: bool,
    tile_height: Option<u32>,
    orientation: Orientation,
}

type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

/// Reads the first page; none if it is of a kind that is left to the `image` crate: palettes, inks,
/// less than 8 bits.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Parts>, Failure> {
    let mut decoder = open(bytes)?;
    let head = read_head(&mut decoder)?;
    let repairs = repairs(&mut decoder, &head);
    if repairs.is_empty() {
        return read_values(decoder, &head);
    }
    let mut copy = bytes.to_vec();
    let repaired = repairs.iter().all(|&(tag, value)| set_tag(&mut copy, tag, value).is_some());
    if repaired { read_values(open(&copy)?, &head) } else { Ok(None) }
}

fn open(bytes: &[u8]) -> Result<Reader<'_>, Failure> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_IMAGE_BYTES as usize;
    limits.intermediate_buffer_size = MAX_IMAGE_BYTES as usize;
    limits.ifd_value_size = MAX_TAG_BYTES;
    Ok(Decoder::new(Cursor::new(bytes)).map_err(failed)?.with_limits(limits))
}

fn read_head(decoder: &mut Reader<'_>) -> Result<Head, Failure> {
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(failed)?;
    let mut short = |tag| decoder.find_tag_unsigned::<u16>(tag).map_err(failed);
    let channels = short(Tag::SamplesPerPixel)?.unwrap_or(1);
    let rgb =
        short(Tag::PhotometricInterpretation)? == Some(PhotometricInterpretation::RGB.to_u16());
    let planar = short(Tag::PlanarConfiguration)? == Some(PlanarConfiguration::Planar.to_u16());
    let exif = short(Tag::Orientation)?.and_then(|value| u8::try_from(value).ok());
    Ok(Head {
        width,
        height,
        channels,
        rgb,
        // 1 and 2 are two ways to store alpha. Four channels that are called RGB are taken for it.
        alpha: matches!(extra.as_deref(), Some([1 | 2])) || rgb && channels == 4,
        planar,
        tile_height: decoder.find_tag_unsigned(Tag::TileLength).map_err(failed)?,
        orientation: exif.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms),
    })
}

/// Tags that must have other values for all channels to be read: "black is zero" holds for any
/// number of channels, and in whole tiles there are no rows to be counted.
fn repairs(decoder: &mut Reader<'_>, head: &Head) -> Vec<(Tag, u32)> {
    let mut repairs = Vec::new();
    let seen = decoder.colortype().map_or(0, |color| color.num_samples());
    if head.rgb && seen != head.channels {
        let value = PhotometricInterpretation::BlackIsZero.to_u16();
        repairs.push((Tag::PhotometricInterpretation, value.into()));
    }
    let whole = head.tile_height.and_then(|tile| head.height.checked_next_multiple_of(tile));
    if head.planar && whole.is_some_and(|whole| whole != head.height) {
        repairs.extend(whole.map(|whole| (Tag::ImageLength, whole)));
    }
    repairs
}

fn read_values(mut decoder: Reader<'_>, head: &Head) -> Result<Option<Parts>, Failure> {
    let (8.., true) = kind(decoder.colortype().map_err(failed)?) else { return Ok(None) };
    let (_, rows) = decoder.dimensions().map_err(failed)?;
    let size = decoder.image_buffer_layout().map_err(failed)?;
    check_size(head.width, rows, size.complete_len as u64)?;
    let mut values = Values::U8(Vec::new());
    decoder.read_image_to_buffer(&mut values).map_err(failed)?;
    let plane = head.width as usize * rows as usize;
    let layout = Layout {
        width: head.width,
        height: head.height,
        channels: usize::from(head.channels),
        plane: (size.planes > 1).then_some(plane),
        alpha: head.alpha,
    };
    Ok(Some((values, layout, head.orientation)))
}

/// Bits of a value, and whether values are what they stand for.
fn kind(color: ColorType) -> (u8, bool) {
    let plain = matches!(
        color,
        ColorType::Gray(_)
            | ColorType::GrayA(_)
            | ColorType::RGB(_)
            | ColorType::RGBA(_)
            | ColorType::Multiband { .. }
    );
    (color.bit_depth(), plain)
}

fn failed(error: TiffError) -> Failure {
    let format = ImageFormat::Tiff.into();
    Failure::Image(match error {
        TiffError::IoError(error) => ImageError::IoError(error),
        TiffError::LimitsExceeded => {
            ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory))
        }
        TiffError::UnsupportedError(what) => {
            let kind = image::error::UnsupportedErrorKind::GenericFeature(what.to_string());
            ImageError::Unsupported(UnsupportedError::from_format_and_kind(format, kind))
        }
        other => ImageError::Decoding(DecodingError::new(format, other)),
    })
}

/// Gives a tag of the first directory another value; none if it is not there, or not a number of 16
/// or 32 bits that the value fits.
fn set_tag(bytes: &mut [u8], tag: Tag, value: u32) -> Option<()> {
    let big_endian = bytes.first()? == &b'M';
    let number = |place: usize, length: usize| -> Option<u64> {
        let digits = bytes.get(place..place.checked_add(length)?)?;
        let add = |sum: u64, &digit: &u8| sum << 8 | u64::from(digit);
        Some(match big_endian {
            true => digits.iter().fold(0, add),
            false => digits.iter().rev().fold(0, add),
        })
    };
    let big_tiff = number(2, 2)? == 43;
    // Of the directory's place, the number of entries, an entry, and the value in it.
    let (offset, count_bytes, entry_bytes, value_place) =
        if big_tiff { (number(8, 8)?, 8, 20, 12) } else { (number(4, 4)?, 2, 12, 8) };
    let directory = usize::try_from(offset).ok()?;
    let first = directory.checked_add(count_bytes)?;
    let entries = usize::try_from(number(directory, count_bytes)?).ok()?;
    let end = first.checked_add(entries.checked_mul(entry_bytes)?)?;
    let entry = (first..end.min(bytes.len()))
        .step_by(entry_bytes)
        .find(|&entry| number(entry, 2) == Some(tag.to_u16().into()))?;
    let length = match number(entry + 2, 2)? {
        3 if value <= u32::from(u16::MAX) => 2,
        4 => 4,
        _ => return None,
    };
    let digits = if big_endian { value << (32 - 8 * length) } else { value };
    let digits = if big_endian { digits.to_be_bytes() } else { digits.to_le_bytes() };
    let place = entry + value_place;
    bytes.get_mut(place..place + length)?.copy_from_slice(&digits[..length]);
    Some(())
}
