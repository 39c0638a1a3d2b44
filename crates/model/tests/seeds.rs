//! Results that depend on torch's generator. The process has only one generator, so a single test
//! checks them one after the other.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{assert_close, tensor};
use model::weights::named_variables;
use model::{Arch, ImageRange, Mode, ModelConfig, VisionTransformer};
use tch::{Device, Kind, Tensor, nn};

fn nano() -> ModelConfig {
    ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..Default::default() }
}

fn build(config: &ModelConfig) -> (nn::VarStore, VisionTransformer) {
    tch::manual_seed(3);
    let vs = nn::VarStore::new(Device::Cpu);
    let vit = VisionTransformer::new(&vs.root(), config).unwrap();
    (vs, vit)
}

fn images(shape: [i64; 4]) -> Tensor {
    tensor(&shape, 1, 2.0, 0.0)
}

#[test]
fn seeded() {
    a_seed_gives_the_same_model();
    class_token_alone_equals_the_full_pass();
    a_part_of_a_batch_gets_what_it_would_get_in_the_whole();
}

fn a_seed_gives_the_same_model() {
    let (a, _) = build(&nano());
    let (b, _) = build(&nano());
    for ((name, a), (_, b)) in named_variables(&a).into_iter().zip(named_variables(&b)) {
        assert_eq!(a, b, "{name}");
    }
}

fn class_token_alone_equals_the_full_pass() {
    for mode in [Mode::Eval, Mode::Train] {
        let (vs, vit) = build(&ModelConfig { drop_path_rate: 0.5, ..nano() });
        common::fill(&named_variables(&vs));
        let run = |alone: bool| {
            for (_, mut variable) in named_variables(&vs) {
                variable.zero_grad();
            }
            tch::manual_seed(11); // the same samples are dropped in both
            let x = images([6, 3, 40, 24]);
            let cls = match alone {
                true => vit.forward_cls(&x, mode).unwrap(),
                false => vit.forward(&x, mode).unwrap().cls,
            };
            (&cls * tensor(&cls.size(), 2, 1.0, 0.0)).sum(Kind::Float).backward();
            let gradients = named_variables(&vs).into_iter().map(|(n, v)| (n, v.grad().copy()));
            (cls.detach(), gradients.collect::<Vec<_>>())
        };
        let (full, full_gradients) = run(false);
        let (alone, gradients) = run(true);
        assert_close("cls", &alone, &full, 1e-5);
        for ((name, got), (_, expected)) in gradients.iter().zip(&full_gradients) {
            assert_close(name, got, expected, 2e-5);
        }
    }
}

fn a_part_of_a_batch_gets_what_it_would_get_in_the_whole() {
    let (count, views) = (6, 2);
    let (vs, vit) = build(&ModelConfig { drop_path_rate: 0.5, ..nano() });
    common::fill(&named_variables(&vs));
    let crops = images([views * count, 3, 32, 32]).view([views, count, 3, 32, 32]);
    let cls = |first, count| {
        tch::manual_seed(11);
        let x = crops.narrow(1, first, count).reshape([views * count, 3, 32, 32]);
        let mode = Mode::TrainPart(ImageRange { first, count, of: 6 });
        vit.forward_cls(&x, mode).unwrap().view([views, count, -1])
    };
    let whole = cls(0, count);
    assert_close("part", &cls(2, 3), &whole.narrow(1, 2, 3), 1e-6);
    tch::manual_seed(11);
    let all = vit.forward_cls(&crops.view([views * count, 3, 32, 32]), Mode::Eval).unwrap();
    let dropped = (whole.view([views * count, -1]) - all).abs().max().double_value(&[]);
    assert!(dropped > 1e-3, "nothing was dropped");
}
