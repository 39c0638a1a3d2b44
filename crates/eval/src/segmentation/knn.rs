//! Segmentation by k-nearest neighbors and by logistic regression on single patches, the protocol of
//! CAPI. Nothing but the regression is trained.

use augment::rng::{Purpose, Rng};
use data::decode::Image;
use data::dense::{DenseSample, IGNORE};
use data::loader::BrokenImage;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::confusion::Confusion;
use super::evaluate::{DenseData, MaskSize, Segmenter};
use super::features::{DenseNetwork, nearest_classes, resized, resized_labels};
use super::in_context::{check_finite, rows};
use super::patches::{PatchLabels, join};
use crate::error::{Error, Result};
use crate::logistic::{LogisticConfig, LogisticModel, fit};
use crate::nearest::{Index, Similarity};

/// Settings of both classifiers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PatchConfig {
    /// Side of the square to which images are resized, in pixels; rounded to whole patches. 448 in CAPI.
    pub side: u32,
    /// Candidates for the number of neighbors; 1, 3, 10, and 30 in CAPI.
    pub k: Vec<usize>,
    /// Candidates for the similarity; both in CAPI.
    pub similarities: Vec<Similarity>,
    /// Candidates for `C` of the regression; 8 values from 1e-6 to 1e5 in CAPI.
    pub c: Vec<f64>,
    /// Maximum number of iterations of the regression for each candidate.
    pub max_iterations: usize,
    /// Fraction of the training images that choose among the candidates; a tenth in CAPI.
    pub held_out: f64,
    /// Most patches that are kept; if there are more, each image keeps an equal number, at random.
    pub memory: usize,
    /// Size of the masks that are compared. In CAPI, these are squares of `side`.
    pub mask: MaskSize,
    /// Seed of the choice of patches and of the held-out images.
    pub seed: u64,
}

impl Default for PatchConfig {
    fn default() -> Self {
        Self {
            side: 448,
            k: vec![1, 3, 10, 30],
            similarities: vec![Similarity::Cosine, Similarity::Euclidean],
            c: (0..8).map(|i| 10f64.powf(-6.0 + 11.0 * f64::from(i) / 7.0)).collect(),
            max_iterations: 1000,
            held_out: 0.1,
            memory: 1 << 20,
            mask: MaskSize::Square(448),
            seed: 0,
        }
    }
}

/// A candidate and its score on the held-out images.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Candidate<T> {
    /// The settings that were tried.
    pub settings: T,
    /// mIoU on the held-out images, 0-1.
    pub miou: f64,
}

/// Settings of one k-NN classifier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KnnSettings {
    /// Number of neighbors.
    pub k: usize,
    /// How patches are compared.
    pub similarity: Similarity,
}

/// Numbers of random choices.
const PATCHES: u32 = 702;
const HELD_OUT: u32 = 703;

/// The patches of some images.
struct Part {
    features: Tensor, // [M, D], standardized
    pixels: Vec<u8>,  // [M, P * P]
}

/// Patches of the training images: those to learn from while candidates are compared, and those that
/// compare them.
#[derive(Debug)]
pub struct TrainPatches<'a> {
    network: DenseNetwork<'a>,
    config: PatchConfig,
    classes: usize,
    mean: Tensor,     // [1, D]
    std: Tensor,      // [1, D]
    features: Tensor, // [M, D], standardized; held-out images last
    pixels: Vec<u8>,  // [M, P * P]
    kept: usize,
    /// Features of the held-out images, standardized, and all their labels.
    held_out: Vec<(Tensor, PatchLabels)>,
    /// Number of training images.
    pub images: usize,
    /// Images that could not be read.
    pub broken: Vec<BrokenImage>,
}

