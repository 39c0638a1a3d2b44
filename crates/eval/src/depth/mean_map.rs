//! The baseline that a network must beat: the mean depth of the training images at each position.

use std::ops::Range;

use data::decode::Image;
use tch::{Device, Kind, Tensor};

use super::DepthData;
use super::config::DepthConfig;
use super::head::resized;
use super::score::Estimator;
use crate::error::{Error, Result};
use crate::segmentation::{read_each, threads};
use crate::subset::evenly_spaced;

/// Number of rows and of columns of the map.
const CELLS: usize = 32;
/// Maximum number of training images that are averaged, spread evenly.
const MOST: usize = 1000;

/// Mean depths on a grid of cells that divides every image evenly.
#[derive(Debug)]
pub struct MeanMap {
    meters: Tensor, // [1, CELLS, CELLS]
}

impl MeanMap {
    /// Averages the depths in range over up to 1,000 training images. A cell without any gets the
    /// mean over all pixels.
    ///
    /// # Errors
    /// Returns an error if no image is readable, or no depth is in range.
    pub fn new(data: &DepthData<'_>, config: &DepthConfig) -> Result<Self> {
        let indices = data.indices();
        let some = evenly_spaced(indices.len(), Some(MOST));
        let indices: Vec<usize> = some.into_iter().map(|place| indices[place]).collect();
        let (mut sums, mut counts) = (vec![0.0; CELLS * CELLS], vec![0_u64; CELLS * CELLS]);
        let range = config.min_depth as f32..=config.max_depth as f32;
        let load = |index| Ok(data.set.load(index)?.depth);
        let name = |index| data.set.name(index);
        read_each(&indices, threads(data.workers), load, name, |_, depth| {
            let (width, height) = (depth.width as usize, depth.height as usize);
            for cell in 0..CELLS * CELLS {
                let (rows, columns) = (part(cell / CELLS, height), part(cell % CELLS, width));
                for meters in rows.flat_map(|row| &depth.meters[row * width..][columns.clone()]) {
                    if range.contains(meters) {
                        sums[cell] += f64::from(*meters);
                        counts[cell] += 1;
                    }
                }
            }
            Ok(())
        })?
        .not_empty()?;
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return Err(Error::NoDepths { least: config.min_depth, most: config.max_depth });
        }
        let of_all = sums.iter().sum::<f64>() / count as f64;
        let cells = sums.iter().zip(&counts);
        let means = cells.map(|(&sum, &count)| if count > 0 { sum / count as f64 } else { of_all });
        let means: Vec<f32> = means.map(|mean| mean as f32).collect();
        let cells = CELLS as i64;
        Ok(Self { meters: Tensor::from_slice(&means).view([1, cells, cells]) })
    }
}

/// Returns the rows or columns of a cell: its share of `side`, or the one at its start if `side` is
/// smaller than the number of cells.
fn part(cell: usize, side: usize) -> Range<usize> {
    let start = cell * side / CELLS;
    start..((cell + 1) * side / CELLS).max(start + 1)
}

impl Estimator for MeanMap {
    fn depths(&self, image: &Image) -> Result<Vec<f32>> {
        let (width, height) = image.dimensions();
        let depths = resized(&self.meters, [i64::from(height), i64::from(width)])?;
        let depths = depths.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        Ok(Vec::<f32>::try_from(depths.flatten(0, -1))?)
    }
}
