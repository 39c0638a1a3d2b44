//! What an import reports, refuses, and adapts.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::{assert_close, fixture, tensor};
use model::weights::{
    ImportPolicy, ImportReport, Role, Target, TensorFile, choose, import, infer, named_variables,
    networks, write_safetensors,
};
use model::{Arch, Error, Ffn, HeadConfig, Mode, ModelConfig, Network, PosInterpolation};
use tch::{Device, Kind, Tensor, nn};

fn nano() -> ModelConfig {
    ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..ModelConfig::default() }
}

fn small_head() -> HeadConfig {
    HeadConfig { hidden_dim: 16, out_dim: 8, ..HeadConfig::default() }
}

struct Side {
    vars: nn::VarStore,
    network: Network,
    model: ModelConfig,
}

fn side(seed: i64, model: &ModelConfig, head: &HeadConfig) -> Side {
    // The threads that run tests share torch's generator.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _guard = GENERATOR.lock().unwrap();
    tch::manual_seed(seed);
    let vars = nn::VarStore::new(Device::Cpu);
    let network = Network::new(&vars, model, head).unwrap();
    Side { vars, network, model: model.clone() }
}

impl Side {
    fn import(&self, path: &Path, policy: &ImportPolicy) -> model::Result<ImportReport> {
        let file = TensorFile::open(path)?;
        let (vars, model) = (&self.vars, &self.model);
        let target = Target {
            vars,
            model,
            backbone: "backbone.",
            head: Some("head."),
            patch_head: self.network.patch_head.as_ref().map(|_| "patch_head."),
        };
        import(&file, &target, policy)
    }

    /// Returns the variables under other names, without those for which `rename` returns `None`.
    fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Vec<(String, Tensor)> {
        let named = named_variables(&self.vars).into_iter();
        named.filter_map(|(name, value)| Some((rename(&name)?, value.detach()))).collect()
    }

    fn equals(&self, other: &Side, prefix: &str) -> bool {
        let (ours, theirs) = (self.vars.variables(), other.vars.variables());
        ours.iter().filter(|(name, _)| name.starts_with(prefix)).all(|(n, v)| *v == theirs[n])
    }
}