impl<'a> TrainPatches<'a> {
    /// Computes the features of the training images, and their means and deviations.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range, fewer than two images are readable, or no pixel is
    /// labeled.
    ///
    /// # Source
    /// Darcet et al., "Cluster and predict latent patches for improved masked image modeling" (2025), and
    /// its public evaluation code.
    ///
    /// # Deviations
    /// Ignored pixels of neighbors have no vote, and a patch without any label is not in memory.
    pub fn new(
        network: DenseNetwork<'a>,
        train: &DenseData<'_>,
        config: &PatchConfig,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        check(config)?;
        let side = network.whole_patches(config.side);
        let mask = if config.mask == MaskSize::Square(config.side) {
            MaskSize::Square(side)
        } else {
            config.mask
        };
        let config = PatchConfig { side, mask, ..config.clone() };
        let indices = held_out_last(&train.indices(), &config);
        if indices.len() < 2 {
            let problem = "needs at least two train images to hold one out".to_owned();
            return Err(Error::Setting { key: "held_out", problem });
        }
        let per_image = config.memory / indices.len().max(1);
        if per_image == 0 {
            let problem = format!(
                "must hold a patch of each of the {} train images (got {})",
                indices.len(),
                config.memory
            );
            return Err(Error::Setting { key: "memory", problem });
        }
        let patch = network.extractor.patch_size() as usize;
        let first_held_out = indices.len() - held_out_count(indices.len(), &config);
        let prepare = |index: usize, sample: DenseSample| {
            let image = resized(&sample.image, side, side)?;
            let labels = PatchLabels::new(&resized_labels(&sample.labels, side, side), patch);
            Ok((image, chosen(&labels, per_image, config.seed, index), labels))
        };
        let (mut features, mut pixels, mut kept, mut held_out) =
            (Vec::new(), Vec::new(), 0, Vec::new());
        let read = train.each(&indices, prepare, |place, (image, chosen, labels)| {
            let all = rows(&network, &image)?;
            check_finite(&all, "train")?;
            let places: Vec<i64> = chosen.iter().map(|&patch| patch as i64).collect();
            features
                .push(all.index_select(0, &Tensor::from_slice(&places).to_device(network.device)));
            labels.chosen(&chosen).for_each(|patch| pixels.extend_from_slice(patch));
            if place < first_held_out {
                kept += chosen.len();
            } else {
                held_out.push((all, labels));
            }
            progress(place + 1, indices.len());
            Ok(())
        })?;
        let features = Tensor::f_cat(&features, 0)?;
        if kept == 0 || pixels.is_empty() {
            return Err(Error::NothingLabeled);
        }
        let mean = features.mean_dim([0].as_slice(), true, Kind::Float);
        let std = features.std_dim([0].as_slice(), false, true).clamp_min(1e-6);
        let standard = |features: &Tensor| (features - &mean) / &std;
        let held_out =
            held_out.iter().map(|(features, labels)| (standard(features), labels.clone()));
        Ok(Self {
            held_out: held_out.collect(),
            features: standard(&features),
            network,
            config,
            classes: train.set.rules().classes(),
            mean,
            std,
            pixels,
            kept,
            images: read.images,
            broken: read.broken,
        })
    }

    /// The settings, with the side in whole patches.
    pub fn config(&self) -> &PatchConfig {
        &self.config
    }

    /// Number of patches of all training images.
    pub fn len(&self) -> usize {
        self.features.size()[0] as usize
    }

