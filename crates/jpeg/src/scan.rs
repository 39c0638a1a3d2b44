//! The image data: MCU by MCU from bits to samples, row of MCUs by row of MCUs to pixels.

use crate::bits::Bits;
use crate::block::{self, Coder};
use crate::error::{Error, Result};
use crate::header::{Component, Header};
use crate::huffman::{Class, Table};
use crate::idct::{BLOCKS, Group};
use crate::isa::{Isa, Kernel};
use crate::pairs::Pairs;
use crate::rows::Rows;
use crate::segment::Segments;

/// MCUs that are decoded before their blocks are transformed, [`BLOCKS`] at a time.
const BATCH: usize = BLOCKS;
/// Most groups of blocks in a batch: four of luminance, two of colour.
const MOST_GROUPS: usize = 6;

const END_OF_IMAGE: u8 = 0xD9;

/// The decoding of a file whose header was read. Gives all pixels, row by row.
pub(crate) struct Scan<'a>(pub(crate) &'a Header<'a>);

impl Kernel for Scan<'_> {
    type Output = Result<Vec<u8>>;

    #[inline(always)]
    fn run(self, isa: impl Isa) -> Result<Vec<u8>> {
        let header = self.0;
        let (tables, places) = tables(&header.components)?;
        let mut coders = Vec::with_capacity(places.len());
        for place in places {
            let Tables { dc, ac, pairs } = &tables[place];
            coders.push(Coder { dc, ac, pairs, mean: 0 });
        }
        let sampling = header.sampling;
        let (across, down) = (sampling.across(), sampling.down());
        let mcus = header.width.div_ceil(8 * across);
        let mcu_rows = header.height.div_ceil(8 * down);

        let mut rows = Rows::new(header);
        let mut pixels = Vec::with_capacity(header.width * header.height * sampling.channels());
        let mut segments = Segments::new(header.data);
        let mut segment = Vec::with_capacity(header.data.len().min(1 << 20));
        let mut marker = segments.next(&mut segment)?;
        let mut bits = Bits::new(&segment);
        let (mut left, mut turn) = (header.restart_interval, 0);
        let mut groups = [const { Group::ZERO }; MOST_GROUPS];

        for mcu_row in 0..mcu_rows {
            let mut worst = 0;
            for start in (0..mcus).step_by(BATCH) {
                for mcu in 0..BATCH.min(mcus - start) {
                    if header.restart_interval > 0 {
                        if left == 0 {
                            if marker != 0xD0 + turn || bits.overrun() {
                                return Err(Error::Restart);
                            }
                            marker = segments.next(&mut segment)?;
                            bits = Bits::new(&segment);
                            (left, turn) = (header.restart_interval, (turn + 1) % 8);
                            for coder in &mut coders {
                                coder.mean = 0;
                            }
                        }
                        left -= 1;
                    }
                    let mut first = 0;
                    for (c, coder) in coders.iter_mut().enumerate() {
                        let (across, down) = if c == 0 { (across, down) } else { (1, 1) };
                        for y in 0..down {
                            for x in mcu * across..(mcu + 1) * across {
                                let group = &mut groups[first + y * across + x / BLOCKS];
                                let last = block::decode(&mut bits, coder, group, x % BLOCKS);
                                worst = worst.max(last);
                            }
                        }
                        first += across * down;
                    }
                }
                let mut first = 0;
                for (c, component) in header.components.iter().enumerate() {
                    let (across, down) = if c == 0 { (across, down) } else { (1, 1) };
                    for i in 0..across * down {
                        let group = &mut groups[first + i];
                        let tile = isa.transform(group, &component.quantisation);
                        *group = Group::ZERO;
                        let column = start / BATCH * across + i % across;
                        rows.planes[c].put(&tile, column, i / across);
                    }
                    first += across * down;
                }
            }
            if worst > 63 {
                return Err(Error::Corrupt);
            }
            if bits.overrun() {
                return Err(Error::Truncated);
            }
            rows.write(isa, mcu_row, &mut pixels);
        }
        if marker != END_OF_IMAGE {
            return Err(Error::Truncated);
        }
        Ok(pixels)
    }
}

/// The Huffman tables of a component.
struct Tables {
    dc: Table,
    ac: Table,
    pairs: Pairs,
}

/// All tables, each once, and for each component the place of its own: fewer stay in a nearer cache.
fn tables(components: &[Component<'_>]) -> Result<(Vec<Tables>, Vec<usize>)> {
    let (mut tables, mut places) = (Vec::new(), Vec::<usize>::new());
    for component in components {
        let same = |other: &Component<'_>| other.dc == component.dc && other.ac == component.ac;
        let known = components[..places.len()].iter().position(same);
        places.push(known.map_or(tables.len(), |before| places[before]));
        if known.is_none() {
            let dc = Table::new(&component.dc, Class::Dc)?;
            let ac = Table::new(&component.ac, Class::Ac)?;
            let pairs = Pairs::new(&ac);
            tables.push(Tables { dc, ac, pairs });
        }
    }
    Ok((tables, places))
}
