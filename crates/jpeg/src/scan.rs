//! Decodes the image data of usual files: from bits to samples MCU by MCU, and from samples to
//! pixels by rows of MCUs.

use crate::bits::{Bits, PADDING};
use crate::block;
use crate::coders::{Component, Shared};
use crate::error::{Error, Result};
use crate::header::Header;
use crate::idct::Group;
use crate::intervals::Intervals;
use crate::isa::{Isa, Kernel};
use crate::layout::{BATCH, Layout, MOST_GROUPS};
use crate::markers::expect_end;
use crate::rows::Rows;
use crate::sampling::Sampling;

/// Maximum number of pixels per byte of a JPEG: every block of 64 pixels takes at least one bit,
/// for its DC coefficient.
const MAX_PIXELS_PER_BYTE: usize = 64 * 8;

/// Decodes a file of the usual kind ([`Header::usual`]) whose header has been read, and returns all
/// pixels, row by row.
pub(crate) struct Scan<'a> {
    pub(crate) header: &'a Header<'a>,
    pub(crate) sampling: Sampling,
}

impl Kernel for Scan<'_> {
    type Output = Result<Vec<u8>>;

    #[expect(
        clippy::too_many_lines,
        reason = "what its loops share, above all the bits and the coders, stays in registers"
    )]
    #[inline(always)]
    fn run(self, isa: impl Isa) -> Result<Vec<u8>> {
        let Self { header, sampling } = self;
        let frame = &header.frame;
        let pixel_count = frame.width * frame.height;
        if pixel_count > header.data.len().saturating_mul(MAX_PIXELS_PER_BYTE) {
            return Err(Error::Truncated);
        }
        let components = Component::of_scan(header, &header.tables, &header.scan)?;
        let shared = Shared::new(&components)?;
        let mut coders = shared.coders();
        let layout = Layout::new(sampling);
        let [mcus, mcu_rows] = frame.mcus();

        let mut rows = Rows::new(frame, sampling);
        let mut pixels = Vec::with_capacity(pixel_count * sampling.channels());
        let mut intervals = Intervals::new(header.data, header.tables.restart_interval);
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
                        coders.iter_mut().for_each(|coder| coder.prediction = 0);
                    }
                    intervals.left -= 1;
                    for block in blocks {
                        let (coder, group) =
                            (&mut coders[block.component], &mut groups[block.group]);
                        last |= block::decode(&mut bits, coder, group, block.place);
                    }
                }
                for (group, target) in groups.iter_mut().zip(&layout.targets) {
                    let component = &components[target.component];
                    let tile = isa.transform(group, &component.quantization);
                    *group = Group::ZERO;
                    let column = batch * layout.tiles[target.component] + target.column;
                    rows.planes[target.component].put(&tile, column, target.row);
                }
            }
            // `last` combines numbers of coefficients, so it exceeds 63 if any block was invalid.
            if last > 63 {
                return Err(Error::Corrupt);
            }
            if bits.overrun() {
                return Err(intervals.ended_early());
            }
            rows.write(isa, mcu_row, &mut pixels);
        }
        expect_end(intervals.behind())?;
        Ok(pixels)
    }
}