fn scratch(tensors: &[(String, Tensor)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.safetensors");
    write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();
    (folder, path)
}

#[test]
fn teacher_and_student_come_out_of_training_checkpoints() {
    let (teacher, student) = (side(1, &nano(), &small_head()), side(2, &nano(), &small_head()));
    // Keys as DINO, DINOv2 (without and with FSDP and chunks of blocks), and torch.compile write
    // them.
    let styles: [fn(&str, &str) -> String; 4] = [
        |role, name| format!("{role}.module.{name}"),
        |role, name| format!("model.{role}.{}", name.replace("head.", "dino_head.")),
        |role, name| {
            let name = name.replace("backbone.blocks.", "backbone._fsdp_wrapped_module.blocks.1.");
            format!("{role}.{}", name.replace("head.", "dino_head._fsdp_wrapped_module."))
        },
        |role, name| format!("{role}._orig_mod.{name}"),
    ];
    for style in styles {
        let mut tensors = teacher.renamed(|name| Some(style("teacher", name)));
        tensors.extend(student.renamed(|name| Some(style("student", name))));
        tensors.push((
            "dino_loss.center".to_owned(),
            Tensor::zeros([1, 8], (Kind::Float, Device::Cpu)),
        ));
        let (_folder, path) = scratch(&tensors);
        for (role, original) in [(Role::Teacher, &teacher), (Role::Student, &student)] {
            let fresh = side(3, &nano(), &small_head());
            let policy = ImportPolicy { role, ..ImportPolicy::default() };
            let report = fresh.import(&path, &policy).unwrap();
            assert!(report.head_loaded && report.unexpected.is_empty(), "{report}");
            assert!(fresh.equals(original, ""), "{report}");
        }
    }
}

#[test]
fn the_head_on_patches_comes_too() {
    let head = HeadConfig {
        separate_patch_head: true,
        patch_out_dim: Some(small_head().out_dim + 3),
        prototypes: 4,
        ..small_head()
    };
    let source = side(1, &nano(), &head);
    let tensors = source.renamed(|name| {
        let name = name.replace("patch_head.", "ibot_head.");
        let heads = !name.starts_with("backbone") && !name.starts_with("ibot");
        Some(if heads { format!("teacher.dino_{name}") } else { format!("teacher.{name}") })
    });
    let (_folder, path) = scratch(&tensors);
    let fresh = side(2, &nano(), &head);
    let report = fresh.import(&path, &ImportPolicy::default()).unwrap();
    assert!(report.head_loaded && report.unexpected.is_empty(), "{report}");
    assert!(fresh.equals(&source, ""));
}

#[test]
fn a_backbone_alone_leaves_the_head_as_it_was() {
    let source = side(1, &nano(), &small_head());
    let tensors = source.renamed(|name| name.strip_prefix("backbone.").map(str::to_owned));
    let (_folder, path) = scratch(&tensors);
    let (fresh, before) = (side(2, &nano(), &small_head()), side(2, &nano(), &small_head()));
    let report = fresh.import(&path, &ImportPolicy::default()).unwrap();
    assert!(!report.head_loaded);
    assert!(report.missing.iter().all(|name| name.starts_with("head.")));
    assert_eq!(report.missing.len() + report.matched.len(), fresh.vars.len());
    assert!(fresh.equals(&source, "backbone.") && fresh.equals(&before, "head."));
    let line = report.to_string();
    assert!(
        line.contains("of 54 tensors of the backbone") && line.ends_with("no head loaded"),
        "{line}"
    );
}

#[test]
fn too_little_is_refused_and_changes_nothing() {
    let source = side(1, &nano(), &small_head());
    let tensors = source.renamed(|name| (!name.contains("blocks.3")).then(|| name.to_owned()));
    let (_folder, path) = scratch(&tensors);
    let (fresh, before) = (side(2, &nano(), &small_head()), side(2, &nano(), &small_head()));
    let error = fresh.import(&path, &ImportPolicy::default()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::TooFewMatched { .. }), "{text}");
    assert!(text.contains("42 of the 54") && text.contains("backbone.blocks.3.attn"), "{text}");
    assert!(fresh.equals(&before, ""));
    let policy = ImportPolicy { min_matched: 0.5, ..ImportPolicy::default() };
    let report = fresh.import(&path, &policy).unwrap();
    assert_eq!(report.missing.len(), 12);
    assert!(fresh.equals(&source, "backbone.norm") && fresh.equals(&before, "backbone.blocks.3"));
}

#[test]
fn positions_are_resized_as_the_network_would() {
    for form in [PosInterpolation::Offset, PosInterpolation::Size, PosInterpolation::Antialias] {
        let model = ModelConfig { pos_interpolation: form, ..nano() };
        let source = side(1, &model, &small_head());
        let (_folder, path) = scratch(&source.renamed(|name| Some(name.to_owned())));
        let other = ModelConfig { image_size: 48, ..model };
        let fresh = side(2, &other, &small_head());
        let report = fresh.import(&path, &ImportPolicy::default()).unwrap();
        let resized: Vec<_> = report.resized.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(resized, ["backbone.pos_embed"]);
        let images = tensor(&[1, 3, 48, 48], 7, 1.0, 0.0);
        let cls = |side: &Side| side.network.backbone.forward_cls(&images, Mode::Eval).unwrap();
        assert_close("cls", &cls(&fresh), &cls(&source), 1e-6);
        let policy = ImportPolicy { resize: false, min_matched: 0.9, ..ImportPolicy::default() };
        let report = fresh.import(&path, &policy).unwrap();
        assert_eq!(report.other_shape[0].name, "backbone.pos_embed");
    }
}

