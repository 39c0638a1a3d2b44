//! Tests of config files, overrides, and the messages about invalid ones.

mod methods;

use augment::AugmentConfig;
use std::fs;

use super::*;
use objectives::Method;
use serde_json::json;
use simdino::config::schema;

fn problems(text: &str, overrides: &[&str]) -> Vec<String> {
    let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
    match parse(text, "c.yaml", &overrides) {
        Ok(config) => config.validate(),
        Err(failure) => {
            assert_eq!(failure.code(), 2);
            failure.lines().to_vec()
        }
    }
}

const GOOD: &str = "data: {path: photos}\n";

#[test]
fn a_small_file_is_enough() {
    assert_eq!(problems(GOOD, &[]), Vec::<String>::new());
    let config = parse(GOOD, "c.yaml", &[]).unwrap();
    let mut expect = RunConfig::default();
    expect.data.path = Some("photos".into());
    assert_eq!(config, expect);
}

#[test]
fn overrides_win_over_the_file() {
    let overrides = [
        "train.batch_size=64",
        "simdino.gamma=0.5",
        "simdino.eps_end=0.1",
        "augment.blur_prob=[1, 0.1, 0.5]",
        "run.name=007",
        "run.seed=7",
        "run.seed=8",
        "optim={base_lr: 1e-3, beta1: 0.8}",
        "method=simdino",
    ]
    .map(str::to_owned);
    let file =
        "data: {path: a}\ntrain: {batch_size: 3, epochs: 2}\nsimdino: {eps_end: 1}\noptim:\n";
    let config = parse(file, "c.yaml", &overrides).unwrap();
    assert_eq!(config.train.batch_size, 64);
    assert_eq!(config.train.epochs, 2.0);
    assert_eq!(config.simdino.gamma, objectives::Gamma::Constant(0.5));
    assert_eq!(config.simdino.eps_end, Some(0.1));
    assert_eq!(config.run.name.as_deref(), Some("007"));
    assert_eq!(config.run.seed, 8);
    assert_eq!((config.optim.base_lr, config.optim.beta1), (1e-3, 0.8));
}

#[test]
fn an_absent_value_may_be_put_back() {
    let file = "data: {path: a}\nsimdino: {eps_end: 1}\n";
    let config = parse(file, "c.yaml", &["simdino.eps_end=null".into()]).unwrap();
    assert_eq!(config.simdino.eps_end, None);
}

#[test]
fn each_mistake_is_a_sentence() {
    let cases = [
        ("optim: {base_ir: 1}", "unknown key 'optim.base_ir': did you mean 'optim.base_lr'?"),
        ("train: {base_lr: 1}", "unknown key 'train.base_lr': did you mean 'optim.base_lr'?"),
        ("epochs: 3", "unknown key 'epochs': did you mean 'train.epochs'?"),
        ("optm: {base_lr: 1}", "unknown key 'optm': did you mean 'optim'?"),
        (
            "head: {protos: 65536}",
            "unknown key 'head.protos': the keys here are hidden_dim, norm_last_layer, num_layers, out_dim, patch_out_dim, prototypes, separate_patch_head, use_bn",
        ),
        ("train: {batch_size: many}", "train.batch_size: expected an integer, got 'many'"),
        ("train: {batch_size: 1.5}", "train.batch_size: expected an integer, got 1.5"),
        ("train: {batch_size: -1}", "train.batch_size: expected an integer of at least 0, got -1"),
        (
            "augment: {solarize_threshold: 256}",
            "augment.solarize_threshold: expected an integer from 0 to 255, got 256",
        ),
        ("optim: {base_lr: '1e-3'}", "optim.base_lr: expected a number, got '1e-3'"),
        ("optim: {base_lr: .nan}", "optim.base_lr: expected a number, got '.nan'"),
        ("optim: {base_lr: }", "optim.base_lr: expected a number, got nothing"),
        ("optim: 3", "optim: expected a mapping, got 3"),
        ("head: {use_bn: yes}", "head.use_bn: expected true or false, got 'yes'"),
        ("data: {path: 12}", "data.path: expected a string, got 12 (put it in quotes)"),
        (
            "data: {source: tar}",
            "data.source: expected one of auto, folder, list, shards, parquet, synthetic, got 'tar'",
        ),
        ("method: moco", "method: expected one of simdino, simdinov2, dino, dinov2, got 'moco'"),
        ("augment: {blur_sigma: [1]}", "augment.blur_sigma: expected a list of 2 numbers, got [1]"),
        (
            "augment: {blur_prob: [0, much, 1]}",
            "augment.blur_prob[1]: expected a number, got 'much'",
        ),
        (
            "simdino: {gamma: big}",
            "simdino.gamma: expected code, theorem, ceiling, balanced or a number, got 'big'",
        ),
        ("simdino: {eps_end: soon}", "simdino.eps_end: expected a number, got 'soon'"),
        ("", "c.yaml: the config is empty"),
        ("[1, 2]", "c.yaml: expected a mapping with sections such as 'data:' and 'train:'"),
    ];
    for (text, expect) in cases {
        assert_eq!(problems(text, &[]), [expect], "{text}");
    }
}

