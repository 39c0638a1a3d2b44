//! The tables that segments have set so far. Such segments may precede any scan (T.81, B.2.4).

use crate::error::{Error, Result};
use crate::huffman::Codes;
use crate::markers::{Segment, marker};
use crate::standard::{STANDARD_AC, STANDARD_DC};

/// The elements of a quantization table, row by row.
pub(crate) type Quantization = [i16; 64];

/// All tables, and the restart interval.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables<'a> {
    quantization: [Option<Quantization>; 4],
    dc: [Option<Codes<'a>>; 4],
    ac: [Option<Codes<'a>>; 4],
    /// Number of MCUs from one restart marker to the next; 0 if there are no markers.
    pub(crate) restart_interval: usize,
}

impl<'a> Tables<'a> {
    /// Records a segment if it contains tables, and returns whether it does.
    pub(crate) fn read(&mut self, Segment { marker, content }: Segment<'a>) -> Result<bool> {
        let broken = Error::Segment { marker };
        match marker {
            marker::HUFFMAN_TABLES => self.huffman(content).ok_or(broken)?,
            marker::QUANTIZATION_TABLES => self.quantization(content).ok_or(broken)?,
            marker::RESTART_INTERVAL => {
                let &[high, low] = content else { return Err(broken) };
                self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            _ => return Ok(false),
        }
        Ok(true)
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

    fn quantization(&mut self, mut segment: &[u8]) -> Option<()> {
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
                // The transforms work on 16 bits, in which a larger value wraps as in those of
                // libjpeg-turbo.
                table[usize::from(place)] = value as i16;
            }
            *self.quantization.get_mut(usize::from(kind & 15))? = Some(table);
            segment = rest;
        }
        Some(())
    }

    /// Returns the current quantization table with this number.
    pub(crate) fn quantization_table(&self, number: u8) -> Result<Quantization> {
        let table = self.quantization.get(usize::from(number)).copied().flatten();
        table.ok_or(Error::MissingTable { what: "quantization" })
    }

    /// Returns the table of DC coefficients with this number. If there is none and `standard` is
    /// true, returns the standard's own table, because frames of videos (Motion JPEG) omit the
    /// tables.
    pub(crate) fn dc(&self, number: u8, standard: bool) -> Result<Codes<'a>> {
        codes(&self.dc, number, standard.then_some(&STANDARD_DC))
    }

    /// Returns the table of AC coefficients; see [`Tables::dc`].
    pub(crate) fn ac(&self, number: u8, standard: bool) -> Result<Codes<'a>> {
        codes(&self.ac, number, standard.then_some(&STANDARD_AC))
    }
}

fn codes<'a>(
    tables: &[Option<Codes<'a>>; 4],
    number: u8,
    standard: Option<&[Codes<'static>; 2]>,
) -> Result<Codes<'a>> {
    let number = usize::from(number);
    let table = tables.get(number).copied().flatten();
    table.or_else(|| standard?.get(number).copied()).ok_or(Error::MissingTable { what: "huffman" })
}

/// The place of each coefficient in the block, row by row, in the order of the file (T.81, figure
/// A.6).
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
