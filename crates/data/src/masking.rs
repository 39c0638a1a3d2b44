//! Block-wise masking of patches, for objectives that predict what the student does not see (iBOT,
//! SimDINOv2).
//!
//! A fraction of the global crops of a batch is masked, with ratios that are spread evenly over a
//! range: one crop is masked lightly, the next a little more, and so on, in random order. A mask is
//! a union of rectangles of patches.
//!
//! A crop's mask depends only on (seed, epoch, step, crop) and on the batch size, not on how many
//! processes and micro-batches share the batch.
//!
//! # Source
//! The masking of BEiT and iBOT, with the stratified ratios of DINOv2. A Python restatement with
//! the same random draws gives the same masks (`tests/it/masks.rs`).

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::batch::BatchGeometry;
use crate::error::{Error, Result};
use augment::GLOBAL_CROPS;
use augment::rng::{Purpose, Rng};
use base::check::{Check, Problem};

/// Number of attempts to place a block before the mask is left as it is.
const TRIES: usize = 10;

/// How masks are drawn. Section `masks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MaskConfig {
    /// Fraction of the global crops that are masked. 0.5 in DINOv2 and SimDINOv2.
    pub mask_probability: f64,
    /// Fraction of the patches that are hidden in a masked crop, [low, high]. [0.1, 0.5] in DINOv2
    /// and SimDINOv2.
    pub mask_ratio: [f64; 2],
    /// Smallest area of a masked block, in patches. 4 in iBOT. The last block of a crop may be
    /// smaller.
    pub min_patches: usize,
    /// Aspect ratio of a block, which lies between this and its inverse. 0.3 in iBOT.
    pub min_aspect: f64,
}

impl Default for MaskConfig {
    fn default() -> Self {
        Self { mask_probability: 0.5, mask_ratio: [0.1, 0.5], min_patches: 4, min_aspect: 0.3 }
    }
}

impl MaskConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.fraction("mask_probability", self.mask_probability);
        check.ordered("mask_ratio", self.mask_ratio, (0.0, false, 1.0));
        check.at_least("min_patches", self.min_patches, 1);
        let aspect = self.min_aspect;
        check.that("min_aspect", aspect > 0.0 && aspect <= 1.0, || {
            format!("must be greater than 0 and at most 1 (got {aspect})")
        });
        check.problems()
    }
}

/// What the masks of a batch depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskKey {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch.
    pub epoch: u64,
    /// Optimizer step inside the epoch.
    pub step: u64,
}

/// The masks of one process's global crops, for B images with T patches per crop.
#[derive(Debug, Clone, PartialEq)]
pub struct Masks {
    /// `[2 * B, T]`, with rows in the order of the crops; true where a patch is hidden.
    pub masks: Array2<bool>,
    /// Indices of the hidden patches in the flattened masks, in ascending order.
    pub indices: Vec<i64>,
    /// For each of `indices`, the inverse of the number of hidden patches in the same crop.
    pub weights: Vec<f32>,
    /// Upper bound on the length of `indices`, for sizing buffers. It depends only on the strata,
    /// not on the blocks that were drawn.
    pub upper_bound: usize,
}

/// Draws masks for crops that consist of a grid of patches.
#[derive(Debug, Clone)]
pub struct MaskGenerator {
    config: MaskConfig,
    height: usize,
    width: usize,
}

impl MaskGenerator {
    /// Creates a generator for crops of `height` x `width` patches.
    ///
    /// # Errors
    /// Returns an error if a value of `config` is out of range, or if a side of the grid is 0.
    pub fn new(config: &MaskConfig, (height, width): (usize, usize)) -> Result<Self> {
        if let Some((key, problem)) = config.validate().into_iter().next() {
            return Err(Error::Config { key, problem });
        }
        if height == 0 || width == 0 {
            let problem = format!("must be at least 1 x 1 (got {height} x {width})");
            return Err(Error::Config { key: "grid of patches", problem });
        }
        Ok(Self { config: config.clone(), height, width })
    }