    /// Whether there are none, which is never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chooses the k-NN classifier with the best mIoU on the held-out images, the first if several are,
    /// and returns it with the patches of all training images, and the scores of all candidates.
    ///
    /// # Errors
    /// Returns an error if the held-out images have no label.
    pub fn knn(&self) -> Result<(PatchSegmenter<'_>, Vec<Candidate<KnnSettings>>)> {
        let most = self.config.k.iter().copied().max().unwrap_or(1);
        let mut candidates = Vec::new();
        for &similarity in &self.config.similarities {
            if self.config.k.len() * self.config.similarities.len() == 1 {
                let settings = KnnSettings { k: most, similarity };
                candidates.push(Candidate { settings, miou: f64::NAN });
                continue;
            }
            let votes = self.votes(&self.part(self.kept), similarity)?;
            let mut confusions = vec![Confusion::new(self.classes); self.config.k.len()];
            for (features, labels) in &self.held_out {
                let predicted = votes.predict(features, &self.config.k)?;
                for (confusion, predicted) in confusions.iter_mut().zip(predicted) {
                    confusion.add(&labels.pixels, &predicted)?;
                }
            }
            for (&k, confusion) in self.config.k.iter().zip(&confusions) {
                let miou = confusion.score()?.miou;
                candidates.push(Candidate { settings: KnnSettings { k, similarity }, miou });
            }
        }
        let settings = best(&candidates)?;
        let votes = self.votes(&self.part(self.len()), settings.similarity)?;
        Ok((
            PatchSegmenter {
                patches: self,
                chosen: Chosen::Knn(settings),
                classifier: Classifier::Knn(votes, settings.k),
            },
            candidates,
        ))
    }

    /// Chooses the logistic regression with the best mIoU on the held-out images, the first if several
    /// are, and returns one with its `C` fitted to all training images, and the scores of all candidates.
    /// The label of a patch is its most frequent class.
    ///
    /// # Errors
    /// Returns an error if the held-out images have no label, or libtorch fails.
    pub fn logistic(&self) -> Result<(PatchSegmenter<'_>, Vec<Candidate<f64>>)> {
        let mut candidates = Vec::new();
        for &c in &self.config.c {
            if self.config.c.len() == 1 {
                candidates.push(Candidate { settings: c, miou: f64::NAN });
                continue;
            }
            let model = self.fitted(&self.part(self.kept), c)?;
            let mut confusion = Confusion::new(self.classes);
            for (features, labels) in &self.held_out {
                confusion.add(&labels.pixels, &spread(&model, features, labels.area)?)?;
            }
            candidates.push(Candidate { settings: c, miou: confusion.score()?.miou });
        }
        let c = best(&candidates)?;
        let classifier = Classifier::Logistic(self.fitted(&self.part(self.len()), c)?);
        Ok((PatchSegmenter { patches: self, chosen: Chosen::Logistic(c), classifier }, candidates))
    }

    fn part(&self, count: usize) -> Part {
        let area = self.pixels.len() / self.len();
        let pixels = self.pixels[..count * area].to_vec();
        Part { features: self.features.narrow(0, 0, count as i64), pixels }
    }

    fn votes(&self, part: &Part, similarity: Similarity) -> Result<Votes> {
        let area = self.pixels.len() / self.len();
        let index = Index::new(&part.features, similarity)?;
        Ok(Votes { index, pixels: part.pixels.clone(), area, classes: self.classes })
    }

    fn fitted(&self, part: &Part, c: f64) -> Result<LogisticModel> {
        let area = self.pixels.len() / self.len();
        let labels: Vec<i64> = part
            .pixels
            .chunks_exact(area)
            .map(|pixels| i64::from(majority(pixels, self.classes)))
            .collect();
        let mut config = LogisticConfig::default();
        (config.max_iterations, config.device) = (self.config.max_iterations, self.network.device);
        fit(&part.features, &Tensor::from_slice(&labels), self.classes as i64, c, &config)
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("features", &self.features.size()).finish_non_exhaustive()
    }
}

/// Classifies the patches of images.
#[derive(Debug)]
pub struct PatchSegmenter<'a> {
    patches: &'a TrainPatches<'a>,
    chosen: Chosen,
    classifier: Classifier,
}

#[derive(Debug)]
enum Classifier {
    Knn(Votes, usize),
    Logistic(LogisticModel),
}

/// The chosen settings of a classifier of patches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Chosen {
    /// Of k-NN.
    Knn(KnnSettings),
    /// `C` of logistic regression.
    Logistic(f64),
}

