//! Reads the segments before the image data: frame, tables, first scan, and application data.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::frame::{Frame, ScanHeader, is_frame};
use crate::markers::{Segment, marker, next_segment};
use crate::sampling::Sampling;
use crate::tables::Tables;

/// The meaning of a file's components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    /// Luminance only.
    Gray,
    /// Luminance, blue, and red; converted to RGB.
    YCbCr,
    /// Red, green, and blue.
    Rgb,
    /// Cyan, magenta, yellow, and black, with 255 for no ink; converted to RGB.
    Cmyk,
    /// Like CMYK, with the first three stored as YCbCr; converted to RGB.
    Ycck,
    /// Any meaning; the values are not converted.
    AsStored,
}

/// Everything that precedes the image data.
#[derive(Debug, Clone)]
pub(crate) struct Header<'a> {
    pub(crate) frame: Frame,
    pub(crate) colors: Colors,
    /// The tables at the time of the first scan.
    pub(crate) tables: Tables<'a>,
    /// The first scan.
    pub(crate) scan: ScanHeader,
    /// The Exif block, from its TIFF header on.
    pub(crate) exif: Option<Cow<'a, [u8]>>,
    pub(crate) xmp: Option<&'a [u8]>,
    /// The bytes after the header of the first scan.
    pub(crate) data: &'a [u8],
}

impl Header<'_> {
    /// Returns the number of values per pixel.
    pub(crate) fn channels(&self) -> usize {
        match self.colors {
            Colors::Gray => 1,
            Colors::YCbCr | Colors::Rgb | Colors::Cmyk | Colors::Ycck => 3,
            Colors::AsStored => self.frame.components.len(),
        }
    }

    /// Returns the sampling of a file of the usual kind, which is gray or YCbCr with all data in
    /// one scan; `None` for any other file.
    pub(crate) fn usual(&self) -> Option<Sampling> {
        let colors = matches!(self.colors, Colors::Gray | Colors::YCbCr);
        let scanned = self.scan.components.iter().map(|selected| selected.component);
        let whole = scanned.eq(0..self.frame.components.len());
        let usual = colors && whole && !self.frame.progressive;
        self.frame.sampling().filter(|_| usual)
    }
}

/// The contents of the segments so far.
#[derive(Debug, Default)]
struct Segments<'a> {
    frame: Option<Frame>,
    tables: Tables<'a>,
    exif: Option<Cow<'a, [u8]>>,
    xmp: Option<&'a [u8]>,
    jfif: bool,
    /// The color transform that an Adobe segment states.
    adobe: Option<u8>,
}

/// Reads a file up to the header of its first scan.
///
/// # Errors
/// Returns [`Error::NotJpeg`], [`Error::Truncated`], [`Error::Segment`], or [`Error::Unsupported`].
pub(crate) fn read(bytes: &[u8]) -> Result<Header<'_>> {
    let (frame, segments, scan, data) = read_with(bytes, Tables::default())?;
    let colors = segments.colors(&frame)?;
    Ok(segments.finish(frame, colors, scan, data))
}

/// Like [`read`], but for a file whose tables may be in another file, `tables`, and whose colors
/// are already known.
///
/// # Errors
/// Same as [`read`]; also returns an error if the number of components does not match the colors.
pub(crate) fn read_abbreviated<'a>(
    tables: Option<&'a [u8]>,
    bytes: &'a [u8],
    colors: Colors,
) -> Result<Header<'a>> {
    let tables = tables.map(read_tables).transpose()?.unwrap_or_default();
    let (frame, segments, scan, data) = read_with(bytes, tables)?;
    let expected = match colors {
        Colors::Gray => 1..=1,
        Colors::YCbCr | Colors::Rgb => 3..=3,
        Colors::Cmyk | Colors::Ycck => 4..=4,
        Colors::AsStored => 1..=4,
    };
    if !expected.contains(&frame.components.len()) {
        return Err(Error::Unsupported { what: "an unexpected number of components" });
    }
    Ok(segments.finish(frame, colors, scan, data))
}

/// Reads a file that contains only tables.
fn read_tables(bytes: &[u8]) -> Result<Tables<'_>> {
    let mut rest = bytes.strip_prefix(&[0xFF, marker::START_OF_IMAGE]).ok_or(Error::NotJpeg)?;
    let mut tables = Tables::default();
    loop {
        let (segment, behind) = next_segment(rest)?;
        if segment.marker == marker::END_OF_IMAGE {
            return Ok(tables);
        }
        tables.read(segment)?;
        rest = behind;
    }
}

