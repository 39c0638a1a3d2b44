//! Features of images that are computed once, kept on disk, and shared between evaluations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::Dataset;
use data::loader::{BrokenImage, EvalLoader};
use model::{Mode, VisionTransformer};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::features::{ExtractOptions, FeaturePrecision, FeatureSet, spread, to_input};

mod part;

use part::Part;

/// Images per file. A stopped extraction loses the work on at most this many.
const PART_IMAGES: usize = 4096;

/// One vector of an image, `[D]`, after the final norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFeature {
    /// The class token of a block, counted from the end: 1 is the last block.
    Cls(u8),
    /// The mean of the patch tokens of the last block.
    MeanPatch,
}

impl ImageFeature {
    fn name(self) -> String {
        match self {
            Self::Cls(block) => format!("cls_{block}"),
            Self::MeanPatch => "mean_patch".to_owned(),
        }
    }
}

/// A network and what identifies its weights.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// The network.
    pub backbone: &'a VisionTransformer,
    /// See [`weights_fingerprint`].
    pub fingerprint: &'a str,
}

/// Returns 16 hexadecimal digits that depend on the names, shapes, and values of all tensors.
///
/// # Errors
/// Returns an error if libtorch cannot copy a tensor to the CPU.
pub fn weights_fingerprint(tensors: &[(String, Tensor)]) -> Result<String> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(name, _)| name);
    let mut hash = Sha256::new();
    for (name, tensor) in sorted {
        hash.update(format!("{name} {:?}\n", tensor.size()));
        let values = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut bytes = vec![0u8; values.numel() * 4];
        values.f_copy_data_u8(&mut bytes, values.numel())?;
        hash.update(&bytes);
    }
    Ok(short(hash))
}

/// The first 16 hexadecimal digits of a hash.
fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Vectors of the readable images of a data set, in order.
#[derive(Debug)]
#[non_exhaustive]
pub struct ImageFeatures {
    /// `[n, D]` each, in fp32 on the CPU.
    pub features: BTreeMap<ImageFeature, Tensor>,
    /// Index of each image in the data set.
    pub indices: Vec<usize>,
    /// Class of each image, if it has one.
    pub labels: Vec<Option<u32>>,
    /// Name of each image.
    pub names: Vec<String>,
    /// Names of the classes by label; empty if they have none.
    pub class_names: Vec<String>,
    /// Images that could not be read; they have no row.
    pub broken: Vec<BrokenImage>,
}

impl ImageFeatures {
    /// Returns these features side by side, `[n, parts * D]`, with the labels.
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

/// A folder of features, or none, so that nothing is kept.
///
/// Features are found again by the fingerprints of weights and data, and by everything that
/// changes them: sizes, normalization, and precision. They are stored in files of 4,096 images; an
/// extraction that was stopped continues after the last complete one.
#[derive(Debug, Clone)]
pub struct FeatureStore {
    folder: Option<PathBuf>,
    part_images: usize,
}

impl Default for FeatureStore {
    /// Keeps nothing.
    fn default() -> Self {
        Self { folder: None, part_images: PART_IMAGES }
    }
}

/// What identifies the features of a data set; also written beside them.
#[derive(Debug, Serialize)]
struct Identity<'a> {
    version: u32,
    weights: &'a str,
    data: String,
    images: usize,
    limit: Option<usize>,
    resize: u32,
    crop: u32,
    mean: &'a [f32],
    std: &'a [f32],
    precision: FeaturePrecision,
}

