//! Names, initial values, sizes, modes and errors of the models.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{assert_close, tensor};
use model::weights::named_variables;
use model::{
    Arch, Error, HeadConfig, Mode, ModelConfig, Network, ProjectionHead, VisionTransformer,
};
use tch::{Device, Kind, Tensor, nn};

fn nano() -> ModelConfig {
    ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..Default::default() }
}

fn build(config: &ModelConfig) -> (nn::VarStore, VisionTransformer) {
    let vs = nn::VarStore::new(Device::Cpu);
    let vit = VisionTransformer::new(&vs.root(), config).unwrap();
    (vs, vit)
}

fn images(shape: [i64; 4]) -> Tensor {
    tensor(&shape, 1, 2.0, 0.0)
}

fn double(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

#[test]
fn built_models_have_the_counted_parameters() {
    let at_224 = |arch| ModelConfig { arch, ..Default::default() };
    for config in [nano(), at_224(Arch::VitTiny), at_224(Arch::VitSmall)] {
        let (vs, _) = build(&config);
        let built: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(built as i64, config.num_parameters(), "{config:?}");
    }
    for (num_layers, use_bn) in [(1, true), (2, false), (3, false), (3, true)] {
        let config =
            HeadConfig { hidden_dim: 20, out_dim: 7, num_layers, use_bn, ..HeadConfig::default() };
        let vs = nn::VarStore::new(Device::Cpu);
        ProjectionHead::new(&vs.root(), 5, &config).unwrap();
        let built: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(built as i64, config.num_parameters(5), "{config:?}");
    }
}

#[test]
fn parameters_have_the_names_of_the_reference() {
    let vs = nn::VarStore::new(Device::Cpu);
    let head = HeadConfig { hidden_dim: 16, out_dim: 8, ..Default::default() };
    Network::new(&vs, &nano(), &head).unwrap();
    let names: Vec<String> = named_variables(&vs).into_iter().map(|(name, _)| name).collect();
    let mut expected = vec![
        "backbone.cls_token".to_owned(),
        "backbone.pos_embed".into(),
        "backbone.patch_embed.proj.weight".into(),
        "backbone.patch_embed.proj.bias".into(),
        "backbone.norm.weight".into(),
        "backbone.norm.bias".into(),
    ];
    for layer in ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"] {
        for i in 0..4 {
            expected.push(format!("backbone.blocks.{i}.{layer}.weight"));
            expected.push(format!("backbone.blocks.{i}.{layer}.bias"));
        }
    }
    for i in [0, 2, 4] {
        expected.extend([format!("head.mlp.{i}.weight"), format!("head.mlp.{i}.bias")]);
    }
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn head_indices_follow_the_reference() {
    let check = |num_layers, use_bn, expected: &[&str]| {
        let vs = nn::VarStore::new(Device::Cpu);
        let config =
            HeadConfig { hidden_dim: 6, out_dim: 4, num_layers, use_bn, ..HeadConfig::default() };
        ProjectionHead::new(&vs.root(), 5, &config).unwrap();
        let names: Vec<_> = named_variables(&vs).into_iter().map(|(name, _)| name).collect();
        let weights: Vec<_> = names.iter().filter(|name| name.ends_with("weight")).collect();
        assert_eq!(weights, expected, "{num_layers} layers");
    };
    check(1, true, &["mlp.weight"]);
    check(2, false, &["mlp.0.weight", "mlp.2.weight"]);
    let with_norms =
        ["mlp.0.weight", "mlp.1.weight", "mlp.3.weight", "mlp.4.weight", "mlp.6.weight"];
    check(3, true, &with_norms);
}

#[test]
fn initial_values_are_the_reference_s() {
    let config = ModelConfig { arch: Arch::VitTiny, ..Default::default() };
    let (vs, _) = build(&config);
    let fan_in = 3.0 * 16.0 * 16.0_f64;
    for (name, value) in named_variables(&vs) {
        let (std, most) = (double(&value.std(true)), double(&value.abs().max()));
        if name.starts_with("patch_embed") {
            let bound = 1.0 / fan_in.sqrt();
            assert!(most <= bound && most > 0.95 * bound, "{name}: {most} against {bound}");
            let error = (std / (bound / 3f64.sqrt()) - 1.0).abs();
            assert!(error < 0.15, "{name}: std {std}");
        } else if name.contains("norm") {
            let expected = if name.ends_with("weight") { 1.0 } else { 0.0 };
            assert_eq!(double(&(value - expected).abs().max()), 0.0, "{name}");
        } else if name.ends_with("bias") {
            assert_eq!(most, 0.0, "{name}");
        } else {
            // The error of a sample std of n values is 1 / sqrt(2 n); five of them.
            let slack = 5.0 / (2.0 * value.numel() as f64).sqrt();
            assert!((std / 0.02 - 1.0).abs() < slack, "{name}: std {std}");
        }
    }
}

#[test]
fn drop_path_acts_in_training_only() {
    let (_vs, vit) = build(&ModelConfig { drop_path_rate: 0.9, ..nano() });
    let x = images([8, 3, 32, 32]);
    let cls = |mode| vit.forward(&x, mode).unwrap().cls;
    assert_eq!(cls(Mode::Eval), cls(Mode::Eval));
    assert_ne!(cls(Mode::Train), cls(Mode::Eval));
    let (_vs, plain) = build(&ModelConfig { drop_path_rate: 0.0, ..nano() });
    let cls = |mode| plain.forward(&x, mode).unwrap().cls;
    assert_eq!(cls(Mode::Train), cls(Mode::Eval));
}

#[test]
fn intermediate_layers_end_with_the_output() {
    let (_vs, vit) = build(&nano());
    let x = images([2, 3, 32, 48]);
    let layers = vit.intermediate_layers(&x, 3).unwrap();
    assert_eq!(layers.len(), 3);
    let last = vit.forward(&x, Mode::Eval).unwrap();
    assert_eq!(layers[2].patches, last.patches);
    assert_ne!(layers[1].patches, last.patches);
    assert_eq!(layers[0].grid, (4, 6));
    for n in [0, 5] {
        let error = vit.intermediate_layers(&x, n).unwrap_err();
        assert!(matches!(error, Error::Layers { depth: 4, .. }), "{error}");
    }
}

#[test]
fn attention_rows_sum_to_one() {
    let (_vs, vit) = build(&nano());
    let maps = vit.last_self_attention(&images([2, 3, 16, 24])).unwrap();
    assert_eq!(maps.size(), [2, 4, 7, 7]);
    let sums = maps.sum_dim_intlist([-1].as_slice(), false, Kind::Float);
    assert_close("sums", &sums, &Tensor::ones_like(&sums), 1e-6);
}

#[test]
fn images_that_do_not_fit_are_typed_errors() {
    let (_vs, vit) = build(&nano());
    let error = |x: Tensor| vit.forward(&x, Mode::Eval).unwrap_err();
    assert!(matches!(
        error(images([1, 3, 32, 36])),
        Error::NotMultiple { height: 32, width: 36, patch_size: 8 }
    ));
    assert!(matches!(error(images([1, 4, 32, 32])), Error::InputShape { channels: 3, .. }));
    assert!(matches!(error(images([0, 3, 32, 32])), Error::InputShape { .. }));
    assert!(matches!(error(images([1, 3, 0, 32])), Error::InputShape { .. }));
    assert!(matches!(error(images([1, 3, 32, 32]).squeeze()), Error::InputShape { .. }));
    assert!(matches!(
        error(images([1, 3, 32, 32]).to_kind(Kind::Uint8)),
        Error::InputKind { expected: Kind::Float, got: Kind::Uint8 }
    ));
}

#[test]
fn wrong_configurations_are_typed_errors() {
    let vs = nn::VarStore::new(Device::Cpu);
    let config = ModelConfig { image_size: 33, ..nano() };
    let error = VisionTransformer::new(&vs.root(), &config).unwrap_err();
    assert!(error.to_string().starts_with("model.image_size: must be a multiple"), "{error}");
    let config = HeadConfig { out_dim: 0, ..Default::default() };
    let error = ProjectionHead::new(&vs.root(), 8, &config).unwrap_err();
    assert_eq!(error.to_string(), "head.out_dim: must be at least 1 (got 0)");
}

#[test]
fn other_channels_work() {
    let (_vs, vit) = build(&ModelConfig { in_channels: 5, ..nano() });
    assert_eq!(vit.forward(&images([2, 5, 32, 32]), Mode::Eval).unwrap().cls.size(), [2, 128]);
}

#[test]
fn masks_need_a_token_and_the_shape_of_the_patches() {
    let (_vs, vit) = build(&ModelConfig { mask_token: true, ..nano() });
    let images = images([2, 3, 32, 32]);
    let none = Tensor::zeros([2, 16], (Kind::Bool, Device::Cpu));
    let masked = |masks: &Tensor| vit.forward_masked(&images, Some(masks), Mode::Eval);
    let plain = vit.forward(&images, Mode::Eval).unwrap();
    assert_eq!(masked(&none).unwrap().patches, plain.patches, "nothing is masked");
    let hidden = masked(&none.logical_not()).unwrap().cls;
    assert_eq!(hidden.get(0), hidden.get(1), "all is masked: nothing of the image is left");
    let error = masked(&none.narrow(1, 0, 15)).unwrap_err().to_string();
    assert_eq!(error, "masks must be bool of shape [2, 16], one per patch (got Bool of [2, 15])");
    assert!(matches!(masked(&none.to_kind(Kind::Float)).unwrap_err(), Error::Masks { .. }));
    let (_vs, without) = build(&nano());
    let error = without.forward_masked(&images, Some(&none), Mode::Eval).unwrap_err();
    assert!(matches!(error, Error::NoMaskToken), "{error}");
}

#[test]
fn qk_norm_makes_attention_blind_to_the_length_of_queries_and_keys() {
    let (vs, vit) = build(&ModelConfig { qk_norm: true, ..nano() });
    let images = images([1, 3, 32, 32]);
    let before = vit.last_self_attention(&images).unwrap();
    let [q, k, _] = vit.last_qkv(&images).unwrap();
    for x in [q, k] {
        assert_eq!(x.size(), [1, 4, 17, 32]);
        let mean_square = x.square().mean_dim([-1].as_slice(), false, None);
        assert_close("mean square", &mean_square, &mean_square.ones_like(), 1e-3);
    }
    let variables = vs.variables();
    let bias = &variables["blocks.3.attn.qkv.bias"];
    let weight = &variables["blocks.3.attn.qkv.weight"];
    for variable in [bias, weight] {
        let mut queries = variable.narrow(0, 0, 128);
        let _ = tch::no_grad(|| queries.g_mul_scalar_(7.0));
    }
    let after = vit.last_self_attention(&images).unwrap();
    assert_close("attention", &after, &before, 1e-4);
}

#[test]
fn the_class_token_alone_is_that_of_the_whole_with_registers_too() {
    let config =
        ModelConfig { num_register_tokens: 4, layer_scale: Some(0.1), qk_norm: true, ..nano() };
    let (_vs, vit) = build(&config);
    let images = images([2, 3, 32, 32]);
    let all = vit.forward(&images, Mode::Eval).unwrap();
    assert_eq!((all.registers.size(), all.patches.size()), (vec![2, 4, 128], vec![2, 16, 128]));
    assert_close("cls", &vit.forward_cls(&images, Mode::Eval).unwrap(), &all.cls, 1e-5);
    let layers = vit.intermediate_layers(&images, 2).unwrap();
    assert_eq!(layers[1].patches, all.patches);
}

#[test]
fn head_gives_unit_rows_of_any_leading_shape() {
    let vs = nn::VarStore::new(Device::Cpu);
    for use_bn in [false, true] {
        let config = HeadConfig {
            hidden_dim: 16,
            out_dim: 6,
            num_layers: 3,
            use_bn,
            ..HeadConfig::default()
        };
        let head = ProjectionHead::new(&(vs.root() / i64::from(use_bn)), 8, &config).unwrap();
        let rows = head.forward(&tensor(&[3, 4, 8], 5, 1.0, 0.0)).unwrap();
        assert_eq!(rows.size(), [3, 4, 6]);
        let norms = rows.norm_scalaropt_dim(2.0, [-1].as_slice(), false);
        assert_close("norms", &norms, &Tensor::ones_like(&norms), 1e-6);
        let error = head.forward(&tensor(&[3, 7], 5, 1.0, 0.0)).unwrap_err();
        assert!(matches!(error, Error::HeadInput { expected: 8, .. }), "{error}");
    }
}

#[test]
fn a_zero_row_stays_finite() {
    let vs = nn::VarStore::new(Device::Cpu);
    let config = HeadConfig {
        hidden_dim: 4,
        out_dim: 4,
        num_layers: 1,
        use_bn: false,
        ..HeadConfig::default()
    };
    let head = ProjectionHead::new(&vs.root(), 4, &config).unwrap();
    let features = Tensor::zeros([2, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let rows = head.forward(&features).unwrap(); // the bias is zero at first
    assert_eq!(double(&rows.abs().max()), 0.0);
    rows.sum(Kind::Float).backward();
    assert!(double(&features.grad().isfinite().all().to_kind(Kind::Float)) == 1.0);
}
