//! Tests of linear probes: against PyTorch (tools/parity/linear.py), by hand, and with
//! interruptions.
#![allow(clippy::unwrap_used)] // test helpers

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use augment::rng::{Purpose, Rng};
use tch::{Device, Kind, Tensor};

use super::*;
use crate::features::FeatureSet;

fn fixture() -> BTreeMap<String, Tensor> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/linear.safetensors");
    model::weights::read_safetensors(&path).unwrap().tensors
}

fn set(file: &BTreeMap<String, Tensor>, name: &str) -> FeatureSet {
    let labels = Vec::<i64>::try_from(&file[&format!("{name}_labels")]).unwrap().into_iter();
    let labels = labels.map(|label| Some(label as u32)).collect();
    FeatureSet::new(file[name].shallow_clone(), labels)
}

/// Returns the settings of the fixture.
fn config(file: &BTreeMap<String, Tensor>) -> LinearConfig {
    let inputs: Vec<i64> = Vec::try_from(file["inputs"].view([-1])).unwrap();
    let inputs =
        inputs.chunks(2).map(|pair| HeadInput { blocks: pair[0] as u8, mean_patch: pair[1] == 1 });
    LinearConfig {
        inputs: inputs.collect(),
        rates: Vec::try_from(&file["rates"]).unwrap(),
        batch: 8,
        epochs: 1,
        epoch_length: EpochLength::Steps(100),
        ..LinearConfig::dinov2()
    }
}

/// Converts the weights `[K, C]` and bias `[K]` of a head to the rows of [`Layout`], `[C + 1, K]`.
fn column(layout: Layout, weight: &Tensor, bias: &Tensor, input: HeadInput) -> Tensor {
    let weight = weight.tr();
    let tokens = layout.width * i64::from(input.blocks);
    let mean = weight.narrow(0, tokens, weight.size()[0] - tokens);
    Tensor::cat(&[weight.narrow(0, 0, tokens), bias.unsqueeze(0), mean], 0)
}

#[test]
fn heads_learn_as_those_of_pytorch() {
    let file = fixture();
    let config = config(&file);
    let layout = Layout::of(&config.inputs, 5);
    let order = StepPlan::new(&config, 48);
    for (name, optimizer, scale) in [
        ("sgd", HeadOptimizer::Sgd { momentum: 0.9 }, 1.0),
        ("adamw", HeadOptimizer::AdamW { weight_decay: 0.01 }, 0.1),
    ] {
        let rates: Vec<f64> = config.rates.iter().map(|rate| rate * scale).collect();
        let mut heads = Heads::new(&config.inputs, layout, &rates, optimizer, (3, Device::Cpu, 0));
        let bias = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        let mut state: BTreeMap<String, Tensor> = heads.tensors().into_iter().collect();
        let group = |of: &dyn Fn(usize) -> Tensor, i: usize| {
            Tensor::cat(&(0..3).map(|rate| of(3 * i + rate)).collect::<Vec<_>>(), 1)
        };
        for (i, &input) in config.inputs.iter().enumerate() {
            let start = |head| column(layout, &file[&format!("start.{head}")], &bias, input);
            state.insert(format!("weight.{i}"), group(&start, i));
        }
        heads.restore(0, &state).unwrap();
        let rows = layout.with_ones(&file["train"]);
        for step in 0..order.steps() {
            let batch = file["batches"].get(step as i64);
            let labels = file["train_labels"].index_select(0, &batch);
            heads.step(&rows.index_select(0, &batch), None, &labels, order.rate_factor(step));
        }
        let state: BTreeMap<String, Tensor> = heads.tensors().into_iter().collect();
        for (i, &input) in config.inputs.iter().enumerate() {
            let of = |head| {
                let part = |part: &str| &file[&format!("{name}.{head}.{part}")];
                column(layout, part("weight"), part("bias"), input)
            };
            // Relative to the largest weight, which is 1 to 5 here.
            let expected = group(&of, i);
            let error = (&state[&format!("weight.{i}")] - &expected).abs().max();
            let error = (error / expected.abs().max()).double_value(&[]);
            assert!(error < 1e-6, "{name}, heads of {input:?}: {error}");
        }
        let correct = heads.correct(&layout.with_ones(&file["test"]), &file["test_labels"]);
        assert_eq!(correct.select(1, 0), file[&format!("{name}.correct")], "{name}");
    }
}

