//! Segmentation by k-nearest neighbors and by logistic regression on single patches, following
//! CAPI's protocol. Only the regression is trained.

use augment::rng::{Purpose, Rng};
use data::decode::Image;
use data::dense::{DenseSample, IGNORE};
use data::loader::BrokenImage;
use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, SingleProcess};

use super::candidates::best;
use super::confusion::Confusion;
use super::evaluate::{DenseData, ReadSet, Segmenter};
use super::features::{DenseNetwork, nearest_classes, resized, resized_labels};
use super::in_context::rows;
use super::patches::{PatchLabels, join};
use super::shared::Read;
use super::votes::majority;
use crate::error::{Error, Result};
use crate::features::check_finite;
use crate::gather::{agreed, share};
use crate::logistic::{Examples, LogisticConfig, LogisticModel, fit, fit_best};
use crate::nearest::Similarity;

pub use super::candidates::{Candidate, Chosen, KnnSettings};
pub use super::patch_config::PatchConfig;
pub use super::votes::Votes;

/// The [`Purpose::Choice`] number for choosing patches.
const PATCHES: u32 = 702;

/// The patches of a part of the training images.
struct Part {
    features: Tensor, // [M, D], standardized
    pixels: Vec<u8>,  // [M, P * P]
}

/// Patches of the training images. The classifiers learn from most images; candidates for their
/// settings are compared on the held-out rest.
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
    /// Standardized features and all labels of the held-out images that this process has read.
    held_out: Vec<(Tensor, PatchLabels)>,
    /// Number of processes that share the held-out images.
    processes: usize,
    /// Number of training images.
    pub images: usize,
    /// Images that could not be read.
    pub broken: Vec<BrokenImage>,
}

