//! Decodes images of all kinds except the usual one: several scans, sequential or progressive, with
//! any sampling and any colors.
//!
//! The coefficients of the whole image are kept, because scans provide them in parts. Then all
//! samples of all components are kept, because only the last scan completes them.

use crate::bits::Bits;
use crate::block::{self, Coder};
use crate::coders::{Component, Shared};
use crate::error::{Error, Result};
use crate::frame::{Frame, ScanHeader};
use crate::header::{Header, check_skipped};
use crate::huffman::{Class, Table};
use crate::idct::{BLOCKS, Group};
use crate::intervals::Intervals;
use crate::isa::{Isa, Kernel};
use crate::markers::{marker, next_segment};
use crate::output::{Output, Samples};
use crate::progress::Progress;
use crate::progressive::{self, Spectrum};
use crate::tables::{Quantization, Tables};

/// Maximum number of scans of an image. Each scan visits every block, even if it has no data for
/// it; encoders write about a dozen.
const MOST_SCANS: usize = 256;

/// Decodes a file whose header has been read, and returns all pixels, row by row.
pub(crate) struct Whole<'a>(pub(crate) &'a Header<'a>);

impl Kernel for Whole<'_> {
    type Output = Result<Vec<u8>>;

    #[inline(always)]
    fn run(self, isa: impl Isa) -> Result<Vec<u8>> {
        let header = self.0;
        let frame = &header.frame;
        // Every block takes at least one bit, for its DC coefficient.
        let blocks = frame.components.iter().map(|component| {
            let [width, height] = frame.samples(component);
            width.div_ceil(8) * height.div_ceil(8)
        });
        if blocks.sum::<usize>() > header.data.len().saturating_mul(8) {
            return Err(Error::Truncated);
        }
        let mut coefficients = Coefficients::of_all(frame);
        let quantization = read_scans(header, &mut coefficients)?;
        let mut samples = Vec::new();
        for ((component, grid), table) in
            frame.components.iter().zip(coefficients).zip(&quantization)
        {
            let mut plane = Samples::new(grid.groups_across, grid.rows, frame.samples(component));
            for (place, group) in grid.groups.iter().enumerate() {
                let (row, column) = (place / grid.groups_across, place % grid.groups_across);
                plane.put(&isa.transform(group, table), column, row);
            }
            samples.push(plane);
        }
        let mut output = Output::new(header, samples);
        let mut pixels = Vec::with_capacity(frame.width * frame.height * header.channels());
        for y in 0..frame.height {
            output.write(isa, y, &mut pixels);
        }
        Ok(pixels)
    }
}

/// The coefficients of a component.
struct Coefficients {
    groups: Vec<Group>,
    groups_across: usize,
    /// Number of rows of blocks.
    rows: usize,
    /// Number of blocks per row, and number of rows of blocks, in a scan of this component alone.
    alone: [usize; 2],
}

impl Coefficients {
    fn of_all(frame: &Frame) -> Vec<Self> {
        let [mcus, mcu_rows] = frame.mcus();
        let grid = |component: &crate::frame::Component| {
            let groups_across = (mcus * component.across).div_ceil(BLOCKS);
            let rows = mcu_rows * component.down;
            let groups = vec![Group::ZERO; groups_across * rows];
            let alone = frame.samples(component).map(|samples| samples.div_ceil(8));
            Self { groups, groups_across, rows, alone }
        };
        frame.components.iter().map(grid).collect()
    }

    /// Returns the group that contains a block, and the place of the block in it.
    #[inline(always)]
    fn block(&mut self, row: usize, column: usize) -> (&mut Group, usize) {
        (&mut self.groups[row * self.groups_across + column / BLOCKS], column % BLOCKS)
    }
}

/// Reads all scans, and the segments between them, up to the end marker. Returns the quantization
/// table of each component at the time of its first scan.
#[inline(always)]
fn read_scans(header: &Header<'_>, grids: &mut [Coefficients]) -> Result<Vec<Quantization>> {
    let frame = &header.frame;
    let mut tables = header.tables.clone();
    let mut quantization = vec![None; frame.components.len()];
    let mut progress = Progress::new(frame);
    let (mut scan, mut data) = (header.scan.clone(), header.data);
    for _ in 0..MOST_SCANS {
        progress.note(&scan)?;
        for selected in &scan.components {
            let number = frame.components[selected.component].quantization;
            let table = &mut quantization[selected.component];
            *table = Some(table.take().map_or_else(|| tables.quantization_table(number), Ok)?);
        }
        let mut reader = Reader {
            frame,
            grids,
            scan: &scan,
            intervals: Intervals::new(data, tables.restart_interval),
        };
        match (frame.progressive, scan.spectrum[0]) {
            (false, _) => reader.sequential(&Component::of_scan(header, &tables, &scan)?)?,
            (true, 0) => reader.dc(&tables)?,
            (true, _) => reader.spectrum(&tables)?,
        }
        let mut rest = reader.intervals.behind();
        loop {
            let (segment, behind) = next_segment(rest)?;
            match segment.marker {
                marker::END_OF_IMAGE => {
                    progress.expect_all()?;
                    return quantization.into_iter().collect::<Option<_>>().ok_or(Error::Truncated);
                }
                marker::START_OF_SCAN => {
                    (scan, data) = (ScanHeader::read(segment.content, frame)?, behind);
                    break;
                }
                _ if tables.read(segment)? => {}
                marker => check_skipped(marker)?,
            }
            rest = behind;
        }
    }
    Err(Error::Unsupported { what: "more than 256 scans" })
}

