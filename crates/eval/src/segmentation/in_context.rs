//! In-context segmentation: each patch takes the labels of the most similar patches of the training
//! images. Nothing is trained.

use augment::rng::{Purpose, Rng};
use data::decode::Image;
use data::dense::DenseSample;
use data::loader::BrokenImage;
use serde::Serialize;
use tch::{Kind, Tensor};

use super::augmented::random_view;
use super::evaluate::{DenseData, MaskSize, Segmenter};
use super::features::{DenseNetwork, best_classes, resized, resized_labels};
use super::patches::PatchLabels;
use crate::error::{Error, Result};
use crate::features::check_finite;
use crate::nearest::{Index, Similarity};

/// How ignored pixels of training images count in the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IgnoredPixels {
    /// They do not count: a patch's labels are the shares among its other pixels, and a patch with
    /// only ignored pixels is not in the memory.
    LeftOut,
    /// They count as class 0, as in the public evaluation code of Hummingbird.
    ClassZero,
}

/// Settings of the evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct InContextConfig {
    /// Side in pixels of the square to which images are resized, rounded to whole patches; 512 in
    /// Hummingbird, or 518 with patches of 14 pixels.
    pub side: u32,
    /// Number of neighbors of a patch; 30 in Hummingbird.
    pub k: usize,
    /// Temperature of the weights of neighbors, `softmax(cosine / temperature)`; 0.02 in Hummingbird.
    pub temperature: f64,
    /// Maximum number of patches in memory. Publications use 10^6 to 10^7, so the number should be
    /// reported with a score.
    pub memory: usize,
    /// Number of passes over the training images, each with new random views, which share the
    /// memory; 0 = one pass over the whole images. Publications use several.
    pub augmented: u64,
    /// How ignored pixels count in the memory.
    pub ignored: IgnoredPixels,
    /// Size at which masks are compared. The public code of Hummingbird compares squares of `side`.
    pub mask: MaskSize,
    /// Seed of random views and of the choice of patches when memory is bounded.
    pub seed: u64,
}

impl Default for InContextConfig {
    /// Hummingbird's side, neighbors, and temperature, with a memory of about a million patches and
    /// masks of their original size.
    fn default() -> Self {
        Self {
            side: 512,
            k: 30,
            temperature: 0.02,
            memory: 1 << 20,
            augmented: 0,
            ignored: IgnoredPixels::LeftOut,
            mask: MaskSize::Original,
            seed: 0,
        }
    }
}

/// Patches of training images: their features and labels.
#[derive(Debug)]
pub struct Memory<'a> {
    network: DenseNetwork<'a>,
    index: Index,
    labels: Tensor, // [M, K]
    config: InContextConfig,
    /// Number of images in the memory.
    pub images: usize,
    /// Images that could not be read and are not in the memory.
    pub broken: Vec<BrokenImage>,
}

impl<'a> Memory<'a> {
    /// Fills the memory with patches of the training images.
    ///
    /// If there are more patches than `config.memory`, each image of each pass keeps the same
    /// number of patches: those with the smallest products of a random number and the sum, over the
    /// classes in the patch, of how many patches of the image contain the class. This favors
    /// patches with rare classes.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range, no image is readable, nothing is labeled, or
    /// the memory holds less than one patch per image and pass.
    ///
    /// # Source
    /// Balazevic et al., "Towards in-context scene understanding" (2023), and the public code
    /// open-hummingbird-eval.
    pub fn new(
        network: DenseNetwork<'a>,
        train: &DenseData<'_>,
        config: &InContextConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        check(config)?;
        let config = InContextConfig { side: network.whole_patches(config.side), ..config.clone() };
        let (passes, indices) = (config.augmented.max(1), train.indices());
        let classes = train.set.rules().classes();
        let keeper = Keeper {
            config: &config,
            patch: network.frozen.network.patch_size() as usize,
            classes,
            per_image: per_image(&config, indices.len(), passes)?,
        };
        let total = indices.len() * passes as usize;
        let (mut keys, mut labels, mut read) = (Vec::new(), Vec::new(), None);
        for pass in 0..passes {
            let prepare = |index: usize, sample: DenseSample| keeper.keep(pass, index, &sample);
            let of_pass = train.each(&indices, prepare, |place, (image, kept)| {
                if !kept.patches.is_empty() {
                    let chosen = Tensor::from_slice(&kept.patches).to_device(network.frozen.device);
                    keys.push(rows(&network, &image)?.index_select(0, &chosen));
                    labels.push(Tensor::from_slice(&kept.labels).view([-1, classes as i64]));
                }
                progress(pass as usize * indices.len() + place + 1, total);
                Ok(())
            })?;
            // Every pass reads the same images, so the counts of the first are enough.
            read.get_or_insert(of_pass);
        }
        let read = read.unwrap_or_default();
        if keys.is_empty() {
            return Err(Error::NothingLabeled);
        }
        let keys = Tensor::f_cat(&keys, 0)?; // [M, D]
        check_finite(&keys, "training")?;
        let labels = Tensor::f_cat(&labels, 0)?.to_device(network.frozen.device);
        let index = Index::new(&keys, Similarity::Cosine)?;
        Ok(Self { network, index, labels, config, images: read.images, broken: read.broken })
    }

