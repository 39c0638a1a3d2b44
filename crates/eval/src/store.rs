//! A store of image features, which are computed once, kept on disk, and shared by evaluations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use data::Dataset;
use data::loader::{BrokenImage, EvalLoader};
use model::{Mode, VisionTransformer};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::error::{Error, Result, unwritten};
use crate::features::{ExtractOptions, FeaturePrecision, FeatureSet, to_input};
use crate::gather::share_of;
use crate::subset::{SUBSET_VERSION, evenly_spaced};

mod feature;
mod fingerprint;
mod part;
#[cfg(test)]
mod tests;

pub use feature::ImageFeature;
pub use fingerprint::network_fingerprint;
pub(crate) use fingerprint::short;
use part::Part;

/// Number of images per file. An interrupted extraction loses the work on at most this many.
const PART_IMAGES: usize = 4096;

/// Identifies the preprocessing, which decides the pixels that a network sees of a file. Decoders
/// may change with every release, so it contains the version. Between releases, increment the last
/// number with any change to decoding, resizing, or normalization.
const PREPROCESSING: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");

/// A network and what identifies it.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// The network.
    pub backbone: &'a VisionTransformer,
    /// The result of [`network_fingerprint`].
    pub fingerprint: &'a str,
}

/// Features of the readable images of a dataset, in order.
#[derive(Debug)]
#[non_exhaustive]
pub struct ImageFeatures {
    /// The features, `[n, D]` each, in fp32 on the CPU.
    pub features: BTreeMap<ImageFeature, Tensor>,
    /// Index of each image in the dataset.
    pub indices: Vec<usize>,
    /// Class of each image, if it has one.
    pub labels: Vec<Option<u32>>,
    /// Name of each image.
    pub names: Vec<String>,
    /// Names of the classes by label; empty if classes have no names.
    pub class_names: Vec<String>,
    /// Images that could not be read and have no row.
    pub broken: Vec<BrokenImage>,
}

impl ImageFeatures {
    /// Returns these features concatenated, `[n, parts * D]`, with the labels.
    ///
    /// # Errors
    /// Returns an error if one of them was not requested from the store.
    pub fn side_by_side(&self, parts: &[ImageFeature]) -> Result<FeatureSet> {
        let part = |part: &ImageFeature| {
            let missing = || Error::NoFeature { name: part.name() };
            self.features.get(part).map(Tensor::shallow_clone).ok_or_else(missing)
        };
        let parts: Vec<Tensor> = parts.iter().map(part).collect::<Result<_>>()?;
        let mut set = FeatureSet::new(Tensor::f_cat(&parts, 1)?, self.labels.clone());
        set.names = self.names.clone();
        set.class_names = self.class_names.clone();
        set.broken = self.broken.clone();
        Ok(set)
    }
}

/// A folder of features, or an empty store that keeps nothing.
///
/// Features are looked up by the fingerprints of the weights and the data, by the contents of a
/// sample of the images, and by everything else that affects them: sizes, normalization, precision, and the version of the decoders. They are
/// stored in files of 4,096 images, and an interrupted extraction resumes after the last complete
/// file. Images that could not be read are tried again.
#[derive(Debug, Clone)]
pub struct FeatureStore {
    folder: Option<PathBuf>,
    part_images: usize,
}

impl Default for FeatureStore {
    /// Returns a store that keeps nothing.
    fn default() -> Self {
        Self { folder: None, part_images: PART_IMAGES }
    }
}

/// The identity of the features of a dataset, which is also written next to them.
#[derive(Debug, Serialize)]
struct Identity<'a> {
    version: u32,
    preprocessing: &'a str,
    weights: &'a str,
    data: String,
    sample: String,
    images: usize,
    limit: Option<usize>,
    resize: u32,
    crop: u32,
    mean: &'a [f32],
    std: &'a [f32],
    precision: FeaturePrecision,
}

