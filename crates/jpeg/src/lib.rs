#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! Names are those of the standard, ITU-T T.81. There are two ways through the crate:
//!
//! - What nearly all photographs of training sets are (sequential, gray or YCbCr with 4:4:4, 4:2:2,
//!   4:4:0 or 4:2:0, in one scan) takes half the time that general decoders take. `scan` leads
//!   through it: `segment` frees the data of stuffed bytes, `bits` and `block` read coefficients by
//!   the tables of `huffman` and `pairs`, `idct` makes samples of them, `rows` makes pixels.
//! - For all else, `whole` keeps the coefficients of the whole picture until the last scan is read
//!   (`progressive`, `progress`); `output` makes pixels of its samples.
//!
//! The memory taken is that of the pixels, of the file's data once more, and of a few rows; where there
//! are several scans, of two bytes for each coefficient and one for each sample.

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

/// A file whose header was read.
#[derive(Debug, Clone)]
pub struct Jpeg<'a> {
    header: header::Header<'a>,
}

impl<'a> Jpeg<'a> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`Error::NotJpeg`], [`Error::Truncated`], [`Error::Segment`], [`Error::Unsupported`].
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self { header: header::read(bytes)? })
    }

    /// Reads the header of a part of a TIFF, whose tables may stand in another file, `tables`, and
    /// whose colors are told by the TIFF and not by the part's own segments.
    ///
    /// # Errors
    /// As [`Jpeg::open`].
    pub fn open_abbreviated(
        tables: Option<&'a [u8]>,
        bytes: &'a [u8],
        colors: Colors,
    ) -> Result<Self> {
        Ok(Self { header: header::read_abbreviated(tables, bytes, colors)? })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.header.frame.width as u32
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.header.frame.height as u32
    }

    /// Values of a pixel: 1 or 3; those of the file where colors are left as they are.
    pub fn channels(&self) -> usize {
        self.header.channels()
    }

    /// The Exif block, from its TIFF header on. Of several, the later ones continue the first.
    pub fn exif(&self) -> Option<&[u8]> {
        self.header.exif.as_deref()
    }

    /// The XMP packet; of several, the last one.
    pub fn xmp(&self) -> Option<&'a [u8]> {
        self.header.xmp
    }

    /// All pixels, `[height, width, channels]`. They take memory as soon as this is called, so
    /// their number is to be looked at before.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::MissingTable`], [`Error::Oversubscribed`], [`Error::Corrupt`],
    /// [`Error::Restart`], [`Error::Segment`], [`Error::Unsupported`].
    pub fn decode(&self) -> Result<Vec<u8>> {
        match self.header.usual() {
            Some(sampling) => isa::dispatch(scan::Scan { header: &self.header, sampling }),
            None => isa::dispatch(whole::Whole(&self.header)),
        }
    }
}
