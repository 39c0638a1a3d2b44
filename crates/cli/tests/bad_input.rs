//! Tests that invalid input gives one clear sentence and the right exit code, and leaves nothing
//! behind.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;

use common::{Bench, stderr};

/// Checks that a command fails with `code`, that its message contains each of `words`, and that it
/// creates no run.
fn check(bench: &Bench, code: i32, args: &[&str], words: &[&str]) {
    let message = bench.fails(code, args);
    for word in words {
        assert!(message.contains(word), "'{word}' is missing in: {message}");
    }
    assert!(!bench.path("runs").exists(), "{args:?} left a trace");
}

#[test]
fn data_that_is_not_there() {
    let bench = Bench::without_images();
    fs::create_dir(bench.path("empty")).unwrap();
    fs::create_dir(bench.path("texts")).unwrap();
    fs::write(bench.path("texts/readme.md"), "no image").unwrap();
    let train = |path| ["train", "tiny.yaml", path];
    check(&bench, 1, &train("data.path=missing"), &["missing"]);
    check(&bench, 1, &train("data.path=empty"), &["empty"]);
    check(&bench, 1, &train("data.path=texts"), &["texts", "image"]);
    check(&bench, 1, &train("data.path=missing-*.tar"), &["missing-*.tar"]);
}

/// A config that would be valid with other files or on another machine fails with exit code 1, not
/// with code 2 like wrong usage.
#[test]
fn what_does_not_fit_this_machine_is_no_wrong_usage() {
    let bench = Bench::new();
    check(&bench, 1, &["train", "tiny.yaml", "run.device=cuda:63"], &["cuda:63", "run.device=cpu"]);
    for (what, why) in
        [("nowhere", "does not exist"), ("images", "holds no checkpoint to continue")]
    {
        let message = bench.fails(1, &["train", "tiny.yaml", "--resume", what]);
        assert!(message.contains(&format!("{what} {why}")), "{message}");
        assert!(!bench.path(what).join(".lock").exists(), "nothing is written there");
    }
    check(&bench, 2, &["train", "tiny.yaml", "run.device=tpu"], &["run.device"]);
}

#[test]
fn no_readable_image() {
    let bench = Bench::without_images();
    fs::create_dir(bench.path("broken")).unwrap();
    for i in 0..40 {
        fs::write(bench.path(&format!("broken/{i}.jpg")), "not a picture").unwrap();
    }
    check(&bench, 1, &["train", "tiny.yaml", "data.path=broken"], &["0.jpg"]);
}

