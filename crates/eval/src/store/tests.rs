//! Tests of the store: against an extraction without one, and when interrupted, damaged, and
//! resumed.

use std::path::Path;

use augment::EvalTransform;
use data::DataConfig;
use data::SyntheticConfig;
use data::synthetic::write_folder;
use model::normalize::Normalize;
use model::weights::PretrainedBackbone;
use model::{Arch, ModelConfig, PosInterpolation};
use tch::{Device, nn};

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

/// Writes a dataset of 25 images, two of which cannot be read.
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

/// Returns a store in `folder` with parts of this many images.
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
    // If parts have one image each, some of them have no readable image.
    for part_images in [1, 4, 7, 25, 100] {
        let store = store(&folder.path().join(part_images.to_string()), part_images);
        let first = features(&store, &network, &dataset, &PARTS).unwrap();
        assert_same(&fresh, &first);
        // Another network with the same fingerprint gets the stored features.
        assert_same(&fresh, &features(&store, &other, &dataset, &PARTS).unwrap());
    }
    let cls = features(&FeatureStore::default(), &network, &dataset, &PARTS[..1]).unwrap();
    let error = (&cls.features[&PARTS[0]] - &fresh.features[&PARTS[0]]).abs().max();
    assert!(error.double_value(&[]) < 1e-5, "the class token alone is the same");
}

#[test]
fn processes_fill_the_store_together() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = images(&folder.path().join("data"));
    let ((_, network), (_, other)) = (network(1), network(2));
    let fresh = features(&FeatureStore::default(), &network, &dataset, &PARTS).unwrap();
    let store = store(&folder.path().join("store"), 4);
    let whole = Network { backbone: &network, fingerprint: "weights" };
    for rank in [2, 0, 1] {
        store.fill(whole, &dataset, &options(), &wanted(&PARTS), (rank, 3)).unwrap();
        let parts = fs::read_dir(folder.path().join("store")).unwrap().next().unwrap().unwrap();
        let files = fs::read_dir(parts.path()).unwrap().count() - 1;
        assert_eq!(files, [3, 5, 7][[2, 0, 1].iter().position(|&r| r == rank).unwrap()]);
    }
    // Another network with the same fingerprint finds all features.
    assert_same(&fresh, &features(&store, &other, &dataset, &PARTS).unwrap());
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
    // A new feature does not replace the stored ones.
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
fn an_image_that_can_be_read_again_is_computed_and_the_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = images(&folder.path().join("data"));
    let ((_, network), (_, other)) = (network(1), network(2));
    let path = |index: usize| folder.path().join("data/images").join(dataset.name(index));
    let store = store(&folder.path().join("store"), 10);
    let before = features(&store, &network, &dataset, &PARTS[..1]).unwrap();
    fs::copy(path(4), path(3)).unwrap();
    let after = features(&store, &other, &dataset, &PARTS[..1]).unwrap();
    assert_eq!(after.indices, (0..25).filter(|&index| index != 12).collect::<Vec<_>>());
    assert_eq!(after.broken.iter().map(|b| b.index).collect::<Vec<_>>(), [12]);
    let row = |set: &ImageFeatures, row: i64| set.features[&PARTS[0]].get(row);
    assert_eq!(row(&after, 2), row(&before, 2));
    assert_eq!(row(&after, 4), row(&before, 3), "the row of image 4");
    assert_ne!(row(&after, 3), row(&after, 4), "the other network was asked for image 3");
    assert_same(&after, &features(&store, &network, &dataset, &PARTS[..1]).unwrap());
}

#[test]
fn what_no_tensor_tells_changes_the_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let (vars, _) = network(1);
    let path = folder.path().join("network.safetensors");
    let tensors = model::weights::named_variables(&vars);
    model::weights::write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let open = || PretrainedBackbone::open(&path, Device::Cpu).unwrap();
    let of = |change: &dyn Fn(&mut PretrainedBackbone)| {
        let mut network = open();
        change(&mut network);
        network_fingerprint(&network).unwrap()
    };
    let same = of(&|_| ());
    assert_eq!(same, of(&|network| network.model.drop_path_rate = 0.9));
    assert_eq!(same, of(&|network| network.model.num_heads = Some(network.model.heads())));
    let changes: [&dyn Fn(&mut PretrainedBackbone); 8] = [
        &|network| network.model.num_heads = Some(2),
        &|network| network.model.norm_eps = 1e-5,
        &|network| network.model.qk_norm = true,
        &|network| network.model.pos_interpolation = PosInterpolation::Size,
        &|network| network.normalize.mean[1] = 0.25,
        &|network| network.normalize.std[0] = 0.5,
        &|network| network.value_range = vec![[0.0, 1023.0]],
        &|network| {
            let first = network.tensors()[0].1.flatten(0, -1).get(0);
            let _ = tch::no_grad(|| first.shallow_clone().g_add_scalar_(1e-3));
        },
    ];
    let others: BTreeSet<String> = changes.iter().map(|change| of(*change)).collect();
    assert!(others.len() == 8 && !others.contains(&same), "{others:?}");
}

#[test]
fn what_changes_features_changes_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = images(&folder.path().join("data"));
    let (_, backbone) = network(1);
    let store = FeatureStore::in_folder(folder.path().join("store"));
    let fingerprint = "a";
    let of = |fingerprint: &str, options: &ExtractOptions| {
        let network = Network { backbone: &backbone, fingerprint };
        store.folder_of(network, &dataset, options).unwrap()
    };
    let base = of(fingerprint, &options());
    assert_eq!(base, of(fingerprint, &ExtractOptions { batch: 9, workers: Some(1), ..options() }));
    let mut others = vec![of("b", &options())];
    let smaller = EvalTransform { resize: 32, crop: 24 };
    others.push(of(fingerprint, &ExtractOptions { transform: smaller, ..options() }));
    others.push(of(fingerprint, &ExtractOptions { limit: Some(5), ..options() }));
    let precision = FeaturePrecision::Bf16;
    others.push(of(fingerprint, &ExtractOptions { precision, ..options() }));
    // An image of the same name and size.
    let path = folder.path().join("data/images").join(dataset.name(0));
    let mut bytes = fs::read(&path).unwrap();
    bytes.reverse();
    fs::write(&path, bytes).unwrap();
    let root = folder.path().join("data/images").display().to_string();
    let changed = data::open(&DataConfig { path: Some(root), ..DataConfig::default() }).unwrap();
    assert_eq!(changed.fingerprint(), dataset.fingerprint());
    let network = Network { backbone: &backbone, fingerprint };
    others.push(store.folder_of(network, &changed, &options()).unwrap());
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
