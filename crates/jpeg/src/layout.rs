//! Determines where the blocks of MCUs go.
//!
//! Several MCUs are decoded before their blocks are transformed, so that [`BLOCKS`] neighbors of
//! each component can be transformed together.

use crate::idct::BLOCKS;
use crate::sampling::Sampling;

/// Number of MCUs that are decoded together.
pub(crate) const BATCH: usize = BLOCKS;
/// Maximum number of groups of blocks in a batch: four of luminance and two of color.
pub(crate) const MOST_GROUPS: usize = 6;

/// A block of an MCU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) component: usize,
    /// Index of the group that contains the block.
    pub(crate) group: usize,
    /// Place of the block in the group.
    pub(crate) place: usize,
}

/// The destination of a group of blocks after the transform: its place among the tiles of a
/// component in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) component: usize,
    pub(crate) column: usize,
    pub(crate) row: usize,
}

/// The blocks of a batch.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The blocks of each MCU, in the order of the file.
    pub(crate) mcus: [Vec<Block>; BATCH],
    /// The destination of each group.
    pub(crate) targets: Vec<Target>,
    /// Number of adjacent tiles of each component in a batch.
    pub(crate) tiles: Vec<usize>,
}

impl Layout {
    pub(crate) fn new(sampling: Sampling) -> Self {
        let mut layout = Self { mcus: Default::default(), targets: Vec::new(), tiles: Vec::new() };
        for component in 0..sampling.channels() {
            let (across, down) = match component {
                0 => (sampling.across(), sampling.down()),
                _ => (1, 1),
            };
            let first = layout.targets.len();
            for (mcu, blocks) in layout.mcus.iter_mut().enumerate() {
                for (row, x) in (0..down).flat_map(|row| (0..across).map(move |x| (row, x))) {
                    let column = across * mcu + x;
                    let group = first + across * row + column / BLOCKS;
                    blocks.push(Block { component, group, place: column % BLOCKS });
                }
            }
            for (row, column) in (0..down).flat_map(|row| (0..across).map(move |x| (row, x))) {
                layout.targets.push(Target { component, column, row });
            }
            layout.tiles.push(across);
        }
        layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_every_group_is_used_once() {
        let samplings = [
            (Sampling::Gray, 1),
            (Sampling::Full, 3),
            (Sampling::HalfWidth, 4),
            (Sampling::HalfHeight, 4),
            (Sampling::Quarter, 6),
        ];
        for (sampling, groups) in samplings {
            let layout = Layout::new(sampling);
            assert_eq!(layout.targets.len(), groups);
            assert!(groups <= MOST_GROUPS);
            let mut used = vec![[0; BLOCKS]; groups];
            for block in layout.mcus.iter().flatten() {
                used[block.group][block.place] += 1;
                assert_eq!(layout.targets[block.group].component, block.component);
            }
            assert!(used.iter().flatten().all(|&count| count == 1), "{sampling:?}");
        }
    }
}