#[test]
fn a_key_that_was_renamed_says_its_new_name() {
    let now = |old: &str, new: &str| format!("unknown key '{old}': it is now called '{new}'");
    assert_eq!(problems("objective: {eps: 0.1}", &[]), [now("objective", "simdino")]);
    assert_eq!(problems("prototypes: {centering: softmax}", &[]), [now("prototypes", "dino")]);
    assert_eq!(
        problems("terms: {koleo_groups: 2, patch_weight: 0}\noptim: {rule: sgd}", &[]),
        [
            now("optim.rule", "optim.optimizer"),
            now("terms.patch_weight", "ibot.loss_weight"),
            now("terms.koleo_groups", "koleo.groups"),
        ]
    );
    assert_eq!(problems(GOOD, &["optim.trust=1"]), [now("optim.trust", "optim.trust_coefficient")]);
    assert!(problems("terms: {no_such: 1}", &[])[0].starts_with("unknown key 'terms': "));
}

#[test]
fn overrides_are_checked_like_the_file() {
    for (text, expect) in [
        ("train.batch_size", "override 'train.batch_size': expected key.path=value"),
        (".a=1", "override '.a=1': '.a' is not a valid key.path"),
        ("train.bach_size=4", "unknown key 'train.bach_size': did you mean 'train.batch_size'?"),
        ("train.epochs.x=4", "train.epochs: expected a number, got a mapping"),
        ("train.epochs=", "train.epochs: expected a number, got nothing"),
    ] {
        assert_eq!(problems(GOOD, &[text]), [expect], "{text}");
    }
    let bad_list = problems(GOOD, &["augment.blur_sigma=[1, 2"]);
    assert!(bad_list[0].starts_with("override 'augment.blur_sigma=[1, 2': not valid YAML"));
}

#[test]
fn nothing_is_written_as_null() {
    let overrides =
        ["train.stop_after=null", "optim.clip_grad=", "probe.train_path=", "init.from=null"];
    let overrides = overrides.map(str::to_owned);
    let file = "data: {path: a}\ntrain: {stop_after: 3}\nprobe: {train_path: a}\ninit: {from: b}\n";
    let config = parse(file, "c.yaml", &overrides).unwrap();
    assert_eq!((config.train.stop_after, config.optim.clip_grad), (None, None));
    assert_eq!((config.probe.train_path, config.init.from), (None, None));
    // Values that meant "none" in earlier versions.
    let gone = |key: &str, value: &str, meaning: &str| {
        format!("{key}: {value} is no longer accepted: write null for {meaning}")
    };
    let file =
        "data: {path: '', workers: 0}\noptim: {clip_grad: 0.0}\nmodel: {checkpoint_blocks: 0}\n";
    assert_eq!(
        problems(file, &["train.stop_after=0"]),
        [
            gone("data.path", "''", "no path"),
            gone("data.workers", "0", "one thread per core but one"),
            gone("model.checkpoint_blocks", "0", "keeping all activations"),
            gone("optim.clip_grad", "0.0", "no clipping"),
            gone("train.stop_after", "0", "all steps"),
        ]
    );
    assert_eq!(
        problems(GOOD, &["run.device=gpu", "train.stop_after=-1"]),
        [
            "run.device: expected auto, cpu, cuda or cuda:N, got 'gpu'",
            "train.stop_after: expected an integer of at least 1, got -1",
        ]
    );
}