    /// Returns the number of patches.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Always returns `false`, because a memory has at least one patch.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns the settings, with the side in whole patches.
    pub fn config(&self) -> &InContextConfig {
        &self.config
    }

    /// Predicts the class shares `[N, K]` of patches with features `[N, D]`.
    ///
    /// # Errors
    /// Returns an error if the features differ in width from those in memory.
    pub fn soft_labels(&self, features: &Tensor) -> Result<Tensor> {
        soft_labels(&self.index, &self.labels, features, self.config.k, self.config.temperature)
    }
}

impl Segmenter for Memory<'_> {
    fn segment(&self, image: &Image, size: (u32, u32)) -> Result<Vec<u8>> {
        let side = self.config.side;
        let features = rows(&self.network, &resized(image, side, side)?)?; // [N, D]
        check_finite(&features, "test")?;
        let soft = self.soft_labels(&features)?; // [N, K]
        let grid = i64::from(side / self.network.frozen.network.patch_size());
        best_classes(&soft.tr().reshape([-1, grid, grid]), size) // [K, h, w]
    }
}

/// Averages the labels `[M, K]` of the `k` keys nearest to each of the features `[N, D]`, weighted
/// by the softmax of the cosines over the temperature; returns `[N, K]`.
///
/// # Errors
/// Returns an error if the features differ in width from the keys.
pub fn soft_labels(
    index: &Index,
    labels: &Tensor,
    features: &Tensor,
    k: usize,
    temperature: f64,
) -> Result<Tensor> {
    let found = index.nearest(features, k)?; // 2 x [N, k]
    let weights = (found.similarities / temperature).softmax(1, Kind::Float);
    let (n, k) = found.indices.size2()?;
    let labels = labels.index_select(0, &found.indices.flatten(0, -1)).view([n, k, -1]);
    Ok(weights.unsqueeze(1).matmul(&labels).squeeze_dim(1)) // [N, 1, k] x [N, k, K] -> [N, K]
}

/// Chooses patches for the memory.
struct Keeper<'a> {
    config: &'a InContextConfig,
    /// Side of a patch in pixels.
    patch: usize,
    classes: usize,
    /// Maximum number of patches per image and pass.
    per_image: usize,
}

impl Keeper<'_> {
    /// Returns the network's view of an image in a pass, and the patches of the view to keep.
    fn keep(&self, pass: u64, index: usize, sample: &DenseSample) -> Result<(Image, Kept)> {
        let InContextConfig { side, seed, ignored, augmented, .. } = *self.config;
        let (image, labels) = match augmented {
            0 => {
                let labels = resized_labels(&sample.labels, side, side);
                (resized(&sample.image, side, side)?, labels)
            }
            _ => random_view(sample, side, seed, pass, index)?,
        };
        let patches = PatchLabels::new(&labels, self.patch);
        let counts = patches.counts(self.classes, ignored == IgnoredPixels::ClassZero);
        let rng = Rng::new(seed, pass, index as u64, Purpose::Choice(MEMORY));
        Ok((image, Kept::new(&counts, self.classes, self.per_image, rng)))
    }
}

/// The patches of an image that are kept in memory, by index.
struct Kept {
    patches: Vec<i64>,
    /// Class shares, `[patches, K]`.
    labels: Vec<f32>,
}