impl PatchSegmenter<'_> {
    /// What was chosen on the held-out images.
    pub fn settings(&self) -> Chosen {
        self.chosen
    }
}

impl Segmenter for PatchSegmenter<'_> {
    fn segment(&self, image: &Image, size: (u32, u32)) -> Result<Vec<u8>> {
        let TrainPatches { network, config, mean, std, .. } = self.patches;
        let side = config.side;
        let features = rows(network, &resized(image, side, side)?)?;
        check_finite(&features, "test")?;
        let features = (features - mean) / std;
        let patch = network.extractor.patch_size() as usize;
        let predicted = match &self.classifier {
            Classifier::Knn(votes, k) => votes.predict(&features, &[*k])?.swap_remove(0),
            Classifier::Logistic(model) => spread(model, &features, patch * patch)?,
        };
        let whole = join(&predicted, patch, side as usize / patch);
        Ok(nearest_classes(&whole, (side, side), size))
    }
}

/// Patches whose pixels vote.
#[derive(Debug)]
pub struct Votes {
    index: Index,
    pixels: Vec<u8>, // [M, P * P]
    area: usize,
    classes: usize,
}

impl Votes {
    /// Patches with features `[M, D]`, whose `pixels` `[M, P * P]` have these classes.
    ///
    /// # Errors
    /// Returns an error if there is no patch, or the numbers differ.
    pub fn new(
        features: &Tensor,
        pixels: Vec<u8>,
        classes: usize,
        similarity: Similarity,
    ) -> Result<Self> {
        let index = Index::new(features, similarity)?;
        let (count, area) = (index.len(), pixels.len() / index.len());
        if area == 0
            || area * count != pixels.len()
            || pixels.iter().any(|&p| p != IGNORE && usize::from(p) >= classes)
        {
            let expected = "[M, P * P], with classes below K";
            return Err(Error::Shape { what: "pixels", expected, got: vec![pixels.len() as i64] });
        }
        Ok(Self { index, pixels, area, classes })
    }

    /// Predicts the pixels of patches with features `[N, D]` for each number of neighbors: `[N, P * P]`
    /// each.
    ///
    /// A pixel gets the most frequent class of the pixels at the same place in the `k` nearest patches,
    /// the lowest one if several are. If all of these are ignored, it gets the most frequent class of all
    /// their pixels.
    ///
    /// # Errors
    /// Returns an error if the features have another width.
    pub fn predict(&self, features: &Tensor, k: &[usize]) -> Result<Vec<Vec<u8>>> {
        let most = k.iter().copied().max().unwrap_or(1);
        let found = self.index.nearest(features, most)?.indices;
        let neighbors = found.size()[1] as usize;
        let found = found.flatten(0, -1).f_to_device(Device::Cpu)?;
        let found = Vec::<i64>::try_from(found.contiguous())?;
        let patch =
            |&row: &i64| &self.pixels[row as usize * self.area..(row as usize + 1) * self.area];
        let mut predicted = vec![Vec::with_capacity(found.len() / neighbors * self.area); k.len()];
        for found in found.chunks_exact(neighbors) {
            let nearest: Vec<&[u8]> = found.iter().map(patch).collect();
            for (predicted, &k) in predicted.iter_mut().zip(k) {
                vote(&nearest[..k.min(neighbors)], self.classes, predicted);
            }
        }
        Ok(predicted)
    }
}

/// Appends the most frequent class of each pixel of some patches.
fn vote(nearest: &[&[u8]], classes: usize, predicted: &mut Vec<u8>) {
    let area = nearest.first().map_or(0, |patch| patch.len());
    let mut counts = vec![0_u32; classes];
    let mut of_all = None;
    for pixel in 0..area {
        counts.fill(0);
        for patch in nearest {
            if let Some(count) = counts.get_mut(usize::from(patch[pixel])) {
                *count += 1;
            }
        }
        let class = most_frequent(&counts)
            .unwrap_or_else(|| *of_all.get_or_insert_with(|| majority(&nearest.concat(), classes)));
        predicted.push(class);
    }
}