#[test]
fn broken_images_among_good_ones_are_skipped_counted_and_named() {
    let bench = Bench::new();
    let class = bench.path("images/images");
    let good = fs::read_dir(&class).unwrap().next().unwrap().unwrap().path();
    let png = fs::read(fs::read_dir(&good).unwrap().next().unwrap().unwrap().path()).unwrap();
    fs::write(good.join("truncated.png"), &png[..png.len() / 2]).unwrap();
    fs::write(good.join("text.jpg"), "not a picture").unwrap();
    fs::write(good.join("empty.jpg"), "").unwrap();
    image::RgbImage::new(1, 1).save(good.join("one_pixel.png")).unwrap();
    // An epoch has 5 steps of 16 images, fewer than the 84 images, so one epoch would not see them
    // all.
    let output = bench.run(&["train", "tiny.yaml", "train.epochs=6"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let listed = fs::read_to_string(bench.path("runs/tiny/bad_images.tsv")).unwrap();
    for name in ["truncated.png", "text.jpg", "empty.jpg", "one_pixel.png"] {
        assert_eq!(listed.lines().filter(|l| l.contains(name)).count(), 1, "{name}: {listed}");
        assert!(stderr(&output).contains(name), "{name} is not in the log");
    }
}

#[test]
fn too_many_broken_images_are_found_by_a_dry_run() {
    let bench = Bench::new();
    let dry = ["train", "tiny.yaml", "--dry-run"];
    assert!(bench.ok(&dry).contains("images read    64 of 80, all readable"));
    let broken = bench.path("images/images/zz_broken");
    fs::create_dir(&broken).unwrap();
    (0..20).for_each(|i| fs::write(broken.join(format!("{i:02}\n.jpg")), "no picture").unwrap());
    let output = bench.run(&dry);
    let (told, said) = (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output));
    assert_eq!(output.status.code(), Some(1), "{said}");
    let row = r"images read    64 of 100, 12 of them unreadable; the first is zz_broken/01\n.jpg: ";
    assert!(told.contains(row), "{told}");
    for words in
        ["19% of the images", "`simdino data check images/images`", "data.max_bad_fraction"]
    {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    bench.ok(&[&dry[..], &["data.max_bad_fraction=0.5"]].concat());
    let message = bench.fails(1, &["train", "tiny.yaml", "train.checkpoint_every=100"]);
    assert!(message.contains("`simdino data check` lists all of them"), "{message}");
    // The next run may replace one that stopped so early, because nothing is lost.
    fs::remove_dir_all(broken).unwrap();
    let output = bench.run(&["train", "tiny.yaml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("before its first checkpoint: starting over"));
    let message = bench.fails(2, &["train", "tiny.yaml"]);
    assert!(message.contains("already holds a run"), "{message}");
}

#[test]
fn a_run_that_cannot_become_longer_says_how_to_train_longer() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml"]);
    let longer = ["train", "tiny.yaml", "train.epochs=3", "--resume", "auto"];
    let message = bench.fails(1, &longer);
    let command = "simdino train tiny.yaml train.epochs=3 run.name=tiny-longer init.from=runs/tiny \
                   init.head=true";
    assert!(
        message.contains("train.epochs was 2 and is now 3") && message.contains(command),
        "{message}"
    );
    bench.ok(&command.split(' ').skip(1).collect::<Vec<_>>());
    // The file `latest` stands for the checkpoint that it names.
    let seen = bench.ok(&["inspect", "runs/tiny/checkpoints/latest"]);
    assert!(seen.starts_with("checkpoint      runs/tiny/checkpoints/step-00000010"), "{seen}");
    // Metrics that cannot be read are not those of a run without steps.
    let metrics = bench.path("runs/tiny/metrics.jsonl");
    fs::rename(&metrics, bench.path("kept.jsonl")).unwrap();
    assert!(!bench.ok(&["inspect", "runs/tiny"]).contains("metrics"), "they are missing");
    fs::create_dir(&metrics).unwrap();
    let seen = bench.ok(&["inspect", "runs/tiny"]);
    assert!(seen.contains("cannot read the file") && seen.contains("metrics.jsonl"), "{seen}");
    fs::remove_dir(&metrics).unwrap();
    fs::rename(bench.path("kept.jsonl"), &metrics).unwrap();
    let other = ["train", "tiny.yaml", "optim.base_lr=0.5", "--resume", "auto"];
    assert!(!bench.fails(1, &other).contains("init.from"), "its length is the same");
}

#[test]
fn wrong_configs_say_everything_at_once() {
    let bench = Bench::without_images();
    let args =
        ["train", "tiny.yaml", "optim.base_ir=1", "train.batch_size=many", "model.arch=vit_huge"];
    check(&bench, 2, &args, &["optim.base_lr", "train.batch_size", "vit_nano"]);
    check(&bench, 2, &["train", "nowhere.yaml"], &["nowhere.yaml"]);
    check(&bench, 2, &["train", "tiny.yaml", "train.batch_size=15"], &["simdino.rate_groups"]);
    let message = bench.fails(2, &["train", "tiny.yaml", "optim.base_lr=-1"]);
    assert_eq!(message, "simdino: optim.base_lr: must be greater than 0 (got -1)\n");
}

#[test]
fn a_batch_larger_than_the_data() {
    let bench = Bench::new();
    let train = |last: &'static str| ["train", "tiny.yaml", "train.batch_size=96", last];
    let words = ["96", "80 images", "train.batch_size=80 "];
    check(&bench, 1, &train("train.accumulate=1"), &words);
    // The suggested batch size fits the groups of the loss and the passes of a step.
    let words = ["80 images", "train.batch_size=72 ", "a multiple of 24"];
    check(
        &bench,
        1,
        &[&train("simdino.rate_groups=24")[..], &["train.accumulate=3"]].concat(),
        &words,
    );
    let words = ["80 images", "at least 96 are needed", "simdino.rate_groups = 48"];
    check(&bench, 1, &train("simdino.rate_groups=48"), &words);
}

#[test]
fn a_run_directory_that_cannot_be_made() {
    let bench = Bench::new();
    fs::write(bench.path("file"), "").unwrap();
    let message = bench.fails(1, &["train", "tiny.yaml", "run.dir=file"]);
    assert!(message.contains("file/tiny"), "{message}");
}

#[test]
fn a_run_is_never_overwritten() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "train.stop_after=2"]);
    let before = fs::read(bench.path("runs/tiny/metrics.jsonl")).unwrap();
    let message = bench.fails(2, &["train", "tiny.yaml"]);
    assert!(message.contains("--resume auto"), "{message}");
    assert_eq!(before, fs::read(bench.path("runs/tiny/metrics.jsonl")).unwrap());
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let bench = Bench::new();
    let text = bench.ok(&["train", "tiny.yaml", "--dry-run"]);
    assert!(text.contains("80 images") && text.contains("10 with 16 images each"), "{text}");
    assert!(text.contains("runs/tiny, from the beginning"), "{text}");
    assert!(!bench.path("runs").exists());
    // Without a name, the run has that of its images, also if the name is given as empty.
    std::fs::rename(bench.path("images/images"), bench.path("photos")).unwrap();
    let text = bench.ok(&["train", "photos", "run.name=", "run.device=cpu", "--dry-run"]);
    assert!(text.contains("runs/photos, from the beginning"), "{text}");
    std::fs::rename(bench.path("photos"), bench.path("images/images")).unwrap();
    let said = bench.fails(1, &["train", "tiny.yaml", "--dry-run", "--resume", "sometimes"]);
    assert!(said.contains("sometimes does not exist"), "{said}");
    bench.ok(&["train", "tiny.yaml", "train.stop_after=3"]);
    let text = bench.ok(&["train", "tiny.yaml", "--dry-run"]);
    assert!(text.contains("runs/tiny already holds a run"), "{text}");
    let text = bench.ok(&["train", "tiny.yaml", "--dry-run", "--resume", "auto"]);
    assert!(text.contains("continued from runs/tiny/checkpoints/step-00000003"), "{text}");
}
