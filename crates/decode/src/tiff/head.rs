//! The tags of a file, and the errors of reading it.

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
use crate::parts::{Failure, MAX_IMAGE_BYTES};

/// Maximum size of a tag in bytes; offsets of tiles are the longest.
const MAX_TAG_BYTES: usize = 16 << 20;

/// The tag of an XMP packet.
const XMP: Tag = Tag::Unknown(700);

/// The values of the relevant tags.
pub(super) struct Head {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Number of bits per value.
    pub(super) bits: u16,
    pub(super) channels: u16,
    pub(super) colors: PhotometricInterpretation,
    pub(super) compression: CompressionMethod,
    pub(super) alpha: bool,
    /// Whether each channel is stored separately.
    pub(super) planar: bool,
    /// Whether the bits of each byte are in reverse order.
    pub(super) reversed: bool,
    /// Whether values are stored as differences.
    pub(super) predicted: bool,
    /// Whether the file claims to store differences although its compression does not support them.
    pub(super) predictor_ignored: bool,
    /// Width and height of the blocks of pixels that share their color values, in YCbCr.
    pub(super) shared: [u32; 2],
    /// Width and height of tiles, if there are tiles.
    pub(super) tile: Option<[u32; 2]>,
    pub(super) rows_per_strip: u32,
    pub(super) orientation: Orientation,
}

impl Head {
    /// Returns whether several pixels share their color values in data that is not JPEG. JPEG
    /// handles subsampling itself.
    pub(super) fn is_subsampled(&self) -> bool {
        let jpeg = self.compression == CompressionMethod::ModernJPEG;
        self.colors == PhotometricInterpretation::YCbCr && self.shared != [1, 1] && !jpeg
    }
}

pub(super) type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

pub(super) fn open(bytes: &[u8]) -> Result<Reader<'_>, Failure> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_IMAGE_BYTES as usize;
    limits.intermediate_buffer_size = MAX_IMAGE_BYTES as usize;
    limits.ifd_value_size = MAX_TAG_BYTES;
    Ok(Decoder::new(Cursor::new(bytes)).map_err(failed)?.with_limits(limits))
}

pub(super) fn read_head(decoder: &mut Reader<'_>, bytes: &[u8]) -> Result<Head, Failure> {
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
        .ok_or_else(|| unsupported(format!("photometric interpretation {colors}")))?;
    let compression = CompressionMethod::from_u16_exhaustive(short(Tag::Compression, 1)?);
    let planar = short(Tag::PlanarConfiguration, 1)? == PlanarConfiguration::Planar.to_u16();
    let (reversed, predictor) = (short(Tag::FillOrder, 1)? == 2, short(Tag::Predictor, 1)? != 1);
    // As in libtiff, the tag has no meaning with other compressions.
    let takes_predictor = matches!(
        compression,
        CompressionMethod::LZW | CompressionMethod::Deflate | CompressionMethod::OldDeflate
    );
    let xmp = decoder.find_tag(XMP).ok().flatten().and_then(|packet| packet.into_u8_vec().ok());
    // 1 and 2 are the two ways to store alpha. Four channels of RGB are taken to include alpha.
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
        predicted: predictor && takes_predictor,
        predictor_ignored: predictor && !takes_predictor,
        shared: match shared.as_deref() {
            Some(&[across, down]) => [across, down],
            _ => [2, 2],
        },
        tile: tile.iter().all(|&side| side > 0).then_some(tile),
        rows_per_strip,
        orientation: orientation::of(&Metadata { exif: Some(bytes), xmp: xmp.as_deref() }),
    })
}

/// Returns the error for a kind of file that is not supported.
pub(super) fn unsupported(what: String) -> Failure {
    let kind = UnsupportedErrorKind::GenericFeature(what);
    let format = ImageFormat::Tiff.into();
    ImageError::Unsupported(UnsupportedError::from_format_and_kind(format, kind)).into()
}

pub(super) fn failed(error: TiffError) -> Failure {
    match error {
        TiffError::IoError(error) => ImageError::IoError(error).into(),
        TiffError::LimitsExceeded => {
            ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory)).into()
        }
        TiffError::UnsupportedError(what) => unsupported(what.to_string()),
        other => broken(other),
    }
}

/// Returns the error for a damaged file.
pub(super) fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    ImageError::Decoding(DecodingError::new(ImageFormat::Tiff.into(), reason)).into()
}