impl FeatureStore {
    /// Keeps features in a folder, which is created when the first are written.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()), ..Self::default() }
    }

    /// Returns `wanted` features of the images of `dataset`, from the folder as far as they are
    /// there. Calls `progress(images done, total images)`.
    ///
    /// # Errors
    /// Returns an error if nothing is wanted or a block does not exist, if the batch size is 0, no
    /// image is readable, the network does not accept the images, or a file cannot be written.
    pub fn features(
        &self,
        network: Network<'_>,
        dataset: &Arc<Dataset>,
        options: &ExtractOptions,
        wanted: &BTreeSet<ImageFeature>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ImageFeatures> {
        check(network.backbone, options, wanted)?;
        let chosen = spread(dataset.len(), options.limit);
        let folder = self.folder_of(network, dataset, options)?;
        let parts = chosen.chunks(self.part_images).enumerate();
        let mut parts: Vec<Part> = parts
            .map(|(i, indices)| Part::open(folder.as_deref(), i, indices.to_vec(), wanted))
            .collect();
        let job = Extraction { network: network.backbone, dataset, options, wanted };
        job.complete(&mut parts, progress)?;
        gather(dataset, parts, wanted)
    }

    /// The folder of these features, with a description in it.
    fn folder_of(
        &self,
        network: Network<'_>,
        dataset: &Dataset,
        options: &ExtractOptions,
    ) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let identity = Identity {
            version: 1,
            weights: network.fingerprint,
            data: dataset.fingerprint(),
            images: dataset.len(),
            limit: options.limit,
            resize: options.transform.resize,
            crop: options.transform.crop,
            mean: &options.normalize.mean,
            std: &options.normalize.std,
            precision: options.precision,
        };
        let unwritten = |path: &Path, error: std::io::Error| Error::Unwritten {
            path: path.to_owned(),
            source: Box::new(error),
        };
        let text = serde_json::to_string_pretty(&identity)
            .map_err(|error| unwritten(folder, error.into()))?;
        let folder = folder.join(short(Sha256::new_with_prefix(&text)));
        fs::create_dir_all(&folder).map_err(|error| unwritten(&folder, error))?;
        let about = folder.join("about.json");
        base::write_atomic(&about, text.as_bytes()).map_err(|error| unwritten(&about, error))?;
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
                format!("must be 1 to {depth} for this network (got {block})"),
            );
        }
    }
    Ok(())
}

/// The features that are missing.
struct Extraction<'a> {
    network: &'a VisionTransformer,
    dataset: &'a Arc<Dataset>,
    options: &'a ExtractOptions,
    wanted: &'a BTreeSet<ImageFeature>,
}