impl Kept {
    fn new(counts: &[u32], classes: usize, most: usize, mut rng: Rng) -> Self {
        let mut with_class = vec![0_u32; classes];
        for counts in counts.chunks_exact(classes) {
            with_class
                .iter_mut()
                .zip(counts)
                .for_each(|(all, &count)| *all += u32::from(count > 0));
        }
        let mut scores: Vec<(f64, usize)> = Vec::new();
        for (patch, counts) in counts.chunks_exact(classes).enumerate() {
            let present = with_class.iter().zip(counts).filter(|(_, count)| **count > 0);
            let sum: u32 = present.map(|(with_class, _)| with_class).sum();
            if sum > 0 {
                scores.push((f64::from(sum) * rng.unit(), patch));
            }
        }
        scores.sort_by(|a, b| a.0.total_cmp(&b.0));
        scores.truncate(most);
        let mut patches: Vec<usize> = scores.into_iter().map(|(_, patch)| patch).collect();
        patches.sort_unstable();
        let shares = |&patch: &usize| {
            let counts = &counts[patch * classes..(patch + 1) * classes];
            let sum: u32 = counts.iter().sum();
            counts.iter().map(move |&count| count as f32 / sum as f32)
        };
        let labels = patches.iter().flat_map(shares).collect();
        Self { patches: patches.into_iter().map(|patch| patch as i64).collect(), labels }
    }
}

/// Returns the maximum number of patches that each image keeps in each pass.
fn per_image(config: &InContextConfig, images: usize, passes: u64) -> Result<usize> {
    let views = images.saturating_mul(passes as usize);
    match config.memory / views.max(1) {
        0 => {
            let of = match config.augmented {
                0 => format!("each of the {images} training images"),
                _ => format!("each of the {passes} views of each of the {images} training images"),
            };
            let problem = format!("must fit at least one patch of {of} (got {})", config.memory);
            Err(Error::Setting { key: "memory", problem })
        }
        most => Ok(most),
    }
}

/// The [`Purpose::Choice`] number for choosing patches.
const MEMORY: u32 = 701;

/// Computes the patch features of one image, `[N, D]`.
pub(super) fn rows(network: &DenseNetwork<'_>, image: &Image) -> Result<Tensor> {
    let maps = network.maps(&network.input(&[image])?)?; // [1, D, h, w]
    Ok(maps.squeeze_dim(0).flatten(1, 2).tr().contiguous()) // -> [N, D]
}

fn check(config: &InContextConfig) -> Result<()> {
    let setting = |key, problem: &str| Err(Error::Setting { key, problem: problem.to_owned() });
    if config.k == 0 {
        return setting("k", "must be at least 1 (got 0)");
    }
    if !config.temperature.is_finite() || config.temperature <= 0.0 {
        return setting(
            "temperature",
            &format!("must be greater than 0 (got {})", config.temperature),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_memory_keeps_rare_classes() {
        // 100 patches of class 0; patch 40 also has class 1, and patch 41 has no label.
        let mut counts = vec![0; 200];
        (0..100).for_each(|patch| counts[2 * patch] = 4);
        (counts[80], counts[81], counts[82]) = (1, 3, 0);
        let rng = |image| Rng::new(0, 0, image, Purpose::Choice(MEMORY));
        let all = Kept::new(&counts, 2, 1000, rng(5));
        assert_eq!(all.patches.len(), 99);
        assert!(!all.patches.contains(&41));
        let at = all.patches.iter().position(|&patch| patch == 40).unwrap();
        assert_eq!(all.labels[2 * at..2 * at + 2], [0.25, 0.75]);
        let some = Kept::new(&counts, 2, 10, rng(5));
        assert_eq!((some.patches.len(), some.labels.len()), (10, 20));
        assert_eq!(some.patches, Kept::new(&counts, 2, 10, rng(5)).patches);
        assert_ne!(some.patches, Kept::new(&counts, 2, 10, rng(6)).patches);
        // Class 1 is in 10 of 200 patches, most of which should be among the 20 that are kept.
        let mut counts = vec![0; 400];
        (0..200).for_each(|patch| counts[2 * patch + usize::from(patch % 20 == 0)] = 1);
        let kept = Kept::new(&counts, 2, 20, Rng::new(3, 0, 0, Purpose::Choice(MEMORY)));
        let rare = kept.patches.iter().filter(|&&patch| patch % 20 == 0).count();
        assert!(rare >= 7, "{rare} of the 10 rare patches are among 20 of 200");
    }
}
