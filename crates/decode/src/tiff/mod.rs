//! TIFF of all kinds that Pillow reads, and of any number of channels.
//!
//! Tags and most data are read by the `tiff` crate, which has an opinion on what colors mean, and
//! reads some kinds wrongly or not at all: where the first three channels are called red, green and
//! blue, it leaves out the others; where channels lie in tiles of their own, it counts the rows of
//! the last tiles wrongly; it knows no palettes, no subsampled color and no order of bits. Such a file
//! is shown to it as what it reads well, channels that mean nothing ([`edit`]), and [`colors`] makes
//! of them what they stand for. What is compressed as JPEG is read by our own decoder
//! ([`compressed`]).

mod colors;
mod compressed;
mod edit;

use std::io::Cursor;

use image::error::{
    DecodingError, LimitError, LimitErrorKind, UnsupportedError, UnsupportedErrorKind,
};
use image::metadata::Orientation;
use image::{ImageError, ImageFormat};
use tiff::TiffError;
use tiff::decoder::{Decoder, Limits};
use tiff::tags::{CompressionMethod, PhotometricInterpretation, PlanarConfiguration, Tag};

use crate::orientation::{self, Metadata};
use crate::parts::{Failure, MAX_IMAGE_BYTES, Parts, check_size};
use crate::raw::{Layout, Values};

/// Most bytes of one tag; places of tiles are the longest.
const MAX_TAG_BYTES: usize = 16 << 20;

/// The tag of an XMP packet.
const XMP: Tag = Tag::Unknown(700);

/// What the tags say.
struct Head {
    width: u32,
    height: u32,
    /// Bits of a value.
    bits: u16,
    channels: u16,
    colors: PhotometricInterpretation,
    compression: CompressionMethod,
    alpha: bool,
    /// Each channel lies by itself.
    planar: bool,
    /// The bits of each byte stand the other way round.
    reversed: bool,
    /// Values are stored as differences.
    predicted: bool,
    /// Pixels in a row, and rows, that have one value of color together.
    shared: [u32; 2],
    /// Width and height of tiles, if there are such.
    tile: Option<[u32; 2]>,
    rows_per_strip: u32,
    orientation: Orientation,
}

impl Head {
    /// Whether several pixels have one value of color together, pixel by pixel and not as JPEG.
    fn is_subsampled(&self) -> bool {
        let jpeg = self.compression == CompressionMethod::ModernJPEG;
        self.colors == PhotometricInterpretation::YCbCr && self.shared != [1, 1] && !jpeg
    }
}

type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

/// Reads the first page.
///
/// # Errors
/// [`Failure`] of all kinds.
pub(crate) fn read(bytes: &[u8]) -> Result<Parts, Failure> {
    let mut decoder = open(bytes)?;
    let head = read_head(&mut decoder, bytes)?;
    let size = u64::from(head.width) * u64::from(head.height) * u64::from(head.channels);
    check_size(head.width, head.height, size * u64::from(head.bits) / 8)?;
    let (values, layout) = if head.compression == CompressionMethod::ModernJPEG {
        compressed::read(bytes, &mut decoder, &head)?
    } else {
        let edited = edit::readable(bytes, &mut decoder, &head)?;
        read_values(open(edited.as_deref().unwrap_or(bytes))?, &head)?
    };
    let (values, layout) = colors::convert(values, layout, &mut decoder, &head)?;
    Ok((values, layout, head.orientation))
}

fn open(bytes: &[u8]) -> Result<Reader<'_>, Failure> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_IMAGE_BYTES as usize;
    limits.intermediate_buffer_size = MAX_IMAGE_BYTES as usize;
    limits.ifd_value_size = MAX_TAG_BYTES;
    Ok(Decoder::new(Cursor::new(bytes)).map_err(failed)?.with_limits(limits))
}

