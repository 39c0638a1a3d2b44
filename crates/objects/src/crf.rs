//! Dense conditional random fields of two labels: masks that follow the edges of an image.
//!
//! The model is that of Krähenbühl and Koltun (2011) as pydensecrf computes it: a unary term from
//! probabilities, a Gaussian kernel of positions and one of positions and colors, both normalized
//! symmetrically, Potts compatibilities, and mean-field updates.
//!
//! The two probabilities of a pixel sum to one and a filter is linear, so only one of them is
//! computed. Masks of the same image share its lattice and are filtered side by side.

use rayon::prelude::*;

use crate::lattice::{Lattice, Room};
use crate::{Error, Grid, Mask, Result};

/// Number of pixels that one thread updates at a time.
const PART: usize = 8192;
/// Smallest probability; smaller ones are raised to it.
const LEAST: f32 = 1e-5;

/// The kernels and the number of updates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrfOptions {
    /// Standard deviation of the kernel of positions, in pixels.
    pub gaussian_xy: f32,
    /// Weight ("compat") of the kernel of positions.
    pub gaussian_weight: f32,
    /// Standard deviation of the positions in the kernel of positions and colors, in pixels.
    pub bilateral_xy: f32,
    /// Standard deviation of the colors in that kernel, on the scale of 0 to 255.
    pub bilateral_rgb: f32,
    /// Weight ("compat") of the kernel of positions and colors.
    pub bilateral_weight: f32,
    /// Number of mean-field updates.
    pub iterations: usize,
}

impl Default for CrfOptions {
    /// Returns the values of MaskCut.
    fn default() -> Self {
        Self {
            gaussian_xy: 3.0,
            gaussian_weight: 7.0,
            bilateral_xy: 50.0,
            bilateral_rgb: 5.0,
            bilateral_weight: 10.0,
            iterations: 10,
        }
    }
}

impl CrfOptions {
    fn validate(&self) -> Result<()> {
        let deviations = [
            ("gaussian_xy", self.gaussian_xy),
            ("bilateral_xy", self.bilateral_xy),
            ("bilateral_rgb", self.bilateral_rgb),
        ];
        let weights = [
            ("gaussian_weight", self.gaussian_weight),
            ("bilateral_weight", self.bilateral_weight),
        ];
        for (option, value) in deviations {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::Option { option, value: value.into(), must: "greater than 0" });
            }
        }
        for (option, value) in weights {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::Option { option, value: value.into(), must: "at least 0" });
            }
        }
        Ok(())
    }
}

/// The kernels of one image, ready for any number of masks.
#[derive(Debug)]
pub struct Crf {
    grid: Grid,
    iterations: usize,
    gaussian: Kernel<2, 3>,
    bilateral: Kernel<5, 6>,
}

/// A mask after the CRF.
#[derive(Debug, Clone, PartialEq)]
pub struct Refined {
    /// The more probable label of each pixel, with holes filled.
    pub mask: Mask,
    /// Overlap (IoU) with the mask before the CRF; `None` if both are empty.
    pub iou: Option<f64>,
}

impl Refined {
    /// Returns whether MaskCut keeps the mask: it discards those that are empty or overlap the mask
    /// before the CRF by less than one half.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !self.mask.is_empty() && self.iou.is_some_and(|iou| iou >= 0.5)
    }
}

impl Crf {
    /// Prepares the kernels of an RGB image, three bytes per pixel, row by row.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] unless there are three bytes per pixel, [`Error::Option`] for an
    /// invalid option, and [`Error::Lattice`] if a standard deviation is too small for the image.
    pub fn new(rgb: &[u8], grid: Grid, options: &CrfOptions) -> Result<Self> {
        options.validate()?;
        if rgb.len() != 3 * grid.cells() {
            let what = "bytes of the RGB image";
            return Err(Error::Shape { what, expected: 3 * grid.cells(), found: rgb.len() });
        }
        let width = grid.width;
        let at = |i: usize, deviation: f32| {
            [(i % width) as f32 / deviation, (i / width) as f32 / deviation]
        };
        let gaussian = Kernel::new(grid, options.gaussian_weight, |i| at(i, options.gaussian_xy))?;
        let bilateral = Kernel::new(grid, options.bilateral_weight, |i| {
            let [x, y] = at(i, options.bilateral_xy);
            let color = |channel: usize| f32::from(rgb[3 * i + channel]) / options.bilateral_rgb;
            [x, y, color(0), color(1), color(2)]
        })?;
        Ok(Self { grid, iterations: options.iterations, gaussian, bilateral })
    }