impl<'a> TrainPatches<'a> {
    /// Computes the features of the training images, and standardizes them by their means and
    /// standard deviations.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range, there are fewer than two images, none of them
    /// is readable, or no pixel is labeled.
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
        Self::shared(network, train, config, &SingleProcess, progress)
    }

    /// [`Self::new`] for several processes: each computes the features of its share of the images,
    /// and all of them get the patches of all images. The held-out images stay with the process
    /// that has read them.
    ///
    /// # Errors
    /// Fails like [`Self::new`], and in every process if one fails.
    pub fn shared(
        network: DenseNetwork<'a>,
        train: &DenseData<'_>,
        config: &PatchConfig,
        processes: &dyn Collective,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        config.check()?;
        let config = config.in_whole_patches(network.frozen.network.patch_size());
        let (mut usable, mut lost) = (train.indices(), Vec::new());
        let (read, mut set) = loop {
            let indices = config.held_out_last(&usable);
            let (read, set) = read_images(network, train, &config, &indices, processes, progress)?;
            let count = config.held_out_count(indices.len());
            if read.scorable > 0 || !config.chooses() || usable.len() < count + 2 {
                break (read, set);
            }
            // No held-out image is both readable and labeled, so others are held out.
            let gone = &indices[indices.len() - count..];
            lost.extend(set.broken.into_iter().filter(|image| gone.contains(&image.index)));
            usable.retain(|index| !gone.contains(index));
        };
        set.broken.extend(lost);
        let classes = train.set.rules().classes();
        let patches = Self::standardized(network, config, classes, read, set);
        let patches = agreed(patches, processes)?;
        Ok(Self { processes: processes.size(), ..patches })
    }

    fn standardized(
        network: DenseNetwork<'a>,
        config: PatchConfig,
        classes: usize,
        read: Read,
        set: ReadSet,
    ) -> Result<Self> {
        if read.kept == 0 {
            return Err(Error::NothingLabeled);
        }
        let features = Tensor::f_cat(&read.features, 0)?.f_to_device(network.frozen.device)?;
        let mean = features.mean_dim([0].as_slice(), true, Kind::Float);
        let std = features.std_dim([0].as_slice(), false, true).clamp_min(1e-6);
        let standard = |features: &Tensor| (features - &mean) / &std;
        let held_out = read.held_out.into_iter();
        Ok(Self {
            held_out: held_out.map(|(features, labels)| (standard(&features), labels)).collect(),
            features: standard(&features),
            processes: 1,
            network,
            config,
            classes,
            mean,
            std,
            pixels: read.pixels,
            kept: read.kept,
            images: set.images,
            broken: set.broken,
        })
    }

    /// Returns the settings, with the side in whole patches.
    pub fn config(&self) -> &PatchConfig {
        &self.config
    }

    /// Returns the number of patches of all training images.
    pub fn len(&self) -> usize {
        self.features.size()[0] as usize
    }

    /// Always returns `false`, because there is at least one patch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chooses the k-NN settings with the best mIoU on the held-out images, the first ones among
    /// equals. Returns the classifier with the patches of all training images, and the scores of
    /// all candidates. A single candidate is not scored; its mIoU is NaN.
    ///
    /// # Errors
    /// Returns an error if the held-out images have no label, or several processes share them.
    pub fn knn(&self) -> Result<(PatchSegmenter<'_>, Vec<Candidate<KnnSettings>>)> {
        self.knn_shared(&SingleProcess)
    }

    /// [`Self::knn`] for the processes of [`Self::shared`], each of which segments the held-out
    /// images that it has read.
    ///
    /// # Errors
    /// Returns an error in every process if the held-out images have no label, if the number of
    /// processes is another one than in [`Self::shared`], or if a process fails.
    pub fn knn_shared(
        &self,
        processes: &dyn Collective,
    ) -> Result<(PatchSegmenter<'_>, Vec<Candidate<KnnSettings>>)> {
        self.check_processes(processes.size())?;
        let most = self.config.k.iter().copied().max().unwrap_or(1);
        let mut candidates = Vec::new();
        for &similarity in &self.config.similarities {
            if self.config.k.len() * self.config.similarities.len() == 1 {
                let settings = KnnSettings { k: most, similarity };
                candidates.push(Candidate { settings, miou: f64::NAN });
                continue;
            }
            let confusions = Confusion::sums(self.held_out_counts(similarity), processes)?;
            for (&k, confusion) in self.config.k.iter().zip(&confusions) {
                let miou = confusion.score()?.miou;
                candidates.push(Candidate { settings: KnnSettings { k, similarity }, miou });
            }
        }
        let settings = best(&candidates)?;
        let votes = self.votes(&self.part(self.len()), settings.similarity);
        let votes = agreed(votes, processes)?;
        Ok((
            PatchSegmenter {
                patches: self,
                chosen: Chosen::Knn(settings),
                classifier: Classifier::Knn(votes, settings.k),
            },
            candidates,
        ))
    }

    /// Returns the confusion matrices of the held-out images of this process, one for each number
    /// of neighbors.
    fn held_out_counts(&self, similarity: Similarity) -> Result<Vec<Confusion>> {
        let votes = self.votes(&self.part(self.kept), similarity)?;
        let mut confusions = vec![Confusion::new(self.classes); self.config.k.len()];
        for (features, labels) in &self.held_out {
            let predicted = votes.predict(features, &self.config.k)?;
            for (confusion, predicted) in confusions.iter_mut().zip(predicted) {
                confusion.add(&labels.pixels, &predicted)?;
            }
        }
        Ok(confusions)
    }

    /// Chooses the `C` of logistic regression with the best mIoU on the held-out images, the first
    /// one among equals. Returns a classifier fitted to all training images with this `C`, and the
    /// scores of all candidates. A single candidate is not scored; its mIoU is NaN. The label of a
    /// patch is its most frequent class.
    ///
    /// # Errors
    /// Returns an error if the held-out images have no label, if several processes share them, or
    /// if libtorch fails.
    pub fn logistic(&self) -> Result<(PatchSegmenter<'_>, Vec<Candidate<f64>>)> {
        self.check_processes(1)?;
        let (classes, config) = (self.classes as i64, self.logistic_config());
        let labels = self.majorities();
        let all = Examples { features: &self.features, labels: &labels };
        if let [c] = self.config.c[..] {
            let model = fit(all.features, all.labels, classes, c, &config)?;
            let candidates = vec![Candidate { settings: c, miou: f64::NAN }];
            return Ok((self.regression(c, model), candidates));
        }
        let kept = self.kept as i64;
        let some = Examples {
            features: &self.features.narrow(0, 0, kept),
            labels: &labels.narrow(0, 0, kept),
        };
        let mut mious = vec![0.0; self.config.c.len()];
        let (place, model) = fit_best(&some, &all, classes, &config, &mut |place, model| {
            let mut confusion = Confusion::new(self.classes);
            for (features, labels) in &self.held_out {
                confusion.add(&labels.pixels, &pixel_classes(model, features, labels.area)?)?;
            }
            mious[place] = confusion.score()?.miou;
            Ok(mious[place])
        })?;
        let candidates = self.config.c.iter().zip(mious);
        let candidates = candidates.map(|(&settings, miou)| Candidate { settings, miou }).collect();
        Ok((self.regression(self.config.c[place], model), candidates))
    }

    /// Fails unless `processes` is the number of processes that share the held-out images: without
    /// those of the others, each process could choose other settings.
    fn check_processes(&self, processes: usize) -> Result<()> {
        if processes == self.processes {
            return Ok(());
        }
        let own = self.processes;
        let problem = format!("{own} of them share the held-out images (got {processes})");
        Err(Error::Setting { key: "processes", problem })
    }

    fn regression(&self, c: f64, model: LogisticModel) -> PatchSegmenter<'_> {
        let (chosen, classifier) = (Chosen::Logistic(c), Classifier::Logistic(model));
        PatchSegmenter { patches: self, chosen, classifier }
    }

    fn part(&self, count: usize) -> Part {
        let area = self.pixels.len() / self.len();
        let pixels = self.pixels[..count * area].to_vec();
        Part { features: self.features.narrow(0, 0, count as i64), pixels }
    }

    fn votes(&self, part: &Part, similarity: Similarity) -> Result<Votes> {
        Votes::new(&part.features, part.pixels.clone(), self.classes, similarity)
    }

    /// Returns the most frequent class of each patch, `[M]`.
    fn majorities(&self) -> Tensor {
        let area = self.pixels.len() / self.len();
        let labels = self.pixels.chunks_exact(area);
        let labels = labels.map(|pixels| i64::from(majority(pixels, self.classes)));
        Tensor::from_slice(&labels.collect::<Vec<i64>>())
    }

    fn logistic_config(&self) -> LogisticConfig {
        let mut config = LogisticConfig::default();
        config.c.clone_from(&self.config.c);
        (config.max_iterations, config.tolerance) =
            (self.config.max_iterations, self.config.tolerance);
        config.device = self.network.frozen.device;
        config
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

impl PatchSegmenter<'_> {
    /// Returns the settings that were chosen on the held-out images.
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
        let patch = network.frozen.network.patch_size() as usize;
        let predicted = match &self.classifier {
            Classifier::Knn(votes, k) => votes.predict(&features, &[*k])?.swap_remove(0),
            Classifier::Logistic(model) => pixel_classes(model, &features, patch * patch)?,
        };
        let whole = join(&predicted, patch, side as usize / patch);
        Ok(nearest_classes(&whole, (side, side), size))
    }
}

