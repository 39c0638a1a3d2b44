//! The segments before the image data: frame, tables, scan (T.81, annex B).
//!
//! Whatever this crate does not decode, or what is unusual enough to be doubtful, ends in "not
//! mine" (`Ok(None)`), so that a more lenient decoder can have a look at it.

use crate::error::{Error, Result};
use crate::huffman::Codes;
use crate::sampling::Sampling;

/// Markers, by their second byte.
mod marker {
    pub(super) const BASELINE_FRAME: u8 = 0xC0;
    pub(super) const EXTENDED_FRAME: u8 = 0xC1;
    pub(super) const HUFFMAN_TABLES: u8 = 0xC4;
    pub(super) const START_OF_SCAN: u8 = 0xDA;
    pub(super) const QUANTISATION_TABLES: u8 = 0xDB;
    pub(super) const RESTART_INTERVAL: u8 = 0xDD;
    pub(super) const JFIF: u8 = 0xE0;
    pub(super) const EXIF: u8 = 0xE1;
    pub(super) const ADOBE: u8 = 0xEE;
    pub(super) const COMMENT: u8 = 0xFE;
}

/// Elements of a quantisation table, row by row.
pub(crate) type Quantisation = [i16; 64];

/// A component of the scan, with its tables.
#[derive(Debug, Clone)]
pub(crate) struct Component<'a> {
    pub(crate) quantisation: Quantisation,
    pub(crate) dc: Codes<'a>,
    pub(crate) ac: Codes<'a>,
}

/// All that is to be known before the image data.
#[derive(Debug, Clone)]
pub(crate) struct Header<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) sampling: Sampling,
    pub(crate) components: Vec<Component<'a>>,
    /// MCUs from one restart marker to the next; 0: there are none.
    pub(crate) restart_interval: usize,
    /// The Exif block, from its TIFF header on.
    pub(crate) exif: Option<&'a [u8]>,
    /// The bytes behind the header of the scan.
    pub(crate) data: &'a [u8],
}

impl Header<'_> {
    /// How many pixels there are.
    pub(crate) fn pixels(&self) -> usize {
        self.width * self.height
    }
}

/// What the segments so far have set.
#[derive(Debug, Default)]
struct Segments<'a> {
    frame: Option<Frame>,
    quantisation: [Option<Quantisation>; 4],
    dc: [Option<Codes<'a>>; 4],
    ac: [Option<Codes<'a>>; 4],
    restart_interval: usize,
    exif: Option<&'a [u8]>,
    jfif: bool,
    /// The transform of colours that an Adobe segment names.
    adobe: Option<u8>,
}

#[derive(Debug)]
struct Frame {
    width: usize,
    height: usize,
    /// Identifier, sampling factors, quantisation table of each component.
    components: Vec<[u8; 3]>,
}

/// Reads up to the first scan; none if the file is for another decoder.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Header<'_>>> {
    let [0xFF, 0xD8, rest @ ..] = bytes else { return Ok(None) };
    let mut rest = rest;
    let mut segments = Segments::default();
    while let Some((segment, behind)) = next_segment(rest)? {
        if segment.marker == marker::START_OF_SCAN {
            return segments.finish(segment.content, behind);
        }
        if segments.read(segment)?.is_none() {
            return Ok(None);
        }
        rest = behind;
    }
    Ok(None)
}

/// A marker and what belongs to it.
struct Segment<'a> {
    marker: u8,
    content: &'a [u8],
}

/// The next segment and what follows; none where no segment begins.
fn next_segment(bytes: &[u8]) -> Result<Option<(Segment<'_>, &[u8])>> {
    let fill = bytes.iter().take_while(|&&byte| byte == 0xFF).count();
    let rest = &bytes[fill..];
    let (Some(&marker), Some(length)) = (rest.first(), rest.get(1..3)) else {
        return Err(Error::Truncated);
    };
    if fill == 0 || !matches!(marker, 0xC0..=0xFE) || matches!(marker, 0xD0..=0xD9) {
        return Ok(None);
    }
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let length = length.checked_sub(2).ok_or(Error::Segment { marker })?;
    let (content, behind) = rest[3..].split_at_checked(length).ok_or(Error::Truncated)?;
    Ok(Some((Segment { marker, content }, behind)))
}

