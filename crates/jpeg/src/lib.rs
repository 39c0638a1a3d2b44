#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! Names are those of the standard, ITU-T T.81. The way of the data: `segment` frees it of stuffed
//! bytes, `bits` and `block` read coefficients by the tables of `huffman` and `pairs`, `idct`
//! makes samples of them, `rows` makes pixels; `scan` leads through all of it. The memory taken is that of
//! the pixels, of the file's data once more, and of a few rows.

#![forbid(unsafe_code)]

mod bits;
mod block;
mod color;
pub mod error;
mod header;
mod huffman;
mod idct;
mod isa;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod layout;
mod pairs;
mod rows;
mod sampling;
mod scan;
mod segment;
mod upsample;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use error::{Error, Result};
pub use scan::MAX_PIXELS_PER_BYTE;

/// A file whose header was read and found to be for this crate.
#[derive(Debug, Clone)]
pub struct Jpeg<'a> {
    header: header::Header<'a>,
}

impl<'a> Jpeg<'a> {
    /// Reads the header of a file; none if the file is for another decoder.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Segment`], [`Error::MissingTable`]. The file may still be one
    /// that a more lenient decoder reads.
    pub fn open(bytes: &'a [u8]) -> Result<Option<Self>> {
        Ok(header::read(bytes)?.map(|header| Self { header }))
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.header.width as u32
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.header.height as u32
    }

    /// Values of a pixel: 1 or 3.
    pub fn channels(&self) -> usize {
        self.header.sampling.channels()
    }

    /// The Exif block, from its TIFF header on.
    pub fn exif(&self) -> Option<&'a [u8]> {
        self.header.exif
    }

    /// All pixels, `[height, width, channels]`. They take memory as soon as this is called, so
    /// their number is to be looked at before.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Oversubscribed`], [`Error::Corrupt`], [`Error::Restart`].
    pub fn decode(&self) -> Result<Vec<u8>> {
        isa::dispatch(scan::Scan(&self.header))
    }
}
