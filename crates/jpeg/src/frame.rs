//! The frame, which states the size of the image and the sampling of its components (T.81, B.2.2),
//! and the headers of its scans (T.81, B.2.3).

use crate::error::{Error, Result};
use crate::markers::{Segment, marker};
use crate::sampling::Sampling;

/// Maximum number of blocks in an MCU (T.81, B.2.3).
const MOST_BLOCKS: usize = 10;

/// The header of a frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Whether coefficients are split over several scans.
    pub(crate) progressive: bool,
    /// One to four components.
    pub(crate) components: Vec<Component>,
}

/// A component of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Component {
    pub(crate) name: u8,
    /// Number of blocks per row in an MCU, 1 to 4.
    pub(crate) across: usize,
    /// Number of rows of blocks in an MCU, 1 to 4.
    pub(crate) down: usize,
    /// Number of its quantization table.
    pub(crate) quantization: u8,
}

/// Returns whether the marker begins a frame: all of 0xC0 to 0xCF do, except for three that have
/// other meanings.
pub(crate) fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

impl Frame {
    /// Reads the header of a frame.
    ///
    /// # Errors
    /// Returns [`Error::Segment`] or [`Error::Unsupported`].
    pub(crate) fn read(segment: Segment<'_>) -> Result<Self> {
        let broken = Error::Segment { marker: segment.marker };
        let Some((&[precision, height, h, width, w, count], rest)) =
            segment.content.split_first_chunk()
        else {
            return Err(broken);
        };
        let number = |high, low| usize::from(u16::from_be_bytes([high, low]));
        let (width, height) = (number(width, w), number(height, h));
        let (components, []) = rest.as_chunks::<3>() else { return Err(broken) };
        if components.len() != usize::from(count) || width == 0 {
            return Err(broken);
        }
        let component = |&[name, factors, quantization]: &[u8; 3]| {
            let (across, down) = (usize::from(factors >> 4), usize::from(factors & 15));
            Component { name, across, down, quantization }
        };
        let components: Vec<_> = components.iter().map(component).collect();
        let unsupported = match (segment.marker, precision, height) {
            (0xC3 | 0xC7 | 0xCB | 0xCF, ..) => Some("lossless coding"),
            (0xC9.., ..) => Some("arithmetic coding"),
            (0xC5.., ..) => Some("hierarchical coding"),
            (.., 0) => Some("a height that follows the data"),
            (_, 8, _) => None,
            _ => Some("other than 8 bits per sample"),
        };
        if let Some(what) = unsupported {
            return Err(Error::Unsupported { what });
        }
        let progressive = segment.marker == marker::PROGRESSIVE_FRAME;
        Self { width, height, progressive, components }.checked(broken)
    }

    /// Checks the components and their sampling factors.
    fn checked(mut self, broken: Error) -> Result<Self> {
        let factors = |component: &Component| [component.across, component.down];
        if self.components.iter().flat_map(factors).any(|factor| !(1..=4).contains(&factor)) {
            return Err(broken);
        }
        if !(1..=4).contains(&self.components.len()) {
            return Err(Error::Unsupported { what: "no components, or more than four" });
        }
        // A single component is not interleaved, whatever its factors are.
        if let [one] = self.components.as_mut_slice() {
            (one.across, one.down) = (1, 1);
        }
        let (across, down) = (self.across(), self.down());
        if self.components.iter().any(|one| across % one.across != 0 || down % one.down != 0) {
            return Err(Error::Unsupported {
                what: "sampling factors whose ratio is not an integer",
            });
        }
        Ok(self)
    }

    /// Returns the largest number of blocks per row in an MCU among the components.
    pub(crate) fn across(&self) -> usize {
        self.components.iter().map(|component| component.across).max().unwrap_or(1)
    }

    /// Returns the largest number of rows of blocks in an MCU among the components.
    pub(crate) fn down(&self) -> usize {
        self.components.iter().map(|component| component.down).max().unwrap_or(1)
    }