    /// Returns the number of patches of a crop.
    pub fn patches(&self) -> usize {
        self.height * self.width
    }

    /// Draws the masks of this process in micro-batch `micro` of a step.
    ///
    /// Of the `2 * batch_size` crops of the step, the fraction `mask_probability` is masked,
    /// rounded down. In random order, the i-th of these hides a fraction of its patches between
    /// `r[i]` and `r[i + 1]`, where `r` divides `mask_ratio` into equal intervals.
    pub fn batch(&self, key: MaskKey, geometry: BatchGeometry, micro: usize) -> Masks {
        let batch = geometry.batch_size();
        let crops = GLOBAL_CROPS * batch;
        let masked = (crops as f64 * self.config.mask_probability) as usize;
        let strata = Rng::new(key.seed, key.epoch, key.step, Purpose::Mask).permutation(crops);
        let rows = geometry.rows(micro);
        let mine =
            (0..GLOBAL_CROPS).flat_map(|view| rows.clone().map(move |row| view * batch + row));
        let (mut flat, mut upper_bound) = (Vec::new(), 0);
        for crop in mine {
            if strata[crop] >= masked {
                flat.resize(flat.len() + self.patches(), false);
                continue;
            }
            let [low, high] = self.stratum(strata[crop], masked);
            let purpose = Purpose::MaskBlocks(crop as u32);
            let mut rng = Rng::new(key.seed, key.epoch, key.step, purpose);
            let target = (self.patches() as f64 * rng.uniform(low, high)) as usize;
            flat.extend(self.blocks(target, &mut rng));
            upper_bound += (self.patches() as f64 * high) as usize;
        }
        self.collate(flat, upper_bound)
    }

    /// Returns the bounds of the mask ratio of the i-th of `masked` crops.
    fn stratum(&self, i: usize, masked: usize) -> [f64; 2] {
        let [low, high] = self.config.mask_ratio;
        let edge = |i: usize| low + (high - low) * i as f64 / masked as f64;
        [edge(i), edge(i + 1)]
    }

    fn collate(&self, flat: Vec<bool>, upper_bound: usize) -> Masks {
        let (mut indices, mut weights) = (Vec::new(), Vec::new());
        for (crop, mask) in flat.chunks_exact(self.patches()).enumerate() {
            let hidden = mask.iter().filter(|&&hidden| hidden).count();
            let places = (0..mask.len()).filter(|&patch| mask[patch]);
            indices.extend(places.map(|patch| (crop * self.patches() + patch) as i64));
            weights.resize(indices.len(), 1.0 / hidden.max(1) as f32);
        }
        let crops = flat.len() / self.patches();
        let masks = Array2::from_shape_fn((crops, self.patches()), |(crop, patch)| {
            flat[crop * self.patches() + patch]
        });
        Masks { masks, indices, weights, upper_bound }
    }

    /// Draws one mask, `[T]`, with at most `target` hidden patches; it has fewer if no further
    /// block could be placed.
    pub fn blocks(&self, target: usize, rng: &mut Rng) -> Vec<bool> {
        let mut mask = vec![false; self.patches()];
        // About half of the grid, computed as in the reference.
        let most = self.height / 2 * self.width;
        let mut count = 0;
        while count < target {
            let cap = (target - count).min(most);
            let Some(added) = (0..TRIES).find_map(|_| self.place(&mut mask, cap, rng)) else {
                break;
            };
            count += added;
        }
        mask
    }

