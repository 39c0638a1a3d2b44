//! Activation checkpointing changes no value and no gradient.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use model::weights::named_variables;
use model::{Arch, ImageRange, Mode, ModelConfig, VisionTransformer};
use tch::{Device, Kind, Tensor, nn};

/// Training on a whole batch, and on a part of a batch that covers all of it.
const MODES: [Mode; 2] = [Mode::Train, Mode::TrainPart(ImageRange { first: 0, count: 2, of: 2 })];

/// Returns all gradients and the loss of one training pass over two resolutions.
fn trained(checkpoint_blocks: i64, mode: Mode) -> Vec<Tensor> {
    let config = ModelConfig {
        arch: Arch::VitNano,
        patch_size: 8,
        image_size: 32,
        drop_path_rate: 0.5,
        layer_scale: Some(0.5),
        checkpoint_blocks: (checkpoint_blocks > 0).then_some(checkpoint_blocks),
        ..Default::default()
    };
    let vs = nn::VarStore::new(Device::Cpu);
    let vit = VisionTransformer::new(&vs.root(), &config).unwrap();
    common::fill(&named_variables(&vs));
    let images = |side| common::tensor(&[4, 3, side, side], 1000, 2.0, 0.0);
    let large = vit.forward(&images(32), mode).unwrap();
    let small = vit.forward_cls(&images(16), mode).unwrap();
    let loss = large.cls.square().sum(Kind::Float)
        + large.patches.sum(Kind::Float)
        + small.sum(Kind::Float);
    loss.backward();
    let gradients = named_variables(&vs).into_iter().map(|(_, v)| v.grad());
    gradients.chain([loss.detach()]).collect()
}

/// Returns how often GELU is computed in one training pass: once in each block, and again in blocks
/// whose activations are not kept.
fn times_computed(checkpoint_blocks: i64, mode: Mode) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.json");
    let run = || Ok::<_, torch_ext::Error>(trained(checkpoint_blocks, mode));
    torch_ext::profile(&path, Device::Cpu, run).unwrap();
    std::fs::read_to_string(&path).unwrap().matches("\"aten::gelu\"").count()
}

/// This test is alone in its file, because the threads that run tests share torch's generator.
#[test]
fn gradients_are_the_same_to_the_last_bit_and_activations_are_computed_again() {
    for mode in MODES {
        let seeded = |every| {
            tch::manual_seed(5);
            trained(every, mode)
        };
        let expected = seeded(0);
        for every in [1, 2, 3, 9] {
            assert_eq!(seeded(every), expected, "every {every} blocks, {mode:?}");
        }
        // Four blocks, two resolutions; the last block is never computed again.
        assert_eq!(times_computed(0, mode), 8, "{mode:?}");
        assert_eq!(times_computed(1, mode), 14, "{mode:?}");
    }
}