impl FeatureStore {
    /// Returns a store that keeps features in a folder, which is created when needed.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..Self::default() }
    }

    /// Returns the `wanted` features of the images of `dataset`, reading them from the folder where
    /// possible. Calls `progress(completed images, total images)`.
    ///
    /// # Errors
    /// Returns an error if nothing is wanted, a block does not exist, the batch size is 0, no image
    /// is readable, the network does not accept the images, or a file cannot be written.
    pub fn features(
        &self,
        network: Network<'_>,
        dataset: &Arc<Dataset>,
        options: &ExtractOptions,
        wanted: &BTreeSet<ImageFeature>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ImageFeatures> {
        let mut parts = self.parts(network, dataset, options, wanted)?;
        let job = Extraction { network: network.backbone, dataset, options, wanted };
        job.complete(&mut parts, progress)?;
        gather(dataset, parts, wanted)
    }

    /// Computes the share of process `rank` of `size` of the features that are not kept yet. Once
    /// all processes have done so, [`Self::features`] finds them in the folder, which all must see.
    ///
    /// # Errors
    /// Same as for [`Self::features`].
    pub fn fill(
        &self,
        network: Network<'_>,
        dataset: &Arc<Dataset>,
        options: &ExtractOptions,
        wanted: &BTreeSet<ImageFeature>,
        process: (usize, usize),
    ) -> Result<()> {
        let mut parts = self.parts(network, dataset, options, wanted)?;
        let count = parts.len();
        let own = &mut parts[share_of(count, process)];
        let job = Extraction { network: network.backbone, dataset, options, wanted };
        job.complete(own, &mut |_, _| ())
    }

    /// Opens the parts of the images that `options` choose.
    fn parts(
        &self,
        network: Network<'_>,
        dataset: &Arc<Dataset>,
        options: &ExtractOptions,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Result<Vec<Part>> {
        check(network.backbone, options, wanted)?;
        let chosen = evenly_spaced(dataset.len(), options.limit);
        let folder = self.folder_of(network, dataset, options)?;
        let parts = chosen.chunks(self.part_images).enumerate();
        let open = |(i, indices): (usize, &[usize])| {
            Part::open(folder.as_deref(), i, indices.to_vec(), wanted)
        };
        Ok(parts.map(open).collect())
    }

    /// Creates the folder of these features, with a description in it, and returns its path.
    fn folder_of(
        &self,
        network: Network<'_>,
        dataset: &Dataset,
        options: &ExtractOptions,
    ) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let identity = Identity {
            version: SUBSET_VERSION,
            preprocessing: PREPROCESSING,
            weights: network.fingerprint,
            data: dataset.fingerprint(),
            sample: dataset.sample(),
            images: dataset.len(),
            limit: options.limit,
            resize: options.transform.resize,
            crop: options.transform.crop,
            mean: &options.normalize.mean,
            std: &options.normalize.std,
            precision: options.precision,
        };
        let text = serde_json::to_string_pretty(&identity).map_err(unwritten(folder))?;
        let folder = folder.join(short(Sha256::new_with_prefix(&text)));
        fs::create_dir_all(&folder).map_err(unwritten(&folder))?;
        let about = folder.join("about.json");
        base::write_atomic(&about, text.as_bytes()).map_err(unwritten(&about))?;
        Ok(Some(folder))
    }
}

fn check(
    network: &VisionTransformer,
    options: &ExtractOptions,
    wanted: &BTreeSet<ImageFeature>,
) -> Result<()> {
    let setting = |key, problem: String| Err(Error::Setting { key, problem });
    if options.batch == 0 {
        return setting("batch", "must be at least 1 (got 0)".to_owned());
    }
    if wanted.is_empty() {
        return setting("features", "must name at least one feature".to_owned());
    }
    let depth = network.depth();
    for feature in wanted {
        if let ImageFeature::Cls(block) = feature
            && !(1..=depth).contains(&i64::from(*block))
        {
            return setting(
                "blocks",
                format!("must be from 1 to {depth} for this network (got {block})"),
            );
        }
    }
    Ok(())
}

/// The computation of missing features.
struct Extraction<'a> {
    network: &'a VisionTransformer,
    dataset: &'a Arc<Dataset>,
    options: &'a ExtractOptions,
    wanted: &'a BTreeSet<ImageFeature>,
}

impl Extraction<'_> {
    /// Computes what is missing in one pass over the images, and writes each part as soon as it is
    /// complete.
    fn complete(&self, parts: &mut [Part], progress: &mut dyn FnMut(usize, usize)) -> Result<()> {
        let total = parts.iter().map(|part| part.chosen().len()).sum();
        let indices: Vec<usize> = parts.iter().flat_map(Part::missing).collect();
        let mut done = total - indices.len();
        progress(done, total);
        if indices.is_empty() {
            return Ok(());
        }
        let ExtractOptions { transform, batch, workers, .. } = *self.options;
        let dataset = Arc::clone(self.dataset);
        let loader = EvalLoader::new(dataset, transform, batch, workers, Some(indices))?;
        let mut parts = parts.iter_mut().filter(|part| !part.missing().is_empty()).peekable();
        for batch in loader {
            let batch = match batch {
                // Images that are stored already may be readable.
                Err(data::Error::NoReadableImage { .. }) => break,
                batch => batch?,
            };
            done += batch.indices.len() + batch.broken.len();
            let features = match batch.indices.is_empty() {
                true => BTreeMap::new(),
                false => self.compute(&batch.images)?,
            };
            let (mut row, mut broken) = (0, batch.broken.into_iter().peekable());
            while let Some(part) = parts.peek_mut() {
                let rows = batch.indices[row..].iter().take_while(|&&i| part.holds(i)).count();
                part.push(&batch.indices[row..row + rows], &features, row);
                while let Some(image) = broken.next_if(|image| part.holds(image.index)) {
                    part.push_broken(image);
                }
                row += rows;
                if row == batch.indices.len() && broken.peek().is_none() {
                    break;
                }
                part.finish()?;
                parts.next();
            }
            progress(done, total);
        }
        parts.try_for_each(|part| {
            self.note_broken(part);
            part.finish()
        })
    }

    /// Records the images of a part that have neither a row nor a reason yet, which happens if no
    /// image of the pass could be read.
    fn note_broken(&self, part: &mut Part) {
        for index in part.missing() {
            let error = self.dataset.image(index).err();
            let reason = error.map_or_else(String::new, |error| error.reason());
            part.push_broken(BrokenImage { index, name: self.dataset.name(index), reason });
        }
    }

    /// Computes the wanted features of a batch, `[B, D]` each.
    fn compute(&self, images: &ndarray::Array4<u8>) -> Result<BTreeMap<ImageFeature, Tensor>> {
        compute(self.network, images, self.options, self.wanted)
    }
}