/// Returns few images with many features that share a large common part.
fn wide(count: usize, seed: u64) -> FeatureSet {
    let mut rng = Rng::new(seed, 0, 0, Purpose::Choice(1));
    let values: Vec<f32> = (0..count * 3 * 40).map(|_| (2.0 + rng.normal()) as f32).collect();
    let labels = (0..count).map(|image| Some((image % 3) as u32)).collect();
    FeatureSet::new(Tensor::from_slice(&values).view([count as i64, 3 * 40]), labels)
}

#[test]
fn heads_of_few_images_learn_as_those_of_many() {
    let inputs = [1, 2].map(|blocks| HeadInput { blocks, mean_patch: blocks == 2 }).to_vec();
    let rates = vec![1e-3, 1e-2];
    let sgd = HeadOptimizer::Sgd { momentum: 0.9 };
    let layout = Layout::of(&inputs, 40);
    let rows = layout.with_ones(&wide(100, 3).features);
    let labels = Tensor::arange(100, (Kind::Int64, Device::Cpu)).remainder(3);
    let new = || Heads::new(&inputs, layout, &rates, sgd, (3, Device::Cpu, 0));
    let (mut many, mut few) = (new(), new());
    few.learn_from(&rows);
    let names: Vec<String> = few.tensors().into_iter().map(|(name, _)| name).collect();
    // The first input has fewer features than images.
    assert_eq!(names, ["weight.0", "moment.0.0", "factors.1", "velocity.1"]);
    for step in 0..200 {
        // An image may occur twice in a batch.
        let images = Tensor::from_slice(&[0, 0, 7, 11, 13].map(|at| (at * step + at) % 100));
        let (own, labels) = (rows.index_select(0, &images), labels.index_select(0, &images));
        many.step(&own, None, &labels, 0.5);
        few.step(&own, Some(&images), &labels, 0.5);
    }
    for (many, few) in many.weights().iter().zip(few.weights()) {
        let error = (many - few).abs().max() / many.abs().max();
        assert!(error.double_value(&[]) < 1e-5, "{error}");
    }
    assert_eq!(many.correct(&rows, &labels), few.correct(&rows, &labels));
}

#[test]
fn the_best_head_is_the_first_of_the_best() {
    let file = fixture();
    let (train, test) = (set(&file, "train"), set(&file, "test"));
    let mut probe = LinearProbe::new(&train, &test, &config(&file), None).unwrap();
    assert!(probe.result().is_err(), "nothing is known before the last step");
    probe.run(None, &mut |_, _| ()).unwrap();
    let result = probe.result().unwrap();
    let most = result.heads.iter().copied().fold(0.0, f64::max);
    let best = result.heads.iter().position(|&top1| top1 == most).unwrap();
    assert_eq!((result.top1, result.heads.len()), (most, 12));
    assert_eq!((result.input, result.rate), probe.head(best));
    assert!(most > 0.6 && result.top5 == 1.0, "three classes: {result:?}");
    assert!(
        result.notes.iter().any(|note| note.contains("chosen on the test images")),
        "{result:?}"
    );
    assert_eq!((result.num_train, result.num_test, result.classes), (48, 60, 3));
}

fn bits(probe: &LinearProbe<'_>) -> Vec<(String, Vec<f32>)> {
    let tensors = probe.heads.tensors().into_iter();
    tensors.map(|(name, t)| (name, Vec::try_from(t.flatten(0, -1)).unwrap())).collect()
}

/// Asserts bitwise equality, and reports the first values that differ to make rare failures easier
/// to debug.
fn assert_equal_bits(probe: &LinearProbe<'_>, whole: &LinearProbe<'_>, which: &str) {
    let (found, expected) = (bits(probe), bits(whole));
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        let pairs = found.iter().zip(expected).enumerate();
        let differ: Vec<_> = pairs
            .filter(|(_, (a, b))| a.to_bits() != b.to_bits())
            .map(|(i, (a, b))| (i, a, b))
            .collect();
        let few = &differ[..differ.len().min(4)];
        assert!(
            differ.is_empty(),
            "{which}: {} of {} of {name}: {few:?}",
            differ.len(),
            found.len()
        );
    }
}