impl Extraction<'_> {
    /// Computes the incomplete parts in one pass over their images, and stores each as soon as it
    /// is complete.
    fn complete(&self, parts: &mut [Part], progress: &mut dyn FnMut(usize, usize)) -> Result<()> {
        let total = parts.iter().map(|part| part.chosen().len()).sum();
        let missing = parts.iter().filter(|part| !part.is_complete());
        let indices: Vec<usize> = missing.flat_map(|part| part.chosen().to_vec()).collect();
        let mut done = total - indices.len();
        progress(done, total);
        if indices.is_empty() {
            return Ok(());
        }
        let ExtractOptions { transform, batch, workers, .. } = *self.options;
        let dataset = Arc::clone(self.dataset);
        let loader = EvalLoader::new(dataset, transform, batch, workers, Some(indices))?;
        let mut parts = parts.iter_mut().filter(|part| !part.is_complete()).peekable();
        for batch in loader {
            let batch = match batch {
                // Others of the set may be readable.
                Err(data::Error::NoReadableImage { .. }) => break,
                batch => batch?,
            };
            done += batch.indices.len() + batch.broken.len();
            let features = self.compute(&batch.images)?;
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

    /// Notes why images of a part have neither a row nor a reason so far. This happens if no image
    /// of the pass could be read.
    fn note_broken(&self, part: &mut Part) {
        for index in part.open_images() {
            let error = self.dataset.image(index).err();
            let reason = error.map_or_else(String::new, |error| base::error_chain(&error));
            part.push_broken(BrokenImage { index, name: self.dataset.name(index), reason });
        }
    }

    /// The wanted features of a batch, `[B, D]` each.
    fn compute(&self, images: &ndarray::Array4<u8>) -> Result<BTreeMap<ImageFeature, Tensor>> {
        let images = to_input(images, &self.options.normalize, self.options.device)?;
        let compute = || tch::no_grad(|| self.vectors(&images));
        match self.options.precision.autocast() {
            None => compute(),
            kind => torch_ext::autocast(self.options.device, kind, compute)?,
        }
    }

    fn vectors(&self, images: &Tensor) -> Result<BTreeMap<ImageFeature, Tensor>> {
        if self.wanted.iter().all(|&feature| feature == ImageFeature::Cls(1)) {
            let cls = self.network.forward_cls(images, Mode::Eval)?;
            return Ok(BTreeMap::from([(ImageFeature::Cls(1), cls.to_kind(Kind::Float))]));
        }
        let blocks = self.wanted.iter().map(|feature| match feature {
            ImageFeature::Cls(block) => i64::from(*block),
            ImageFeature::MeanPatch => 1,
        });
        let layers = self.network.intermediate_layers(images, blocks.max().unwrap_or(1))?;
        let vector = |&feature: &ImageFeature| {
            let block = if let ImageFeature::Cls(block) = feature { usize::from(block) } else { 1 };
            let tokens = &layers[layers.len() - block];
            let vector = match feature {
                ImageFeature::Cls(_) => tokens.cls.to_kind(Kind::Float),
                // [B, N, D] -> [B, D]
                ImageFeature::MeanPatch => {
                    tokens.patches.to_kind(Kind::Float).mean_dim(1, false, None)
                }
            };
            (feature, vector)
        };
        Ok(self.wanted.iter().map(vector).collect())
    }
}

/// All parts in one.
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

#[cfg(test)]
mod tests {
    use augment::EvalTransform;
    use data::DataConfig;
    use data::SyntheticConfig;
    use data::synthetic::write_folder;
    use model::normalize::Normalize;
    use model::{Arch, ModelConfig};
    use tch::nn;

    use super::*;

    const PARTS: [ImageFeature; 3] =
        [ImageFeature::Cls(1), ImageFeature::Cls(2), ImageFeature::MeanPatch];

    fn network(seed: i64) -> (nn::VarStore, VisionTransformer) {
        tch::manual_seed(seed);
        let vars = nn::VarStore::new(Device::Cpu);
        let config = ModelConfig {
            arch: Arch::VitNano,
            patch_size: 8,
            image_size: 32,
            ..ModelConfig::default()
        };
        let network = VisionTransformer::new(&vars.root(), &config).unwrap();
        (vars, network)
    }

    /// 25 images, of which two cannot be read.
    fn images(folder: &Path) -> Arc<Dataset> {
        write_folder(&SyntheticConfig { count: 25, size: 32, seed: 0 }, folder, |_| ()).unwrap();
        let path = folder.join("images").display().to_string();
        let open = || data::open(&DataConfig { path: Some(path.clone()), ..DataConfig::default() });
        let whole = open().unwrap();
        for index in [3, 12] {
            let name = folder.join("images").join(whole.name(index));
            fs::write(name, b"not an image").unwrap();
        }
        Arc::new(open().unwrap())
    }

    fn options() -> ExtractOptions {
        let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] };
        let options = ExtractOptions::new(EvalTransform::for_crop(32), normalize);
        ExtractOptions { batch: 4, workers: Some(2), ..options }
    }

    fn wanted(parts: &[ImageFeature]) -> BTreeSet<ImageFeature> {
        parts.iter().copied().collect()
    }

    /// A store in `folder` of parts of this many images.
    fn store(folder: &Path, part_images: usize) -> FeatureStore {
        FeatureStore { part_images, ..FeatureStore::in_folder(folder) }
    }

    fn features(
        store: &FeatureStore,
        network: &VisionTransformer,
        dataset: &Arc<Dataset>,
        parts: &[ImageFeature],
    ) -> Result<ImageFeatures> {
        let network = Network { backbone: network, fingerprint: "weights" };
        store.features(network, dataset, &options(), &wanted(parts), &mut |_, _| ())
    }

    fn assert_same(one: &ImageFeatures, other: &ImageFeatures) {
        assert_eq!(one.features, other.features);
        assert_eq!((&one.indices, &one.labels), (&other.indices, &other.labels));
        assert_eq!((&one.names, &one.broken), (&other.names, &other.broken));
    }

    #[test]
    fn features_do_not_depend_on_the_store_and_are_computed_once() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = images(&folder.path().join("data"));
        let ((_, network), (_, other)) = (network(1), network(2));
        let fresh = features(&FeatureStore::default(), &network, &dataset, &PARTS).unwrap();
        assert_eq!(fresh.indices.len(), 23);
        assert_eq!(fresh.broken.iter().map(|b| b.index).collect::<Vec<_>>(), [3, 12]);
        assert!(fresh.features[&ImageFeature::Cls(1)] != fresh.features[&ImageFeature::Cls(2)]);
        // With parts of one image, some have no readable image.
        for part_images in [1, 4, 7, 25, 100] {
            let store = store(&folder.path().join(part_images.to_string()), part_images);
            let first = features(&store, &network, &dataset, &PARTS).unwrap();
            assert_same(&fresh, &first);
            // Another network that claims to be the same gets what is there.
            assert_same(&fresh, &features(&store, &other, &dataset, &PARTS).unwrap());
        }
        let cls = features(&FeatureStore::default(), &network, &dataset, &PARTS[..1]).unwrap();
        let error = (&cls.features[&PARTS[0]] - &fresh.features[&PARTS[0]]).abs().max();
        assert!(error.double_value(&[]) < 1e-5, "the class token alone is the same");
    }

    #[test]
    fn a_stopped_extraction_goes_on_and_what_is_missing_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = images(&folder.path().join("data"));
        let ((_, network), (_, other)) = (network(1), network(2));
        let store = store(&folder.path().join("store"), 10);
        let fresh = features(&store, &network, &dataset, &PARTS[..2]).unwrap();
        let file = |number: u32| {
            let entry = fs::read_dir(folder.path().join("store")).unwrap().next().unwrap();
            entry.unwrap().path().join(format!("part-{number:05}.safetensors"))
        };
        assert!(file(2).is_file() && !file(3).is_file());
        fs::write(file(1), b"half a file").unwrap();
        let mended = features(&store, &network, &dataset, &PARTS[..2]).unwrap();
        assert_same(&fresh, &mended);
        // Only the missing part is computed.
        fs::remove_file(file(1)).unwrap();
        let mixed = features(&store, &other, &dataset, &PARTS[..1]).unwrap();
        let rows = |set: &ImageFeatures, first, count| {
            set.features[&ImageFeature::Cls(1)].narrow(0, first, count)
        };
        assert_eq!(rows(&mixed, 0, 9), rows(&fresh, 0, 9));
        assert_ne!(rows(&mixed, 9, 9), rows(&fresh, 9, 9));
        assert_eq!(rows(&mixed, 18, 5), rows(&fresh, 18, 5));
        // A new feature does not replace those that are there.
        features(&store, &network, &dataset, &PARTS[2..]).unwrap();
        let kept = features(&store, &other, &dataset, &[PARTS[0]]).unwrap();
        assert_same(&mixed, &kept);
    }

    #[test]
    fn a_rest_without_a_readable_image_does_not_cost_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = images(&folder.path().join("data"));
        let (_, network) = network(1);
        let store = store(&folder.path().join("store"), 1);
        let fresh = features(&store, &network, &dataset, &PARTS).unwrap();
        let entry = fs::read_dir(folder.path().join("store")).unwrap().next().unwrap();
        for part in ["part-00003.safetensors", "part-00012.safetensors"] {
            fs::remove_file(entry.as_ref().unwrap().path().join(part)).unwrap();
        }
        let again = features(&store, &network, &dataset, &PARTS).unwrap();
        assert_eq!(fresh.features, again.features);
        assert_eq!(again.broken.iter().map(|b| b.index).collect::<Vec<_>>(), [3, 12]);
        assert!(again.broken.iter().all(|b| !b.reason.is_empty()), "{:?}", again.broken);
    }

    #[test]
    fn what_changes_features_changes_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = images(&folder.path().join("data"));
        let (vars, backbone) = network(1);
        let store = FeatureStore::in_folder(folder.path().join("store"));
        let tensors = model::weights::named_variables(&vars);
        let fingerprint = weights_fingerprint(&tensors).unwrap();
        let of = |fingerprint: &str, options: &ExtractOptions| {
            let network = Network { backbone: &backbone, fingerprint };
            store.folder_of(network, &dataset, options).unwrap()
        };
        let base = of(&fingerprint, &options());
        assert_eq!(
            base,
            of(&fingerprint, &ExtractOptions { batch: 9, workers: Some(1), ..options() })
        );
        let _ = tch::no_grad(|| tensors[3].1.shallow_clone().get(0).g_add_scalar_(1e-3));
        let changed = weights_fingerprint(&tensors).unwrap();
        let mut others = vec![of(&changed, &options())];
        let smaller = EvalTransform { resize: 32, crop: 24 };
        others.push(of(&fingerprint, &ExtractOptions { transform: smaller, ..options() }));
        others.push(of(&fingerprint, &ExtractOptions { limit: Some(5), ..options() }));
        let precision = FeaturePrecision::Bf16;
        others.push(of(&fingerprint, &ExtractOptions { precision, ..options() }));
        assert!(others.iter().all(|other| *other != base), "{others:?}");
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = images(&folder.path().join("data"));
        let (_, network) = network(1);
        let store = FeatureStore::default();
        let error = |parts: &[ImageFeature]| {
            features(&store, &network, &dataset, parts).unwrap_err().to_string()
        };
        assert!(error(&[]).contains("at least one"));
        assert!(error(&[ImageFeature::Cls(5)]).contains("1 to 4"));
        assert!(error(&[ImageFeature::Cls(0)]).contains("1 to 4"));
        let set = features(&store, &network, &dataset, &PARTS[..2]).unwrap();
        assert_eq!(set.side_by_side(&PARTS[..2]).unwrap().features.size(), [23, 256]);
        assert!(set.side_by_side(&PARTS).unwrap_err().to_string().contains("mean_patch"));
    }
}