    /// Returns the number of MCUs per row, and the number of rows of MCUs, if all components are
    /// interleaved.
    pub(crate) fn mcus(&self) -> [usize; 2] {
        [self.width.div_ceil(8 * self.across()), self.height.div_ceil(8 * self.down())]
    }

    /// Returns the number of samples per row, and the number of rows, that the image uses of a
    /// component.
    pub(crate) fn samples(&self, component: &Component) -> [usize; 2] {
        let width = (self.width * component.across).div_ceil(self.across());
        [width, (self.height * component.down).div_ceil(self.down())]
    }

    /// Returns how the components are sampled, or `None` for an unusual ratio.
    pub(crate) fn sampling(&self) -> Option<Sampling> {
        match self.components.as_slice() {
            [_] => Some(Sampling::Gray),
            [y, cb, cr] if [cb.across, cb.down, cr.across, cr.down] == [1; 4] => {
                Sampling::of_luma((y.across, y.down))
            }
            _ => None,
        }
    }
}

/// The header of a scan.
#[derive(Debug, Clone)]
pub(crate) struct ScanHeader {
    pub(crate) components: Vec<Selected>,
    /// Numbers of its first and last coefficient, in the order of the file.
    pub(crate) spectrum: [usize; 2],
    /// The lowest bit of these coefficients in the previous scan, and in this one.
    pub(crate) bits: [u8; 2],
}

/// A component of a scan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selected {
    /// Index of the component in the frame.
    pub(crate) component: usize,
    /// Numbers of its Huffman tables.
    pub(crate) dc: u8,
    pub(crate) ac: u8,
}

impl ScanHeader {
    /// Reads the header of a scan of `frame`.
    ///
    /// # Errors
    /// Returns [`Error::Segment`] if the header is invalid.
    pub(crate) fn read(segment: &[u8], frame: &Frame) -> Result<Self> {
        let broken = Error::Segment { marker: marker::START_OF_SCAN };
        let Some((&count, rest)) = segment.split_first() else { return Err(broken) };
        let (selectors, &[bits]) = rest.as_chunks::<2>() else { return Err(broken) };
        let [selectors @ .., [first, last]] = selectors else { return Err(broken) };
        if !(1..=4).contains(&count) || selectors.len() != usize::from(count) {
            return Err(broken);
        }
        let mut components: Vec<Selected> = Vec::new();
        for (number, &[name, tables]) in selectors.iter().enumerate() {
            // The search is that of libjpeg, because some files give all components the same name.
            let named = frame.components.iter().skip(number).position(|one| one.name == name);
            let component = number + named.ok_or(broken.clone())?;
            if components.iter().any(|other| other.component == component) {
                return Err(broken);
            }
            components.push(Selected { component, dc: tables >> 4, ac: tables & 15 });
        }
        let scan = Self {
            components,
            spectrum: [usize::from(*first), usize::from(*last)],
            bits: [bits >> 4, bits & 15],
        };
        if scan.fits(frame) { Ok(scan) } else { Err(broken) }
    }

    /// Returns whether an MCU has at most the allowed number of blocks, and whether the
    /// coefficients and bits of a progressive scan are valid. Sequential scans contain all
    /// coefficients, and some files state nonsense for them.
    fn fits(&self, frame: &Frame) -> bool {
        let blocks = self.components.iter().map(|selected| {
            let component = &frame.components[selected.component];
            component.across * component.down
        });
        if self.components.len() > 1 && blocks.sum::<usize>() > MOST_BLOCKS {
            return false;
        }
        let [first, last] = self.spectrum;
        let spectrum = match first {
            0 => last == 0,
            _ => first <= last && last < 64 && self.components.len() == 1,
        };
        let bits = match self.bits {
            [0, low] => low <= 13,
            [high, low] => high == low + 1 && low <= 13,
        };
        !frame.progressive || spectrum && bits
    }
}
