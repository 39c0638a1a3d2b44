#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! Names follow the standard, ITU-T T.81. There are two paths through the crate:
//!
//! - Nearly all photos in training sets (sequential, gray or YCbCr with 4:4:4, 4:2:2, 4:4:0, or
//!   4:2:0, in one scan) take half the time that general-purpose decoders take. `scan` implements
//!   this path: `segment` removes stuffed bytes, `bits` and `block` read coefficients with the
//!   tables of `huffman` and `pairs`, `idct` converts them to samples, and `rows` converts these
//!   to pixels.
//! - For all other files, `whole` keeps the coefficients of the whole image until the last scan is
//!   read (`progressive`, `progress`), and `output` converts its samples to pixels.
//!
//! The memory use is that of the pixels, a second copy of the file's data, and a few rows; for
//! several scans, two bytes per coefficient and one per sample are added.

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

mod bits;
mod block;
mod coders;
mod color;
mod error;
mod frame;
mod header;
mod huffman;
mod idct;
mod intervals;
mod isa;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod layout;
mod markers;
mod output;
mod pairs;
mod progress;
mod progressive;
mod rows;
mod sampling;
mod scan;
mod segment;
mod standard;
mod tables;
mod upsample;
mod whole;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use color::ink;
pub use error::{Error, Result};
pub use header::Colors;

/// A file whose header has been read.
#[derive(Debug, Clone)]
pub struct Jpeg<'a> {
    header: header::Header<'a>,
}

impl<'a> Jpeg<'a> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// Returns [`Error::NotJpeg`], [`Error::Truncated`], [`Error::Segment`], or
    /// [`Error::Unsupported`].
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self { header: header::read(bytes)? })
    }

    /// Reads the header of a part of a TIFF, whose tables may be in another file, `tables`, and
    /// whose colors are determined by the TIFF and not by the part's own segments.
    ///
    /// # Errors
    /// Same as [`Jpeg::open`].
    pub fn open_abbreviated(
        tables: Option<&'a [u8]>,
        bytes: &'a [u8],
        colors: Colors,
    ) -> Result<Self> {
        Ok(Self { header: header::read_abbreviated(tables, bytes, colors)? })
    }

    /// Returns the number of pixels per row.
    pub fn width(&self) -> u32 {
        self.header.frame.width as u32
    }

    /// Returns the number of rows.
    pub fn height(&self) -> u32 {
        self.header.frame.height as u32
    }

    /// Returns the number of values per pixel: 1 or 3, or the number of components if colors are
    /// not converted.
    pub fn channels(&self) -> usize {
        self.header.channels()
    }

    /// Returns the Exif block, starting at its TIFF header. If there are several, the later ones
    /// continue the first one.
    pub fn exif(&self) -> Option<&[u8]> {
        self.header.exif.as_deref()
    }

    /// Returns the XMP packet; if there are several, the last one.
    pub fn xmp(&self) -> Option<&'a [u8]> {
        self.header.xmp
    }

    /// Decodes all pixels, `[height, width, channels]`. The memory for them may be allocated before
    /// the data is read, so check the size of the image first.
    ///
    /// # Errors
    /// Returns [`Error::Truncated`], [`Error::MissingTable`], [`Error::Oversubscribed`],
    /// [`Error::Corrupt`], [`Error::Restart`], [`Error::Segment`], or [`Error::Unsupported`].
    pub fn decode(&self) -> Result<Vec<u8>> {
        match self.header.usual() {
            Some(sampling) => isa::dispatch(scan::Scan { header: &self.header, sampling }),
            None => isa::dispatch(whole::Whole(&self.header)),
        }
    }
}