#[test]
fn positions_of_no_single_square_grid_are_refused() {
    let model = ModelConfig { mask_token: true, ..nano() };
    let source = side(1, &model, &small_head());
    let fresh = side(2, &ModelConfig { image_size: 48, ..model }, &small_head());
    // 49 positions are those of 4 x 12 patches and the class token, if there is a mask token.
    for (shape, words) in [([2, 17, 128], "2 sets of positions"), ([1, 49, 128], "48 patches")] {
        let mut tensors = source.renamed(|name| Some(name.to_owned()));
        let positions = tensors.iter_mut().find(|(name, _)| name.ends_with("pos_embed")).unwrap();
        positions.1 = tensor(&shape, 3, 1.0, 0.0);
        let (_folder, path) = scratch(&tensors);
        let error = fresh.import(&path, &ImportPolicy::default()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn patch_kernels_are_resized_as_timm_does() {
    let expected = fixture("families.safetensors").tensors;
    // Two of the kernels are those of the fixture; the rest of the network is arbitrary.
    let source = side(1, &ModelConfig { patch_size: 16, image_size: 64, ..nano() }, &small_head());
    let name = "backbone.patch_embed.proj.weight";
    let kernel = source.vars.variables()[name].detach();
    kernel.narrow(0, 0, 2).copy_(&tensor(&[2, 3, 16, 16], 2000, 1.0, 0.0));
    let (_folder, path) = scratch(&source.renamed(|name| Some(name.to_owned())));
    for side_len in [14, 8] {
        let model = ModelConfig { patch_size: side_len, image_size: 4 * side_len, ..nano() };
        let fresh = side(2, &model, &small_head());
        let report = fresh.import(&path, &ImportPolicy::default()).unwrap();
        assert_eq!(report.resized[0].to, [128, 3, side_len, side_len]);
        let got = fresh.vars.variables()[name].narrow(0, 0, 2);
        assert_close("kernel", &got, &expected[&format!("kernel.{side_len}")], 1e-5);
    }
}

#[test]
fn a_gray_image_gives_what_three_equal_channels_gave() {
    let source = side(1, &nano(), &small_head());
    let (_folder, path) = scratch(&source.renamed(|name| Some(name.to_owned())));
    for channels in [1, 5] {
        let fresh = side(2, &ModelConfig { in_channels: channels, ..nano() }, &small_head());
        fresh.import(&path, &ImportPolicy::default()).unwrap();
        if channels == 1 {
            let gray = tensor(&[1, 1, 32, 32], 7, 1.0, 0.0);
            let cls = |side: &Side, images: &Tensor| {
                side.network.backbone.forward_cls(images, Mode::Eval).unwrap()
            };
            let rgb = gray.expand([1, 3, 32, 32], false).contiguous();
            assert_close("cls", &cls(&fresh, &gray), &cls(&source, &rgb), 1e-5);
        }
    }
}

#[test]
fn architectures_are_read_from_shapes() {
    let cases = [
        nano(),
        ModelConfig {
            num_register_tokens: 4,
            mask_token: true,
            layer_scale: Some(1e-5),
            ffn: Ffn::Swiglu,
            pos_interpolation: PosInterpolation::Antialias,
            in_channels: 5,
            ..nano()
        },
    ];
    let head = HeadConfig { prototypes: 12, use_bn: true, ..small_head() };
    for model in cases {
        let source = side(1, &model, &head);
        let (_folder, path) = scratch(&source.renamed(|name| Some(name.to_owned())));
        let file = TensorFile::open(&path).unwrap();
        let network = choose(&file, Role::Teacher).unwrap();
        let inferred = infer(&file, &network).unwrap();
        assert_eq!(inferred.model, ModelConfig { drop_path_rate: 0.0, ..model });
        assert_eq!(inferred.head, Some(head.clone()));
        let assumed = |words: &str| inferred.assumed.iter().any(|what| what.contains(words));
        assert!(assumed("4 attention heads"));
        assert_eq!(assumed("model.layer_scale: 1e-5"), inferred.model.layer_scale.is_some());
    }
}

#[test]
fn what_is_no_network_says_so() {
    let some = |names: &[&str]| -> Vec<(String, Tensor)> {
        names
            .iter()
            .map(|n| (n.to_string(), Tensor::zeros([1, 1, 64], (Kind::Float, Device::Cpu))))
            .collect()
    };
    let fresh = side(1, &nano(), &small_head());
    let (_folder, path) = scratch(&some(&["conv1.weight", "fc.bias"]));
    let error = fresh.import(&path, &ImportPolicy::default()).unwrap_err().to_string();
    assert!(error.contains("no vision transformer") && error.contains("conv1.weight"), "{error}");
    let (_folder, path) = scratch(&some(&["a.cls_token", "b.cls_token"]));
    let error = fresh.import(&path, &ImportPolicy::default()).unwrap_err().to_string();
    assert!(
        error.contains("is the teacher; the keys of its networks begin with a, b: choose one"),
        "{error}"
    );
    let (_folder, path) = scratch(&some(&["cls_token"]));
    let file = TensorFile::open(&path).unwrap();
    let error = infer(&file, &networks(&file)[0]).unwrap_err().to_string();
    assert!(
        error.contains("no positional embedding (pos_embed) in the file: rotary positions"),
        "{error}"
    );
}