/// Predicts the class of each patch from features `[N, D]`, repeated for each of its pixels.
fn pixel_classes(model: &LogisticModel, features: &Tensor, area: usize) -> Result<Vec<u8>> {
    let classes = model.scores(features).f_argmax(1, false)?.f_to_kind(Kind::Uint8)?;
    let classes = Vec::<u8>::try_from(classes.f_to_device(Device::Cpu)?.contiguous())?;
    Ok(classes.into_iter().flat_map(|class| std::iter::repeat_n(class, area)).collect())
}

/// Reads this process's share of the images of `indices`, the last of which are held out.
fn read_images(
    network: DenseNetwork<'_>,
    train: &DenseData<'_>,
    config: &PatchConfig,
    indices: &[usize],
    processes: &dyn Collective,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Read, ReadSet)> {
    let per_image = config.per_image(indices.len())?;
    let (side, patch) = (config.side, network.frozen.network.patch_size() as usize);
    let first_held_out = indices.len() - config.held_out_count(indices.len());
    let own = share(indices.len(), processes);
    let prepare = |index: usize, sample: DenseSample| {
        let image = resized(&sample.image, side, side)?;
        let labels = PatchLabels::new(&resized_labels(&sample.labels, side, side), patch);
        Ok((image, chosen(&labels, per_image, config.seed, index), labels))
    };
    let mut read = Read::default();
    let set = train.each_readable(&indices[own.clone()], prepare, |place, image| {
        let (image, chosen, labels) = image;
        let all = rows(&network, &image)?;
        check_finite(&all, "training")?;
        read.keep(&all, &labels, &chosen);
        match own.start + place < first_held_out {
            true => read.kept += chosen.len(),
            false => read.hold_out(all, labels),
        }
        progress(place + 1, own.len());
        Ok(())
    });
    Read::of_all(set.map(|set| (read, set)), processes)
}

/// Returns the indices of at most `most` patches with a labeled pixel, chosen at random if there
/// are more.
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