#[test]
fn the_resolved_config_of_an_earlier_version_is_read() {
    let now = to_yaml(&parse(GOOD, "c.yaml", &["optim.clip_grad=null".into()]).unwrap()).unwrap();
    // Earlier versions had no sections within sections.
    let key = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).is_some();
    let nothing = |line: &str| match line.trim().split_once(": ").filter(|_| key(line)) {
        Some(("name" | "spill_dir" | "from" | "train_path" | "test_path", "null")) => Some("''"),
        Some(("layer_scale" | "num_heads" | "patch_out_dim" | "eps_end" | "coeff_end", _)) => None,
        Some(("momentum_batch" | "group_rows" | "deterministic", _)) => None, // newer, too
        Some((_, "null")) => Some("0"),
        _ => None,
    };
    let lines = now.lines().map(|line| match nothing(line) {
        Some(old) => line.replace("null", old) + "\n",
        None => format!("{line}\n"),
    });
    let before: String = lines.collect();
    assert!(before.contains("  clip_grad: 0\n") && before.contains("  name: ''\n"), "{before}");
    assert!(parse(&before, "c.yaml", &[]).is_err());
    assert_eq!(of_run(&before).unwrap(), of_run(&now).unwrap());
}

#[test]
fn all_problems_come_at_once() {
    let text = "data: {path: a}\ntrain: {epochs: x, bogus_key: 1}\noptim: {base_ir: 1}";
    assert_eq!(problems(text, &["run.seed=-1"]).len(), 4);
    let text = "train: {batch_size: 0}\noptim: {beta1: 2}\nmodel: {patch_size: 0}";
    let found = problems(text, &["run.name=a/b"]);
    for start in ["data.path", "train.batch_size", "optim.beta1", "model.patch_size", "run.name"] {
        assert!(found.iter().any(|p| p.starts_with(start)), "{start}: {found:?}");
    }
}

#[test]
fn mistakes_of_form_name_the_line() {
    for (text, expect) in [
        ("train:\n  epochs: 1\n  epochs: 2\n", "duplicate entry with key \"epochs\""),
        ("train:\n  epochs: [1\nmodel: 2\n", "line 3"),
    ] {
        let found = problems(text, &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("c.yaml: ") && found[0].contains("line"), "{found:?}");
        assert!(found[0].contains(expect), "{found:?}");
    }
}

#[test]
fn sections_are_checked_against_each_other() {
    for (overrides, expect) in [
        (
            &["train.batch_size=60"][..],
            "train.batch_size: must be a multiple of simdino.rate_groups 8 (got 60); \
             simdino.rate_groups=6 or train.batch_size=64 would do",
        ),
        (
            &["train.accumulate=3"],
            "train.batch_size: must be a multiple of train.accumulate 3 (got 512)",
        ),
        (
            &["train.accumulate=16"],
            "simdino.rate_groups: must be a multiple of train.accumulate 16, so that each group \
             fits in one pass (got 8); simdino.rate_groups=16 would do",
        ),
        (
            &["augment.local_crops_size=97"],
            "augment.local_crops_size: must be a multiple of model.patch_size 16 (got 97)",
        ),
        (
            &["train.epochs=5", "optim.warmup_epochs=10"],
            "optim.warmup_epochs: must not exceed train.epochs 5 (got 10)",
        ),
        (
            &["probe.train_path=a"],
            "probe.test_path: required when the other path is given: the probe needs both",
        ),
        (
            &["optim.min_lr=0.1"],
            "optim.min_lr: must not exceed the learning rate 0.001 that optim.base_lr gives \
             at this batch size (got 0.1)",
        ),
    ] {
        let found = problems(GOOD, overrides);
        assert!(found.iter().any(|p| p == expect), "{found:?}");
    }
}

#[test]
fn settings_without_effect_are_warned_of() {
    let overrides = [
        "augment.local_crops_number=0",
        "augment.local_crops_size=97",
        "augment.solarize_prob=0",
        "augment.solarize_threshold=1",
        "probe.k=3",
        "data.synthetic.count=7",
    ]
    .map(str::to_owned);
    let config = parse(GOOD, "c.yaml", &overrides).unwrap();
    assert_eq!(config.validate(), Vec::<String>::new());
    assert_eq!(
        config.without_effect(),
        [
            "augment.local_crops_size has no effect: augment.local_crops_number is 0",
            "augment.solarize_threshold has no effect: augment.solarize_prob is 0",
            "data.synthetic has no effect: data.source is not synthetic",
            "probe has no effect: probe.train_path, probe.rank, and probe.segment are off",
        ]
    );
    let quiet = parse(GOOD, "c.yaml", &[]).unwrap();
    assert_eq!(quiet.without_effect(), Vec::<String>::new());
}