    /// Computes the marginal probabilities of the foreground after the mean-field updates, one map,
    /// row by row, for each map of initial probabilities.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] for a map of a different size, and [`Error::Label`] for a
    /// probability that is NaN.
    pub fn marginals(&self, foreground: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        for map in foreground {
            self.grid.holds("pixels of a probability map", map.len())?;
            if let Some(position) = map.iter().position(|p| p.is_nan()) {
                return Err(Error::Label { position });
            }
        }
        let inferred = foreground.chunks(4).flat_map(|maps| match maps.len() {
            1 => self.infer::<1>(maps),
            2 => self.infer::<2>(maps),
            _ => self.infer::<4>(maps),
        });
        Ok(inferred.collect())
    }

    /// Refines masks as MaskCut does. A mask on another grid than that of the image is resized to
    /// it bilinearly; the probabilities are the softmax of the mask and of its complement.
    ///
    /// # Errors
    /// Returns the errors of [`Self::marginals`], which do not occur for masks.
    pub fn refine(&self, masks: &[Mask]) -> Result<Vec<Refined>> {
        let mut maps = Vec::with_capacity(masks.len());
        let mut before = Vec::with_capacity(masks.len());
        for mask in masks {
            let soft = bilinear(mask, self.grid);
            before.push(Mask::new(self.grid, soft.iter().map(|&m| m > 0.5).collect())?);
            // softmax of [1 - m, m]
            maps.push(soft.iter().map(|&m| sigmoid(2.0 * m - 1.0)).collect());
        }
        let after = self.marginals(&maps)?.into_iter().zip(before);
        let refined = after.map(|(marginal, before)| {
            let cells = marginal.iter().map(|&p| p > 0.5).collect();
            let mask = Mask::new(self.grid, cells)?.filled();
            let iou = before.iou(&mask);
            Ok(Refined { mask, iou })
        });
        refined.collect()
    }

    /// Runs the mean-field updates for up to `L` maps at once.
    fn infer<const L: usize>(&self, maps: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let unary = |i: usize| {
            let mut lanes = [0.0; L];
            for (lane, map) in lanes.iter_mut().zip(maps) {
                let (own, other) = (map[i].clamp(LEAST, 1.0), (1.0 - map[i]).clamp(LEAST, 1.0));
                *lane = own.ln() - other.ln();
            }
            lanes
        };
        let unary: Vec<[f32; L]> =
            (0..self.grid.cells()).into_par_iter().with_min_len(PART).map(unary).collect();
        let mut current = vec![[0.0; L]; unary.len()];
        update(&mut current, &unary, &[]);
        let (mut room, mut color_room) = (Room::default(), Room::default());
        for _ in 0..self.iterations {
            let near = self.gaussian.messages(&current, &mut room);
            let alike = self.bilateral.messages(&current, &mut color_room);
            update(&mut current, &unary, &[near, alike]);
        }
        (0..maps.len()).map(|lane| current.iter().map(|lanes| lanes[lane]).collect()).collect()
    }
}

/// A normalized Gaussian kernel between all pixels.
#[derive(Debug)]
struct Kernel<const D: usize, const V: usize> {
    lattice: Lattice<D, V>,
    weight: f32,
    /// `1 / sqrt(K 1)`.
    norm: Vec<f32>,
    /// The normalized kernel times 1.
    ones: Vec<f32>,
}