impl<'a> Segments<'a> {
    /// Takes note of a segment; none if it shows that the file is for another decoder.
    fn read(&mut self, segment: Segment<'a>) -> Result<Option<()>> {
        let Segment { marker, content: segment } = segment;
        let broken = Error::Segment { marker };
        match marker {
            marker::BASELINE_FRAME | marker::EXTENDED_FRAME => {
                if self.frame.is_some() {
                    return Ok(None);
                }
                self.frame = Frame::read(segment).ok_or(broken)?;
                return Ok(self.frame.is_some().then_some(()));
            }
            marker::HUFFMAN_TABLES => self.huffman(segment).ok_or(broken)?,
            marker::QUANTISATION_TABLES => self.quantisation(segment).ok_or(broken)?,
            marker::RESTART_INTERVAL => {
                let &[high, low] = segment else { return Err(broken) };
                self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            // A shorter segment is none to libjpeg.
            marker::JFIF => self.jfif |= segment.len() >= 14 && segment.starts_with(b"JFIF\0"),
            // The first one counts: to Pillow, others are more of its bytes.
            marker::EXIF => {
                let block = segment.strip_prefix(b"Exif\0\0").filter(|block| !block.is_empty());
                self.exif = self.exif.or(block);
            }
            marker::ADOBE => {
                let transform = segment.strip_prefix(b"Adobe").and_then(|rest| rest.get(6));
                self.adobe = transform.copied().or(self.adobe);
            }
            0xE0..=0xEF | marker::COMMENT => {}
            // Progressive, lossless and arithmetic frames, conditioning, hierarchies, late heights.
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    fn huffman(&mut self, mut segment: &'a [u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let symbols = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(symbols).filter(|_| symbols <= 256)?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(kind & 15))? = Some(Codes { counts, symbols });
            segment = rest;
        }
        Some(())
    }

    fn quantisation(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let bytes = match kind >> 4 {
                0 => 1,
                1 => 2,
                _ => return None,
            };
            let (elements, rest) = rest.split_at_checked(64 * bytes)?;
            let mut table = [0; 64];
            for (element, &place) in elements.chunks_exact(bytes).zip(&ZIGZAG) {
                let value = element.iter().fold(0_u16, |sum, &byte| sum << 8 | u16::from(byte));
                // Transforms work on 16 bits; a larger one wraps in them as in libjpeg-turbo's.
                table[usize::from(place)] = value as i16;
            }
            *self.quantisation.get_mut(usize::from(kind & 15))? = Some(table);
            segment = rest;
        }
        Some(())
    }

    /// The header, if `segment`, that of the scan, is of one scan of all components.
    fn finish(self, segment: &'a [u8], data: &'a [u8]) -> Result<Option<Header<'a>>> {
        let Some(frame) = &self.frame else {
            return Err(Error::Segment { marker: marker::START_OF_SCAN });
        };
        let Some((&count, rest)) = segment.split_first() else {
            return Err(Error::Segment { marker: marker::START_OF_SCAN });
        };
        let (selectors, parameters) = rest.as_chunks::<2>();
        let (selectors, spectral) = match selectors {
            [selectors @ .., [first, last]] => (selectors, [*first, *last]),
            [] => return Ok(None),
        };
        let all = selectors.len() == frame.components.len()
            && usize::from(count) == selectors.len()
            && selectors.iter().zip(&frame.components).all(|(of, component)| of[0] == component[0]);
        if !all || spectral != [0, 63] || parameters != [0] {
            return Ok(None);
        }
        let Some(sampling) = frame.sampling() else { return Ok(None) };
        if sampling != Sampling::Gray && !self.is_ycbcr(frame) {
            return Ok(None);
        }
        let components = selectors.iter().zip(&frame.components);
        Ok(Some(Header {
            width: frame.width,
            height: frame.height,
            sampling,
            components: components
                .map(|([_, tables], [_, _, quantisation])| self.component(*tables, *quantisation))
                .collect::<Result<_>>()?,
            restart_interval: self.restart_interval,
            exif: self.exif,
            data,
        }))
    }

