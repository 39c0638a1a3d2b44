//! Tests that the held trade-off neither collapses nor keeps views apart, with the same settings
//! for small and large batches.

mod common;

use common::{Bench, lines, stderr};

/// Settings of `configs/demo.yaml` that do not depend on the batch size, with smaller crops.
const SETTINGS: [&str; 13] = [
    "data.path=train/images",
    "data.cache=decoded",
    "augment.global_crops_size=24",
    "model.image_size=24",
    "model.drop_path_rate=0",
    "head.hidden_dim=128",
    "head.out_dim=64",
    "simdino.coeff_rule=held",
    "simdino.rate_groups=1",
    "optim.lr_scaling=sqrt_wrt1024",
    "optim.base_lr=0.008",
    "optim.momentum_batch=16",
    "optim.momentum_teacher=0.97",
];

/// Trains with the batch size `batch`, and checks the second half of the run.
fn views_agree_and_features_spread(bench: &Bench, batch: u32, epochs: u32) {
    let own = [
        format!("run.name=batch-{batch}"),
        format!("train.batch_size={batch}"),
        format!("train.epochs={epochs}"),
        format!("optim.warmup_epochs={}", epochs / 10),
        "train.checkpoint_every=1000".to_owned(),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let output = bench.run(&[&["train", "tiny.yaml"][..], &SETTINGS, &own].concat());
    let said = stderr(&output);
    assert!(output.status.success() && !said.contains("collapsed"), "{said}");

    let lines = lines(bench, &format!("batch-{batch}"));
    for line in &lines[lines.len() / 2..] {
        let number = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
        assert!((0.3..0.75).contains(&number("rate/position")), "batches of {batch}: {line}");
        assert!(number("loss/compression") > 0.6, "batches of {batch}: {line}");
    }
}

#[test]
fn in_batches_of_16_and_of_256() {
    let bench = Bench::without_images();
    bench.ok(&["data", "synth", "train", "--count", "512", "--size", "32"]);
    views_agree_and_features_spread(&bench, 16, 5);
    views_agree_and_features_spread(&bench, 256, 20);
}