impl<const D: usize, const V: usize> Kernel<D, V> {
    fn new(grid: Grid, weight: f32, features: impl Fn(usize) -> [f32; D] + Sync) -> Result<Self> {
        let cells = grid.cells();
        let Some(lattice) = Lattice::<D, V>::new(cells, features) else {
            return Err(Error::Lattice { width: grid.width, height: grid.height });
        };
        let mut room = Room::<1>::default();
        let sums = lattice.filter(&vec![[1.0]; cells], &mut room);
        let norm: Vec<f32> = sums.iter().map(|[sum]| 1.0 / (sum + 1e-20).sqrt()).collect();
        let input: Vec<[f32; 1]> = norm.iter().map(|&norm| [norm]).collect();
        let filtered = lattice.filter(&input, &mut room);
        let ones = filtered.iter().zip(&norm).map(|([sum], norm)| sum * norm).collect();
        Ok(Self { lattice, weight, norm, ones })
    }

    /// Returns how strongly the other pixels favor the foreground: the weight times the difference
    /// of both filtered probabilities.
    fn messages<const L: usize>(&self, current: &[[f32; L]], room: &mut Room<L>) -> Vec<[f32; L]> {
        let pairs = current.par_iter().zip(&self.norm).with_min_len(PART);
        let input: Vec<[f32; L]> = pairs.map(|(lanes, norm)| lanes.map(|q| q * norm)).collect();
        let mut messages = self.lattice.filter(&input, room);
        let parts = messages.par_iter_mut().zip(&self.norm).zip(&self.ones).with_min_len(PART);
        parts.for_each(|((lanes, norm), ones)| {
            *lanes = lanes.map(|q| self.weight * (2.0 * norm * q - ones));
        });
        messages
    }
}

/// Sets the probabilities from the unary terms and the messages.
fn update<const L: usize>(
    current: &mut [[f32; L]],
    unary: &[[f32; L]],
    messages: &[Vec<[f32; L]>],
) {
    current.par_chunks_mut(PART).enumerate().for_each(|(part, current)| {
        simd::dispatch(
            #[inline(always)]
            || {
                let range = part * PART..part * PART + current.len();
                current.copy_from_slice(&unary[range.clone()]);
                for messages in messages {
                    for (lanes, message) in current.iter_mut().zip(&messages[range.clone()]) {
                        for lane in 0..L {
                            lanes[lane] += message[lane];
                        }
                    }
                }
                for q in current.as_flattened_mut() {
                    *q = sigmoid(*q);
                }
            },
        );
    });
}

/// Computes `1 / (1 + exp(-x))`, with the same bits on every machine.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // exp(y) = 2^n exp(r), with |r| at most half of ln 2.
    let y = (-x).clamp(-87.0, 87.0);
    let n = (y * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (y - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut exp = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        exp = exp * r + factor;
    }
    1.0 / (1.0 + exp * f32::from_bits(((n as i32 + 127) << 23) as u32))
}

/// Adding and subtracting this rounds a small number to an integer.
const ROUND: f32 = 12_582_912.0;

/// Returns the mask as numbers on another grid, interpolated between the centers of its cells.
fn bilinear(mask: &Mask, to: Grid) -> Vec<f32> {
    let from = mask.grid();
    let value =
        |row: usize, column: usize| f32::from(u8::from(mask.cells()[row * from.width + column]));
    if from == to || from.cells() == 0 {
        let cells = mask.cells().iter().map(|&cell| f32::from(u8::from(cell)));
        return if from == to { cells.collect() } else { vec![0.0; to.cells()] };
    }
    // Returns the two cells around the center of a pixel, and the weight of the second.
    let around = |i: usize, from: usize, to: usize| {
        let center = ((i as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
        let first = (center as usize).min(from - 1);
        (first, (first + 1).min(from - 1), center - first as f32)
    };
    let mut values = Vec::with_capacity(to.cells());
    for row in 0..to.height {
        let (top, bottom, down) = around(row, from.height, to.height);
        for column in 0..to.width {
            let (left, right, across) = around(column, from.width, to.width);
            let upper = value(top, left) * (1.0 - across) + value(top, right) * across;
            let lower = value(bottom, left) * (1.0 - across) + value(bottom, right) * across;
            values.push(upper * (1.0 - down) + lower * down);
        }
    }
    values
}

#[cfg(test)]
mod tests;