    /// Tries to place one random block. Returns the number of patches that it newly hides, or
    /// `None` if the block does not fit, hides nothing new, or hides more than `cap`.
    fn place(&self, mask: &mut [bool], cap: usize, rng: &mut Rng) -> Option<usize> {
        // If fewer than `min_patches` patches are left, the bounds are reversed, as in the
        // reference.
        let area = rng.uniform(self.config.min_patches as f64, cap as f64);
        let reach = -self.config.min_aspect.ln();
        let aspect = rng.uniform(-reach, reach).exp();
        let height = (area * aspect).sqrt().round_ties_even() as usize;
        let width = (area / aspect).sqrt().round_ties_even() as usize;
        if height >= self.height || width >= self.width {
            return None;
        }
        let top = rng.index(self.height - height + 1);
        let left = rng.index(self.width - width + 1);
        let places =
            (top..top + height).flat_map(|y| (left..left + width).map(move |x| y * self.width + x));
        let new = places.clone().filter(|&place| !mask[place]).count();
        if new == 0 || new > cap {
            return None;
        }
        places.for_each(|place| mask[place] = true);
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use augment::rng::Rng;

    const KEY: MaskKey = MaskKey { seed: 3, epoch: 1, step: 7 };
    fn of(batch_size: usize) -> BatchGeometry {
        BatchGeometry::new(batch_size).unwrap()
    }

    fn generator(grid: (usize, usize)) -> MaskGenerator {
        MaskGenerator::new(&MaskConfig::default(), grid).unwrap()
    }

    fn hidden(mask: impl IntoIterator<Item = bool>) -> usize {
        mask.into_iter().filter(|&hidden| hidden).count()
    }

    proptest! {
        #[test]
        fn a_mask_never_hides_more_than_its_target(
            grid in (1_usize..20, 1_usize..20), share in 0.0_f64..1.0, seed: u64,
        ) {
            let target = (share * (grid.0 * grid.1) as f64) as usize;
            let mut rng = Rng::new(seed, 0, 0, Purpose::Choice(0));
            let count = hidden(generator(grid).blocks(target, &mut rng));
            prop_assert!(count <= target, "{count} of {target} in {grid:?}");
        }

        #[test]
        fn a_batch_is_collated_as_its_masks_say(
            seed: u64, batch in 1_usize..20, grid in (2_usize..16, 2_usize..16),
            probability in 0.0_f64..=1.0,
        ) {
            let config = MaskConfig { mask_probability: probability, ..MaskConfig::default() };
            let generator = MaskGenerator::new(&config, grid).unwrap();
            let masks = generator.batch(MaskKey { seed, ..KEY }, of(batch), 0);
            prop_assert_eq!(masks.masks.dim(), (2 * batch, grid.0 * grid.1));
            let flat: Vec<bool> = masks.masks.iter().copied().collect();
            let places = (0..flat.len()).filter(|&i| flat[i]).map(|i| i as i64);
            prop_assert!(masks.indices.iter().copied().eq(places));
            prop_assert!(masks.indices.len() <= masks.upper_bound);
            // The weights of a crop sum to 1, so all weights sum to the number of masked crops.
            let rows = masks.masks.rows().into_iter();
            let some = rows.filter(|row| row.iter().any(|&hidden| hidden)).count();
            let sum: f32 = masks.weights.iter().sum();
            prop_assert!((sum - some as f32).abs() < 1e-3, "{sum} {some}");
            prop_assert!(some <= (2.0 * batch as f64 * probability) as usize);
        }

        #[test]
        fn processes_and_micro_batches_share_the_masks_of_one(
            seed: u64, images in 1_usize..4, world_size in 1_usize..4, accumulate in 1_usize..4,
        ) {
            let (generator, key) = (generator((14, 14)), MaskKey { seed, ..KEY });
            let batch = images * world_size * accumulate;
            let whole = generator.batch(key, of(batch), 0);
            for rank in 0..world_size {
                for micro in 0..accumulate {
                    let geometry = of(batch).accumulated(accumulate).unwrap();
                    let geometry = geometry.of_process(rank, world_size).unwrap();
                    let part = generator.batch(key, geometry, micro);
                    let first = (micro * world_size + rank) * images;
                    for (i, mask) in part.masks.rows().into_iter().enumerate() {
                        let row = i / images * batch + first + i % images;
                        prop_assert_eq!(mask, whole.masks.row(row));
                    }
                }
            }
        }
    }

    #[test]
    fn ratios_are_spread_evenly_over_half_of_the_crops() {
        let generator = generator((14, 14));
        let batch = 64;
        let masks = generator.batch(KEY, of(batch), 0);
        let mut counts: Vec<usize> =
            masks.masks.rows().into_iter().map(|row| hidden(row.iter().copied())).collect();
        counts.sort_unstable();
        // There are 2 * 64 crops, and half of them are masked; the smallest masks have a target of
        // 0.1 * 196 = 19 patches.
        assert_eq!(counts.iter().filter(|&&count| count == 0).count(), 64);
        for (i, &count) in counts[64..].iter().enumerate() {
            let [_, high] = generator.stratum(i, 64);
            assert!(count <= (196.0 * high) as usize, "{i}: {count}");
        }
        // Masks seldom fall short of their targets, so on average they hide 0.3 of the patches.
        let mean = counts.iter().sum::<usize>() as f64 / 64.0 / 196.0;
        assert!((0.27..0.301).contains(&mean), "{mean}");
        assert!(counts[64] < 25 && counts[127] > 85, "{counts:?}");
    }

    #[test]
    fn masked_places_are_random_and_symmetric() {
        let generator = generator((14, 14));
        let mut frequency = vec![0_usize; 196];
        let draws = 4000;
        for sample in 0..draws {
            let mut rng = Rng::new(11, 0, sample, Purpose::Choice(0));
            let mask = generator.blocks(58, &mut rng);
            mask.iter().zip(&mut frequency).for_each(|(&hidden, f)| *f += usize::from(hidden));
        }
        // A patch and its mirror images are hidden equally often. Each frequency has a standard
        // deviation of at most 0.008, so a difference of 0.05 occurs about once in 10^5 pairs.
        let share = |y: usize, x: usize| frequency[y * 14 + x] as f64 / draws as f64;
        for y in 0..14 {
            for x in 0..14 {
                assert!((share(y, x) - share(13 - y, 13 - x)).abs() < 0.05, "{y} {x}");
                assert!((share(y, x) - share(x, y)).abs() < 0.05, "{y} {x}");
            }
        }
        // Blocks lie inside the grid, so the middle is hidden more often than a corner.
        assert!(share(7, 7) > 1.5 * share(0, 0));
    }

    #[test]
    fn steps_and_seeds_differ_and_repeat() {
        let generator = generator((14, 14));
        let draw = |key| generator.batch(key, of(8), 0);
        assert_eq!(draw(KEY), draw(KEY));
        for other in
            [MaskKey { seed: 4, ..KEY }, MaskKey { epoch: 2, ..KEY }, MaskKey { step: 8, ..KEY }]
        {
            assert_ne!(draw(KEY), draw(other));
        }
    }

    #[test]
    fn nothing_to_hide_is_defined_and_nonsense_is_refused() {
        let none = MaskConfig { mask_probability: 0.0, ..MaskConfig::default() };
        let masks = MaskGenerator::new(&none, (7, 7)).unwrap().batch(KEY, of(4), 0);
        assert!(masks.indices.is_empty() && masks.weights.is_empty() && masks.upper_bound == 0);
        // A block must be smaller than the grid in both directions, so a grid of one row has no
        // room for one.
        assert_eq!(generator((1, 9)).batch(KEY, of(4), 0).indices.len(), 0);
        assert!(MaskGenerator::new(&MaskConfig::default(), (0, 7)).is_err());
        let bad = MaskConfig {
            mask_probability: 1.5,
            mask_ratio: [0.6, 0.5],
            min_patches: 0,
            min_aspect: f64::NAN,
        };
        assert_eq!(bad.validate().len(), 4);
    }
}