/// Computes the wanted features of a batch of pixels `[B, H, W, C]`, `[B, D]` each in fp32 on the
/// device of the network.
pub(crate) fn compute(
    network: &VisionTransformer,
    images: &ndarray::Array4<u8>,
    options: &ExtractOptions,
    wanted: &BTreeSet<ImageFeature>,
) -> Result<BTreeMap<ImageFeature, Tensor>> {
    let images = to_input(images, &options.normalize, options.device)?;
    let compute = || tch::no_grad(|| vectors(network, &images, wanted));
    match options.precision.autocast() {
        None => compute(),
        kind => torch_ext::autocast(options.device, kind, compute)?,
    }
}

/// Computes the wanted features of normalized images `[B, C, H, W]`, `[B, D]` each in fp32 on their
/// device.
fn vectors(
    network: &VisionTransformer,
    images: &Tensor,
    wanted: &BTreeSet<ImageFeature>,
) -> Result<BTreeMap<ImageFeature, Tensor>> {
    if wanted.iter().all(|&feature| feature == ImageFeature::Cls(1)) {
        let cls = network.forward_cls(images, Mode::Eval)?;
        return Ok(BTreeMap::from([(ImageFeature::Cls(1), cls.to_kind(Kind::Float))]));
    }
    let blocks = wanted.iter().map(|feature| match feature {
        ImageFeature::Cls(block) => i64::from(*block),
        ImageFeature::MeanPatch => 1,
    });
    let layers = network.intermediate_layers(images, blocks.max().unwrap_or(1))?;
    let vector = |&feature: &ImageFeature| {
        let block = if let ImageFeature::Cls(block) = feature { usize::from(block) } else { 1 };
        let tokens = &layers[layers.len() - block];
        let vector = match feature {
            ImageFeature::Cls(_) => tokens.cls.to_kind(Kind::Float),
            // [B, N, D] -> [B, D]
            ImageFeature::MeanPatch => tokens.patches.to_kind(Kind::Float).mean_dim(1, false, None),
        };
        (feature, vector)
    };
    Ok(wanted.iter().map(vector).collect())
}

/// Concatenates all parts.
fn gather(
    dataset: &Dataset,
    parts: Vec<Part>,
    wanted: &BTreeSet<ImageFeature>,
) -> Result<ImageFeatures> {
    let (mut indices, mut broken) = (Vec::new(), Vec::new());
    let mut pieces: BTreeMap<ImageFeature, Vec<Tensor>> = BTreeMap::new();
    let asked = parts.iter().map(|part| part.chosen().len()).sum();
    for part in parts {
        let (rows, features, unreadable) = part.into_contents();
        indices.extend(rows);
        broken.extend(unreadable);
        for (feature, rows) in features {
            pieces.entry(feature).or_default().push(rows);
        }
    }
    if indices.is_empty() {
        let first = broken.first().map(|b| format!("{}: {}", b.name, b.reason));
        return Err(Error::NoImages { asked, first: first.unwrap_or_default() });
    }
    let mut features = BTreeMap::new();
    for &feature in wanted {
        features.insert(feature, Tensor::f_cat(&pieces.remove(&feature).unwrap_or_default(), 0)?);
    }
    Ok(ImageFeatures {
        features,
        labels: indices.iter().map(|&index| dataset.label(index)).collect(),
        names: indices.iter().map(|&index| dataset.name(index)).collect(),
        class_names: dataset.class_names().to_vec(),
        indices,
        broken,
    })
}