#[test]
fn an_interrupted_probe_ends_as_if_it_had_not_been() {
    let file = fixture();
    let (train, test) = (set(&file, "train"), set(&file, "test"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/probe.safetensors");
    let v1 = LinearConfig { epochs: 7, batch: 10, ..LinearConfig::dino() };
    let v1 = LinearConfig { inputs: vec![HeadInput { blocks: 2, mean_patch: true }], ..v1 };
    let adamw =
        LinearConfig { inputs: v1.inputs.clone(), batch: 7, epochs: 5, ..LinearConfig::adamw() };
    let few = LinearConfig { inputs: v1.inputs.clone(), ..config(&file) };
    let [wide_train, wide_test] = [(30, 1), (20, 2)].map(|(count, seed)| wide(count, seed));
    for (config, train, test) in [
        (config(&file), &train, &test),
        (v1, &train, &test),
        (adamw, &train, &test),
        (LinearConfig { holdout: true, ..config(&file) }, &train, &test),
        (few, &wide_train, &wide_test),
    ] {
        let new = || LinearProbe::new(train, test, &config, None).unwrap();
        let mut whole = new();
        whole.advance(usize::MAX).unwrap();
        for cuts in [vec![1], vec![13, 8], vec![5, 20, 1]] {
            let (continues, which) = (cuts.len() > 1, format!("{config:?}, cuts {cuts:?}"));
            let mut probe = new();
            for cut in cuts {
                probe.advance(cut).unwrap();
                probe.save(&path, "features").unwrap();
                probe = new();
                assert!(probe.restore(&path, "features"));
            }
            let started = probe.state_file(folder.path(), "features");
            std::fs::rename(&path, &started).unwrap();
            let mut steps = Vec::new();
            new().run(Some((folder.path(), "features")), &mut |done, _| steps.push(done)).unwrap();
            assert!(steps[0] > 20 || !continues, "it continues: {steps:?}");
            assert!(!started.exists(), "nothing is left behind");
            probe.advance(usize::MAX).unwrap();
            assert_equal_bits(&probe, &whole, &which);
            assert_eq!(probe.result().unwrap(), whole.result().unwrap());
        }
    }
}

#[test]
fn a_state_of_something_else_is_not_used() {
    let file = fixture();
    let (train, test) = (set(&file, "train"), set(&file, "test"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("probe.safetensors");
    let config = config(&file);
    let new = |config: &LinearConfig| LinearProbe::new(&train, &test, config, None).unwrap();
    let mut probe = new(&config);
    probe.advance(9).unwrap();
    probe.save(&path, "a").unwrap();
    let before = bits(&new(&config));
    let other = LinearConfig { seed: 1, ..config.clone() };
    let longer = LinearConfig { epochs: 2, ..config.clone() };
    for (config, identity) in [(&config, "b"), (&other, "a"), (&longer, "a")] {
        let mut probe = new(config);
        assert!(!probe.restore(&path, identity) && probe.progress().0 == 0);
    }
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let mut probe = new(&config);
    assert!(!probe.restore(&path, "a") && bits(&probe) == before, "a damaged file changes nothing");
    assert!(!probe.restore(Path::new("/no/such/file"), "a"));
}

#[test]
fn held_out_images_choose_and_do_not_teach() {
    let file = fixture();
    let (train, test) = (set(&file, "train"), set(&file, "test"));
    let config = LinearConfig { holdout: true, ..config(&file) };
    let mut probe = LinearProbe::new(&train, &test, &config, None).unwrap();
    probe.run(None, &mut |_, _| ()).unwrap();
    let result = probe.result().unwrap();
    assert_eq!((result.num_train, result.num_held_out, result.num_test), (44, 4, 60));
    assert!(result.heads.iter().all(|top1| (top1 * 4.0).fract() == 0.0), "fourths: {result:?}");
    assert!(
        !result.notes.iter().any(|note| note.contains("chosen on the test images")),
        "{result:?}"
    );
    let few = FeatureSet::new(train.features.narrow(0, 0, 8), train.labels[..8].to_vec());
    let error = LinearProbe::new(&few, &test, &config, None).unwrap_err();
    assert!(matches!(error, Error::TooFewToHoldOut { images: 8 }), "{error}");
}

#[test]
fn a_head_that_diverges_is_said_and_never_chosen() {
    let file = fixture();
    let (train, test) = (set(&file, "train"), set(&file, "test"));
    let with = |rates: Vec<f64>| {
        let config = LinearConfig { rates, ..config(&file) };
        let mut probe = LinearProbe::new(&train, &test, &config, None).unwrap();
        probe.advance(usize::MAX).unwrap();
        probe.result()
    };
    let result = with(vec![1e42, 0.1]).unwrap();
    assert_eq!(result.rate, 0.1);
    assert!(result.heads.iter().step_by(2).all(|&top1| top1 == 0.0), "{result:?}");
    assert!(result.notes.iter().any(|note| note.contains("diverged")), "{result:?}");
    let error = with(vec![1e42]).unwrap_err().to_string();
    assert!(error.starts_with("rates: all heads diverged"), "{error}");
}

#[test]
fn ties_and_unknown_classes_are_counted_as_everywhere() {
    let inputs = [HeadInput { blocks: 1, mean_patch: false }];
    let layout = Layout::of(&inputs, 2);
    let sgd = HeadOptimizer::Sgd { momentum: 0.9 };
    let mut heads = Heads::new(&inputs, layout, &[0.1], sgd, (7, Device::Cpu, 0));
    let mut state: BTreeMap<String, Tensor> = heads.tensors().into_iter().collect();
    // All logits are 0, so the lowest label ranks first, and five of the seven classes are among
    // the first five.
    state.insert("weight.0".into(), state["weight.0"].zeros_like());
    heads.restore(0, &state).unwrap();
    let rows = layout.with_ones(&Tensor::ones([9, 2], (Kind::Float, Device::Cpu)));
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5, 6, 7, 12]);
    let correct = heads.correct(&rows, &labels);
    assert_eq!(Vec::<i64>::try_from(correct.view([-1])).unwrap(), [1, 5]);
}

#[test]
fn what_cannot_be_learned_is_refused() {
    let file = fixture();
    let (train, test) = (set(&file, "train"), set(&file, "test"));
    let config = config(&file);
    type Change = fn(&mut LinearConfig);
    let wrong: [(Change, &str); 7] = [
        (|config| config.inputs.clear(), "blocks"),
        (|config| config.inputs[0].blocks = 0, "blocks"),
        (|config| config.rates.clear(), "rates"),
        (|config| config.rates[0] = f64::NAN, "rates"),
        (|config| config.batch = 0, "batch"),
        (|config| config.epochs = 0, "epochs"),
        (|config| config.epoch_length = EpochLength::Steps(0), "epoch_length"),
    ];
    for (change, key) in wrong {
        let mut config = config.clone();
        change(&mut config);
        let error = LinearProbe::new(&train, &test, &config, None).unwrap_err().to_string();
        assert!(error.starts_with(key), "{key}: {error}");
    }
    let other = LinearConfig { inputs: vec![HeadInput { blocks: 4, mean_patch: false }], ..config };
    let error = LinearProbe::new(&train, &test, &other, None).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "15 columns are not four tokens: {error}");
    let one = FeatureSet::new(train.features.narrow(0, 0, 1), vec![Some(0)]);
    let error = LinearProbe::new(&one, &test, &LinearConfig::simdinov2(), None).unwrap_err();
    assert!(matches!(error, Error::OneClass { count: 1 }), "{error}");
    let unlabeled = FeatureSet::new(test.features.shallow_clone(), vec![None; 60]);
    let error = LinearProbe::new(&train, &unlabeled, &LinearConfig::simdinov2(), None).unwrap_err();
    assert!(matches!(error, Error::Unlabeled { set: "test" }), "{error}");
}

#[test]
fn first_weights_are_small_and_differ_between_heads() {
    let inputs = LinearConfig::dinov2().inputs;
    let layout = Layout::of(&inputs, 6);
    let new = |seed| {
        let sgd = HeadOptimizer::Sgd { momentum: 0.9 };
        let heads = Heads::new(&inputs, layout, &[0.1, 0.2], sgd, (40, Device::Cpu, seed));
        let state: BTreeMap<String, Tensor> = heads.tensors().into_iter().collect();
        (0..4).map(|i| state[&format!("weight.{i}")].shallow_clone()).collect::<Vec<_>>()
    };
    let weights = new(0);
    let rows: Vec<i64> = weights.iter().map(|weight| weight.size()[0]).collect();
    assert_eq!(rows, [7, 13, 25, 31]);
    for (weight, bias) in weights.iter().zip([6, 6, 24, 24]) {
        assert_eq!(weight.get(bias).abs().max().double_value(&[]), 0.0);
        let std = weight.std(false).double_value(&[]);
        assert!((0.006..0.012).contains(&std), "{std}");
        assert_ne!(weight.narrow(1, 0, 40), weight.narrow(1, 40, 40));
    }
    assert!(new(0) == weights && new(1) != weights);
}