fn read_head(decoder: &mut Reader<'_>, bytes: &[u8]) -> Result<Head, Failure> {
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let mut numbers = |tag| decoder.find_tag_unsigned_vec::<u32>(tag).map_err(failed);
    let extra = numbers(Tag::ExtraSamples)?;
    let shared = numbers(Tag::ChromaSubsampling)?;
    let mut number = |tag, default: u32| -> Result<u32, Failure> {
        Ok(numbers(tag)?.and_then(|all| all.first().copied()).unwrap_or(default))
    };
    let tile = [number(Tag::TileWidth, 0)?, number(Tag::TileLength, 0)?];
    let rows_per_strip = number(Tag::RowsPerStrip, height)?;
    let mut short = |tag, default| -> Result<u16, Failure> {
        Ok(u16::try_from(number(tag, default)?).unwrap_or(u16::MAX))
    };
    let channels = short(Tag::SamplesPerPixel, 1)?;
    let bits = short(Tag::BitsPerSample, 1)?;
    let colors = short(Tag::PhotometricInterpretation, 0)?;
    let colors = PhotometricInterpretation::from_u16(colors)
        .ok_or_else(|| unsupported(format!("colors of kind {colors}")))?;
    let compression = CompressionMethod::from_u16_exhaustive(short(Tag::Compression, 1)?);
    let planar = short(Tag::PlanarConfiguration, 1)? == PlanarConfiguration::Planar.to_u16();
    let (reversed, predicted) = (short(Tag::FillOrder, 1)? == 2, short(Tag::Predictor, 1)? != 1);
    let xmp = decoder.find_tag(XMP).ok().flatten().and_then(|packet| packet.into_u8_vec().ok());
    // 1 and 2 are two ways to store alpha. Four channels that are called RGB are taken for it.
    let rgb = colors == PhotometricInterpretation::RGB;
    let alpha = matches!(extra.as_deref(), Some([1 | 2])) || rgb && channels == 4;
    Ok(Head {
        width,
        height,
        bits,
        channels,
        colors,
        compression,
        alpha,
        planar,
        reversed,
        predicted,
        shared: match shared.as_deref() {
            Some(&[across, down]) => [across, down],
            _ => [2, 2],
        },
        tile: tile.iter().all(|&side| side > 0).then_some(tile),
        rows_per_strip,
        orientation: orientation::of(&Metadata { exif: Some(bytes), xmp: xmp.as_deref() }),
    })
}

/// The values as they are stored; those of less than 8 bits with a byte each.
fn read_values(mut decoder: Reader<'_>, head: &Head) -> Result<(Values, Layout), Failure> {
    let color = decoder.colortype().map_err(failed)?;
    let (width, rows) = decoder.dimensions().map_err(failed)?;
    let size = decoder.image_buffer_layout().map_err(failed)?;
    check_size(head.width, head.height, size.complete_len as u64)?;
    let packed = color.bit_depth() < 8;
    if packed && (color.num_samples() > 1 || !matches!(color.bit_depth(), 1 | 2 | 4)) {
        let what = format!("{} channels of {} bits", color.num_samples(), color.bit_depth());
        return Err(unsupported(what));
    }
    let mut values = Values::U8(Vec::new());
    decoder.read_image_to_buffer(&mut values).map_err(failed)?;
    if packed && let Values::U8(bytes) = &values {
        values = Values::U8(colors::unpack(bytes, width as usize, color.bit_depth()));
    }
    let layout = Layout {
        width,
        height: if head.is_subsampled() { rows } else { head.height },
        channels: usize::from(color.num_samples()),
        plane: (size.planes > 1).then_some(width as usize * rows as usize),
        alpha: head.alpha,
    };
    Ok((values, layout))
}

/// The error for what is not read.
fn unsupported(what: String) -> Failure {
    let kind = UnsupportedErrorKind::GenericFeature(what);
    let format = ImageFormat::Tiff.into();
    ImageError::Unsupported(UnsupportedError::from_format_and_kind(format, kind)).into()
}

fn failed(error: TiffError) -> Failure {
    match error {
        TiffError::IoError(error) => ImageError::IoError(error).into(),
        TiffError::LimitsExceeded => {
            ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory)).into()
        }
        TiffError::UnsupportedError(what) => unsupported(what.to_string()),
        other => broken(other),
    }
}

/// The error for what is damaged.
fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    ImageError::Decoding(DecodingError::new(ImageFormat::Tiff.into(), reason)).into()
}
