//! Activation checkpointing changes no value and no gradient.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use model::weights::named_variables;
use model::{Arch, Mode, ModelConfig, VisionTransformer};
use tch::{Device, Kind, Tensor, nn};

/// Value and all gradients of one training pass over two resolutions.
fn trained(checkpoint_blocks: i64) -> Vec<Tensor> {
    let config = ModelConfig {
        arch: Arch::VitNano,
        patch_size: 8,
        image_size: 32,
        drop_path_rate: 0.5,
        layer_scale: Some(0.5),
        checkpoint_blocks,
        ..Default::default()
    };
    let vs = nn::VarStore::new(Device::Cpu);
    let vit = VisionTransformer::new(&vs.root(), &config).unwrap();
    common::fill(&named_variables(&vs));
    let images = |side| common::tensor(&[4, 3, side, side], 1000, 2.0, 0.0);
    let large = vit.forward(&images(32), Mode::Train).unwrap();
    let small = vit.forward_cls(&images(16), Mode::Train).unwrap();
    let loss = large.cls.square().sum(Kind::Float)
        + large.patches.sum(Kind::Float)
        + small.sum(Kind::Float);
    loss.backward();
    let gradients = named_variables(&vs).into_iter().map(|(_, v)| v.grad());
    gradients.chain([loss.detach()]).collect()
}

/// Alone in its file, since torch's generator is shared by the threads that run tests.
#[test]
fn gradients_are_the_same_to_the_last_bit() {
    let seeded = |every| {
        tch::manual_seed(5);
        trained(every)
    };
    let expected = seeded(0);
    for every in [1, 2, 3, 9] {
        assert_eq!(seeded(every), expected, "every {every} blocks");
    }
}
