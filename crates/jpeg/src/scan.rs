//! The image data: MCU by MCU from bits to samples, row of MCUs by row of MCUs to pixels.

use crate::bits::{Bits, PADDING};
use crate::block::{self, Coder};
use crate::error::{Error, Result};
use crate::header::{Component, Header};
use crate::huffman::{Class, Table};
use crate::idct::Group;
use crate::isa::{Isa, Kernel};
use crate::layout::{BATCH, Layout, MOST_GROUPS};
use crate::pairs::Pairs;
use crate::rows::Rows;
use crate::segment::Segments;

const FIRST_RESTART: u8 = 0xD0;
const END_OF_IMAGE: u8 = 0xD9;

/// Pixels that a byte of a JPEG can hold at most: every block of 64 takes at least one bit, that of
/// its mean.
pub const MAX_PIXELS_PER_BYTE: usize = 64 * 8;

/// The decoding of a file whose header was read. Gives all pixels, row by row.
pub(crate) struct Scan<'a>(pub(crate) &'a Header<'a>);

impl Kernel for Scan<'_> {
    type Output = Result<Vec<u8>>;

    #[inline(always)]
    fn run(self, isa: impl Isa) -> Result<Vec<u8>> {
        let header = self.0;
        if header.pixels() > header.data.len().saturating_mul(MAX_PIXELS_PER_BYTE) {
            return Err(Error::Truncated);
        }
        let (tables, places) = tables(&header.components)?;
        let mut coders = coders(&tables, &places);
        let layout = Layout::new(header.sampling);
        let mcus = header.width.div_ceil(8 * header.sampling.across());
        let mcu_rows = header.height.div_ceil(8 * header.sampling.down());

        let mut rows = Rows::new(header);
        let mut pixels = Vec::with_capacity(header.pixels() * header.sampling.channels());
        let mut intervals = Intervals::new(header);
        let mut segment = Vec::with_capacity(header.data.len() + PADDING);
        intervals.next(&mut segment)?;
        let mut bits = Bits::new(&segment);
        let mut groups = [const { Group::ZERO }; MOST_GROUPS];

        for mcu_row in 0..mcu_rows {
            let mut last = 0;
            for batch in 0..mcus.div_ceil(BATCH) {
                for blocks in layout.mcus.iter().take(mcus - BATCH * batch) {
                    if intervals.left == 0 {
                        if bits.overrun() {
                            return Err(intervals.ended_early());
                        }
                        intervals.next(&mut segment)?;
                        bits = Bits::new(&segment);
                        coders.iter_mut().for_each(|coder| coder.mean = 0);
                    }
                    intervals.left -= 1;
                    for block in blocks {
                        let (coder, group) =
                            (&mut coders[block.component], &mut groups[block.group]);
                        last |= block::decode(&mut bits, coder, group, block.place);
                    }
                }
                for (group, target) in groups.iter_mut().zip(&layout.targets) {
                    let component = &header.components[target.component];
                    let tile = isa.transform(group, &component.quantisation);
                    *group = Group::ZERO;
                    let column = batch * layout.tiles[target.component] + target.column;
                    rows.planes[target.component].put(&tile, column, target.row);
                }
            }
            // Numbers of coefficients: all are below 64, or something was not.
            if last > 63 {
                return Err(Error::Corrupt);
            }
            if bits.overrun() {
                return Err(intervals.ended_early());
            }
            rows.write(isa, mcu_row, &mut pixels);
        }
        intervals.finish()?;
        Ok(pixels)
    }
}

/// The data between restart markers.
struct Intervals<'a> {
    segments: Segments<'a>,
    /// MCUs from one marker to the next.
    length: usize,
    /// MCUs until the next marker is due.
    left: usize,
    /// Segments so far.
    count: usize,
    /// The marker behind the last segment.
    marker: u8,
}

impl<'a> Intervals<'a> {
    fn new(header: &Header<'a>) -> Self {
        let length = match header.restart_interval {
            0 => usize::MAX,
            length => length,
        };
        Self { segments: Segments::new(header.data), length, left: 0, count: 0, marker: 0 }
    }

    /// Reads the next segment; before it, the markers count up to seven and begin again.
    #[cold]
    #[inline(never)]
    fn next(&mut self, segment: &mut Vec<u8>) -> Result<()> {
        let due = |count: usize| FIRST_RESTART + (count - 1) as u8 % 8;
        if self.count > 0 && self.marker != due(self.count) {
            return Err(Error::Restart);
        }
        self.marker = self.segments.next(segment)?;
        self.left = self.length;
        self.count += 1;
        Ok(())
    }

    /// What it means that the data of a segment is not enough: at the end of the image, that some is
    /// missing; elsewhere it may go on behind a marker that does not belong there.
    fn ended_early(&self) -> Error {
        if self.marker == END_OF_IMAGE { Error::Truncated } else { Error::Corrupt }
    }

    /// Whether the image ends here.
    fn finish(&self) -> Result<()> {
        if self.marker == END_OF_IMAGE { Ok(()) } else { Err(Error::Corrupt) }
    }
}

/// The Huffman tables of a component.
struct Tables {
    dc: Table,
    ac: Table,
    pairs: Pairs,
}

/// All tables, each once, and for each component the place of its own: fewer stay in a nearer
/// cache.
#[inline(always)]
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

fn coders<'a>(tables: &'a [Tables], places: &[usize]) -> Vec<Coder<'a>> {
    let coder = |&place: &usize| {
        let Tables { dc, ac, pairs } = &tables[place];
        Coder { dc, ac, pairs, mean: 0 }
    };
    places.iter().map(coder).collect()
}
