//! Tests of linear probes on random crops: what they learn from, and interruptions.
#![allow(clippy::unwrap_used)] // test helpers

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use augment::EvalTransform;
use data::synthetic::write_folder;
use data::{DataConfig, Dataset, SyntheticConfig};
use eval::linear::{EpochLength, FreshImages, HeadInput, LinearConfig, LinearProbe, LinearResult};
use eval::store::{FeatureStore, ImageFeatures, Network};
use eval::{Error, ExtractOptions, FeatureSet};
use model::normalize::Normalize;
use model::{Arch, ModelConfig, VisionTransformer};
use tch::{Device, nn};

struct Bench {
    _vars: nn::VarStore,
    network: VisionTransformer,
    dataset: Arc<Dataset>,
    features: ImageFeatures,
    set: FeatureSet,
    options: ExtractOptions,
    config: LinearConfig,
}

/// Prepares a network and 40 images, two of which cannot be read.
fn bench(folder: &Path) -> Bench {
    write_folder(&SyntheticConfig { count: 40, size: 32, seed: 0 }, folder, |_| ()).unwrap();
    let path = folder.join("images").display().to_string();
    let open = || data::open(&DataConfig { path: Some(path.clone()), ..DataConfig::default() });
    let whole = open().unwrap();
    for index in [3, 12] {
        std::fs::write(folder.join("images").join(whole.name(index)), b"not an image").unwrap();
    }
    let dataset = Arc::new(open().unwrap());
    tch::manual_seed(0);
    let vars = nn::VarStore::new(Device::Cpu);
    let model =
        ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..Default::default() };
    let network = VisionTransformer::new(&vars.root(), &model).unwrap();
    let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let mut options = ExtractOptions::new(EvalTransform { resize: 32, crop: 32 }, normalize);
    options.workers = Some(2);
    let mut config = LinearConfig::dinov2();
    config.inputs = [1, 2].map(|blocks| HeadInput { blocks, mean_patch: true }).to_vec();
    config.rates = vec![0.1, 1.0];
    (config.batch, config.epochs, config.epoch_length) = (10, 3, EpochLength::Steps(7));
    let wanted: BTreeSet<_> = config.features().into_iter().collect();
    let of = Network { backbone: &network, fingerprint: "weights" };
    let store = FeatureStore::default();
    let features = store.features(of, &dataset, &options, &wanted, &mut |_, _| ()).unwrap();
    let set = features.side_by_side(&config.features()).unwrap();
    Bench { _vars: vars, network, dataset, features, set, options, config }
}

impl Bench {
    fn probe(&self, config: &LinearConfig) -> LinearProbe<'_> {
        let fresh = FreshImages {
            dataset: &self.dataset,
            indices: &self.features.indices,
            network: &self.network,
            options: &self.options,
        };
        LinearProbe::new(&self.set, &self.set, config, Some(fresh)).unwrap()
    }

    fn whole(&self, config: &LinearConfig) -> LinearResult {
        let mut probe = self.probe(config);
        probe.run(None, &mut |_, _| ()).unwrap();
        probe.result().unwrap()
    }
}

#[test]
fn crops_are_the_same_wherever_it_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(folder.path());
    let mut by_pass = bench.config.clone();
    (by_pass.epoch_length, by_pass.epochs, by_pass.holdout) = (EpochLength::Pass, 4, true);
    for config in [&bench.config, &by_pass] {
        let whole = bench.whole(config);
        let file = folder.path().join("state.safetensors");
        for cuts in [[1, 3], [4, 5], [7, 2]] {
            let mut probe = bench.probe(config);
            for cut in cuts {
                probe.advance(cut).unwrap();
                probe.save(&file, "").unwrap();
                probe = bench.probe(config);
                assert!(probe.restore(&file, ""));
            }
            assert_eq!(probe.progress().0, cuts[0] + cuts[1]);
            probe.advance(usize::MAX).unwrap();
            let last = folder.path().join("last.safetensors");
            probe.save(&last, "").unwrap();
            let mut other = bench.probe(config);
            other.advance(usize::MAX).unwrap();
            other.save(&file, "").unwrap();
            let bytes = |path: &Path| std::fs::read(path).unwrap();
            assert!(bytes(&last) == bytes(&file), "cut after {cuts:?}");
            assert_eq!(probe.result().unwrap(), whole);
        }
    }
}

#[test]
fn crops_teach_and_differ_from_centers() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(folder.path());
    assert_eq!(bench.set.len(), 38);
    let mut config = bench.config.clone();
    config.epochs = 12;
    let fresh = bench.whole(&config);
    let mut stored = LinearProbe::new(&bench.set, &bench.set, &config, None).unwrap();
    stored.run(None, &mut |_, _| ()).unwrap();
    let stored = stored.result().unwrap();
    // There are ten classes, and the training images are also the test images.
    assert!(fresh.top1 > 0.3 && stored.top1 > fresh.top1, "{fresh:?} {stored:?}");
    assert_eq!((fresh.num_train, fresh.classes), (38, 10));
}

#[test]
fn images_that_are_lost_on_the_way_cost_only_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(folder.path());
    let lose = |index: usize| {
        let name = bench.dataset.name(bench.features.indices[index]);
        std::fs::write(folder.path().join("images").join(name), b"gone").unwrap();
    };
    lose(5);
    let result = bench.whole(&bench.config);
    assert_eq!(result.num_test, 38);
    (0..38).for_each(lose);
    let error = bench.probe(&bench.config).advance(3).unwrap_err();
    assert!(matches!(error, Error::LostImages { .. } | Error::Data(_)), "{error}");
}