/// Reads one scan.
struct Reader<'a, 'b> {
    frame: &'a Frame,
    grids: &'a mut [Coefficients],
    scan: &'a ScanHeader,
    intervals: Intervals<'b>,
}

impl Reader<'_, '_> {
    #[inline(always)]
    fn sequential(&mut self, components: &[Component<'_>]) -> Result<()> {
        let shared = Shared::new(components)?;
        let mut coders = shared.coders();
        self.each_block(coders.as_mut_slice(), |bits, coders, part, (group, place)| {
            block::decode(bits, &mut coders[part], group, place) < 64
        })
    }

    /// Reads a progressive scan of DC coefficients.
    #[inline(always)]
    fn dc(&mut self, tables: &Tables<'_>) -> Result<()> {
        let [high, low] = self.scan.bits;
        if high > 0 {
            return self.each_block(&mut (), |bits, (), _, block| {
                progressive::next_dc(bits, low, block);
                true
            });
        }
        let table = |number| Table::new(&tables.dc(number, false)?, Class::Dc);
        let selected = self.scan.components.iter();
        let tables = selected.map(|one| table(one.dc)).collect::<Result<Vec<_>>>()?;
        self.each_block(&mut Predictions([0; 4]), |bits, predictions, part, block| {
            progressive::first_dc(bits, &tables[part], &mut predictions.0[part], low, block)
        })
    }

    /// Reads a progressive scan of AC coefficients, which belong to a single component.
    #[inline(always)]
    fn spectrum(&mut self, tables: &Tables<'_>) -> Result<()> {
        let ([first, last], [high, low]) = (self.scan.spectrum, self.scan.bits);
        let number = self.scan.components.first().map_or(0, |selected| selected.ac);
        let table = &Table::new(&tables.ac(number, false)?, Class::Progressive)?;
        let scan = &Spectrum { table, first, last, low };
        if high > 0 {
            self.each_block(&mut Run(0), |bits, run, _, block| {
                progressive::next_coefficients(bits, scan, &mut run.0, block)
            })
        } else {
            self.each_block(&mut Run(0), |bits, run, _, block| {
                progressive::first_coefficients(bits, scan, &mut run.0, block)
            })
        }
    }

    /// Calls `decode` for each block of the scan, in its order, with the bits, the state, the
    /// number of the component in the scan, and the place of the block's coefficients. `decode`
    /// returns whether the data is a valid block.
    #[inline(always)]
    fn each_block<S: State + ?Sized>(
        &mut self,
        state: &mut S,
        decode: impl Fn(&mut Bits<'_>, &mut S, usize, (&mut Group, usize)) -> bool,
    ) -> Result<()> {
        let alone = self.scan.components.len() == 1;
        let [mcus, mcu_rows] = match self.scan.components.first() {
            Some(one) if alone => self.grids[one.component].alone,
            _ => self.frame.mcus(),
        };
        let mut segment = Vec::new();
        self.intervals.next(&mut segment)?;
        let mut bits = Bits::new(&segment);
        let mut sound = true;
        for mcu_row in 0..mcu_rows {
            for mcu in 0..mcus {
                if self.intervals.left == 0 {
                    if bits.overrun() {
                        return Err(self.intervals.ended_early());
                    }
                    self.intervals.next(&mut segment)?;
                    bits = Bits::new(&segment);
                    state.restart();
                }
                self.intervals.left -= 1;
                for (part, selected) in self.scan.components.iter().enumerate() {
                    let component = &self.frame.components[selected.component];
                    let grid = &mut self.grids[selected.component];
                    let (across, down) =
                        if alone { (1, 1) } else { (component.across, component.down) };
                    for row in down * mcu_row..down * (mcu_row + 1) {
                        for column in across * mcu..across * (mcu + 1) {
                            sound &= decode(&mut bits, state, part, grid.block(row, column));
                        }
                    }
                }
            }
            if !sound {
                return Err(Error::Corrupt);
            }
            if bits.overrun() {
                return Err(self.intervals.ended_early());
            }
        }
        Ok(())
    }
}

/// State that is reset after a restart marker.
trait State {
    fn restart(&mut self);
}

impl State for () {
    fn restart(&mut self) {}
}

impl State for [Coder<'_>] {
    fn restart(&mut self) {
        self.iter_mut().for_each(|coder| coder.prediction = 0);
    }
}

/// The DC coefficient of the previous block of each component.
struct Predictions([i16; 4]);

impl State for Predictions {
    fn restart(&mut self) {
        self.0 = [0; 4];
    }
}

/// The number of blocks whose remaining coefficients are zero.
struct Run(u32);

impl State for Run {
    fn restart(&mut self) {
        self.0 = 0;
    }
}