    /// Whether three components are luminance and colour. Segments contradict each other in some
    /// files; libjpeg believes JFIF first, then Adobe, and then the components' names.
    fn is_ycbcr(&self, frame: &Frame) -> bool {
        match (self.jfif, self.adobe) {
            (true, _) => true,
            (false, Some(transform)) => transform == 1,
            (false, None) => !frame.components.iter().map(|component| &component[0]).eq(b"RGB"),
        }
    }

    fn component(&self, tables: u8, quantisation: u8) -> Result<Component<'a>> {
        let codes = |tables: &[Option<Codes<'a>>; 4], place: u8| {
            let table = tables.get(usize::from(place)).copied().flatten();
            table.ok_or(Error::MissingTable { what: "huffman" })
        };
        let table = self.quantisation.get(usize::from(quantisation)).copied().flatten();
        Ok(Component {
            quantisation: table.ok_or(Error::MissingTable { what: "quantisation" })?,
            dc: codes(&self.dc, tables >> 4)?,
            ac: codes(&self.ac, tables & 15)?,
        })
    }
}

impl Frame {
    /// The outer none: it is broken; the inner: it is for another decoder.
    fn read(segment: &[u8]) -> Option<Option<Self>> {
        let (&[precision, height, h, width, w, count], rest) = segment.split_first_chunk()?;
        let (components, []) = rest.as_chunks::<3>() else { return None };
        let number = |high, low| usize::from(u16::from_be_bytes([high, low]));
        let frame = Self {
            width: number(width, w),
            height: number(height, h),
            components: components.to_vec(),
        };
        if components.len() != usize::from(count) || frame.width == 0 {
            return None;
        }
        // Without a height, it comes behind the scan.
        let mine = precision == 8 && frame.height > 0 && matches!(components.len(), 1 | 3);
        Some(mine.then_some(frame))
    }

    /// How the components are sampled; none for other ratios than the usual ones.
    fn sampling(&self) -> Option<Sampling> {
        let factors = |component: &[u8; 3]| (component[1] >> 4, component[1] & 15);
        match self.components.as_slice() {
            // A component by itself is not interleaved, whatever its factors are.
            [gray] => matches!(factors(gray), (1..=4, 1..=4)).then_some(Sampling::Gray),
            [y, cb, cr] if factors(cb) == (1, 1) && factors(cr) == (1, 1) => {
                Sampling::of_luma(factors(y))
            }
            _ => None,
        }
    }
}

/// Places of coefficients, row by row, in the order of the file (T.81, figure A.6).
pub(crate) const ZIGZAG: [u8; 64] = {
    let mut places = [0; 64];
    let (mut row, mut column, mut i) = (0_usize, 0_usize, 0);
    while i < 64 {
        places[i] = (8 * row + column) as u8;
        let up = (row + column) % 2 == 0;
        match (up, row, column) {
            (true, _, 7) => row += 1,
            (true, 0, _) => column += 1,
            (true, ..) => (row, column) = (row - 1, column + 1),
            (false, 7, _) => column += 1,
            (false, _, 0) => row += 1,
            (false, ..) => (row, column) = (row + 1, column - 1),
        }
        i += 1;
    }
    places
};

#[cfg(test)]
mod tests {
    use super::ZIGZAG;

    #[test]
    fn coefficients_come_in_the_order_of_the_standard() {
        assert_eq!(ZIGZAG[..12], [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25]);
        assert_eq!(ZIGZAG[52..], [45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63][1..]);
        let mut sorted = ZIGZAG;
        sorted.sort();
        assert!(sorted.iter().enumerate().all(|(i, &place)| usize::from(place) == i));
    }
}