#[test]
fn settings_of_probes_that_are_off_are_warned_of() {
    let labeled = ["probe.train_path=a", "probe.test_path=b"];
    let on = "probe.rank.every_epochs=1";
    for (more, expected) in [
        (
            &["probe.rank.max_images=3"][..],
            "probe.rank has no effect: probe.rank.every_epochs is never",
        ),
        (
            &["probe.rank.max_images=3", on],
            "probe.rank.max_images has no effect: the images are those of probe.train_path",
        ),
        (&["probe.rank.max_images=3", "probe.rank.path=c", on], ""),
        (
            &["probe.every_epochs=never"],
            "probe.train_path has no effect: probe.every_epochs is never",
        ),
        (&["probe.every_epochs=never", on], ""),
        (
            &["probe.segment.classes=3"],
            "probe.segment has no effect: probe.segment.every_epochs is never",
        ),
    ] {
        let overrides: Vec<String> =
            labeled.iter().chain(more).map(|&word| word.to_owned()).collect();
        let found = parse(GOOD, "c.yaml", &overrides).unwrap().without_effect();
        assert_eq!(found.concat(), expected, "{more:?}");
    }
    let rank = [on, "probe.resize=40"].map(str::to_owned);
    assert_eq!(parse(GOOD, "c.yaml", &rank).unwrap().without_effect(), Vec::<String>::new());
}

#[test]
fn files_are_named_in_messages() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&folder.path().join("no.yaml"), &[]).unwrap_err();
    assert!(missing.lines()[0].ends_with("no.yaml does not exist"), "{missing:?}");
    let path = folder.path().join("my_run.yaml");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(load(&path, &[]).unwrap_err().lines()[0].ends_with("is not UTF-8 text"));
    fs::write(&path, GOOD).unwrap();
    assert_eq!(load(&path, &[]).unwrap().config.run.name.as_deref(), Some("my_run"));
}

#[test]
fn what_is_shown_reads_back_the_same() {
    let overrides = ["simdino.gamma=0.25".to_owned(), "simdino.eps_end=0.5".to_owned()];
    let config = parse(GOOD, "c.yaml", &overrides).unwrap();
    let yaml = to_yaml(&config).unwrap();
    assert!(yaml.contains("  mean: [0.485, 0.456, 0.406]\n"), "{yaml}");
    assert_eq!(parse(&yaml, "c.yaml", &[]).unwrap(), config);
}

#[test]
fn every_key_of_the_defaults_is_in_the_shape() {
    fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
        let Value::Object(entries) = value else { return found.push(path.to_owned()) };
        for (key, value) in entries {
            keys(value, format!("{path}.{key}").trim_start_matches('.'), found);
        }
    }
    let mut defaults = Vec::new();
    keys(&serde_json::to_value(RunConfig::default()).unwrap(), "", &mut defaults);
    let shape = schema::of::<RunConfig>().unwrap();
    let mut shapes: Vec<String> =
        schema::leaves(&shape).into_iter().map(|(path, _)| path).collect();
    defaults.sort();
    shapes.sort();
    assert_eq!(shapes, defaults);
}

#[test]
fn a_preset_gives_the_values_that_are_not_given() {
    let load = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        parse(GOOD, "good", &overrides).unwrap().augment
    };
    let plain = load(&[]);
    let dinov2 = load(&["augment.preset=dinov2", "augment.local_crops_number=3"]);
    assert_eq!(dinov2.local_crops_scale, [0.05, 0.32]);
    assert_eq!((dinov2.local_crops_number, dinov2.blur), (3, augment::BlurKind::Kernel9));
    assert_ne!(plain.blur, dinov2.blur);
    // A resolved config has every key, so the preset changes nothing when it is read back.
    let again = AugmentConfig { flip_prob: 0.25, ..dinov2 };
    let text = yaml::write(&json!({"data": {"path": "x"}, "augment": again})).unwrap();
    assert_eq!(parse(&text, "again", &[]).unwrap().augment, again);
}