type Parts<'a> = (Frame, Segments<'a>, ScanHeader, &'a [u8]);

fn read_with<'a>(bytes: &'a [u8], tables: Tables<'a>) -> Result<Parts<'a>> {
    let mut rest = bytes.strip_prefix(&[0xFF, marker::START_OF_IMAGE]).ok_or(Error::NotJpeg)?;
    let mut segments = Segments { tables, ..Segments::default() };
    loop {
        let (segment, behind) = next_segment(rest)?;
        let broken = Error::Segment { marker: segment.marker };
        match segment.marker {
            marker::START_OF_SCAN => {
                let frame = segments.frame.take().ok_or(broken)?;
                let scan = ScanHeader::read(segment.content, &frame)?;
                return Ok((frame, segments, scan, behind));
            }
            marker::END_OF_IMAGE => return Err(Error::Truncated),
            _ => segments.read(segment)?,
        }
        rest = behind;
    }
}

impl<'a> Segments<'a> {
    /// Records a segment before the first scan.
    fn read(&mut self, segment: Segment<'a>) -> Result<()> {
        let Segment { marker, content } = segment;
        match marker {
            _ if self.tables.read(segment)? => {}
            _ if is_frame(marker) => {
                if self.frame.is_some() {
                    return Err(Error::Segment { marker });
                }
                self.frame = Some(Frame::read(segment)?);
            }
            // libjpeg ignores a shorter segment.
            marker::JFIF => self.jfif |= content.len() >= 14 && content.starts_with(b"JFIF\0"),
            marker::EXIF_OR_XMP => self.metadata(content),
            marker::ADOBE => {
                let transform = content.strip_prefix(b"Adobe").and_then(|rest| rest.get(6));
                self.adobe = transform.copied().or(self.adobe);
            }
            _ => check_skipped(marker)?,
        }
        Ok(())
    }

    /// Records Exif and XMP as Pillow does: later Exif blocks continue the first one, and of
    /// several XMP packets, the last one counts.
    fn metadata(&mut self, content: &'a [u8]) {
        if let Some(block) = content.strip_prefix(b"Exif\0\0") {
            match &mut self.exif {
                Some(exif) => exif.to_mut().extend_from_slice(block),
                None => self.exif = Some(Cow::Borrowed(block)),
            }
        } else if let Some(packet) = content.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            self.xmp = Some(packet);
        }
    }

    fn finish(self, frame: Frame, colors: Colors, scan: ScanHeader, data: &'a [u8]) -> Header<'a> {
        let Self { tables, exif, xmp, .. } = self;
        Header { frame, colors, tables, scan, exif, xmp, data }
    }

    /// Returns the meaning of the components. The segments of some files contradict each other;
    /// like libjpeg, this gives precedence to JFIF, then to Adobe, and then to the names of the
    /// components.
    fn colors(&self, frame: &Frame) -> Result<Colors> {
        let named = |names: &[u8]| frame.components.iter().map(|one| &one.name).eq(names);
        Ok(match (frame.components.len(), self.adobe) {
            (1, _) => Colors::Gray,
            (3, _) if self.jfif => Colors::YCbCr,
            (3, Some(0)) => Colors::Rgb,
            (3, None) if named(b"RGB") => Colors::Rgb,
            (3, _) => Colors::YCbCr,
            (4, None | Some(0)) => Colors::Cmyk,
            (4, _) => Colors::Ycck,
            _ => return Err(Error::Unsupported { what: "two components" }),
        })
    }
}

/// Checks that a segment that contains no tables may be skipped.
///
/// # Errors
/// Returns [`Error::Segment`] if the marker may not occur at this position.
pub(crate) fn check_skipped(marker: u8) -> Result<()> {
    match marker {
        marker::JFIF..=marker::LAST_APPLICATION | marker::COMMENT => Ok(()),
        // The first is used only by arithmetic coding, and the second repeats the height.
        marker::ARITHMETIC_CONDITIONING | marker::NUMBER_OF_LINES => Ok(()),
        _ => Err(Error::Segment { marker }),
    }
}