/// The most frequent class, the lowest one if several are; none if nothing is counted.
fn most_frequent(counts: &[u32]) -> Option<u8> {
    let most = counts.iter().copied().max().filter(|&most| most > 0)?;
    counts.iter().position(|&count| count == most).map(|class| class as u8)
}

/// The most frequent class of pixels; 0 if all are ignored, which no patch in memory is.
fn majority(pixels: &[u8], classes: usize) -> u8 {
    let mut counts = vec![0_u32; classes];
    for &pixel in pixels {
        if let Some(count) = counts.get_mut(usize::from(pixel)) {
            *count += 1;
        }
    }
    most_frequent(&counts).unwrap_or(0)
}

/// The class of each patch of features `[N, D]`, for each of its pixels.
fn spread(model: &LogisticModel, features: &Tensor, area: usize) -> Result<Vec<u8>> {
    let classes = model.scores(features).f_argmax(1, false)?.f_to_kind(Kind::Uint8)?;
    let classes = Vec::<u8>::try_from(classes.f_to_device(Device::Cpu)?.contiguous())?;
    Ok(classes.into_iter().flat_map(|class| std::iter::repeat_n(class, area)).collect())
}

/// The settings with the best score, the first if several have it.
fn best<T: Copy>(candidates: &[Candidate<T>]) -> Result<T> {
    let mut best: Option<&Candidate<T>> = None;
    for candidate in candidates {
        if best.is_none_or(|best| candidate.miou > best.miou) {
            best = Some(candidate);
        }
    }
    best.map(|best| best.settings).ok_or(Error::NothingLabeled)
}

/// Patches of an image with a label, at most so many of them, chosen at random.
fn chosen(labels: &PatchLabels, most: usize, seed: u64, image: usize) -> Vec<usize> {
    let labeled = |patch: &usize| {
        let pixels = &labels.pixels[patch * labels.area..(patch + 1) * labels.area];
        pixels.iter().any(|&class| class != IGNORE)
    };
    let mut patches: Vec<usize> = (0..labels.len()).filter(labeled).collect();
    if patches.len() > most {
        Rng::new(seed, 0, image as u64, Purpose::Choice(PATCHES)).shuffle(&mut patches);
        patches.truncate(most);
        patches.sort_unstable();
    }
    patches
}

fn held_out_count(images: usize, config: &PatchConfig) -> usize {
    ((images as f64 * config.held_out).round() as usize).clamp(1, images.saturating_sub(1).max(1))
}

/// The images in a random order, so that the last ones are a random part of them.
fn held_out_last(indices: &[usize], config: &PatchConfig) -> Vec<usize> {
    let order = Rng::new(config.seed, 0, 0, Purpose::Choice(HELD_OUT)).permutation(indices.len());
    order.into_iter().map(|place| indices[place]).collect()
}

fn check(config: &PatchConfig) -> Result<()> {
    let setting = |key, problem: String| Err(Error::Setting { key, problem });
    if config.k.is_empty() || config.k.contains(&0) {
        return setting("k", format!("needs numbers of at least 1 (got {:?})", config.k));
    }
    if config.similarities.is_empty() {
        return setting("similarities", "needs at least one".to_owned());
    }
    if config.c.is_empty() || config.c.iter().any(|&c| !c.is_finite() || c <= 0.0) {
        return setting("c", format!("needs numbers above 0 (got {:?})", config.c));
    }
    if !(0.0..1.0).contains(&config.held_out) || config.held_out == 0.0 {
        return setting(
            "held_out",
            format!("must be above 0 and below 1 (got {})", config.held_out),
        );
    }
    Ok(())
}
