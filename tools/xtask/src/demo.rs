//! `cargo xtask demo`: trains a backbone from a fresh clone, and evaluates what it has learned.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::fail::{Context, Fail, Result};
use crate::process;
use crate::setup;
use crate::simdino::{self, Knn, Simdino, Synthetic};
use crate::workspace::Workspace;

/// The config, whose probe refers to the two folders below.
const CONFIG: &str = "configs/demo.yaml";
const TRAIN: Synthetic = Synthetic { count: 4000, size: 64, seed: 0 };
const TEST: Synthetic = Synthetic { count: 1000, size: 64, seed: 1 };

/// Runs the demo. `overrides` are `key=value` settings for the training.
///
/// # Errors
/// Returns the error of the step that failed.
pub fn run(workspace: &Workspace, overrides: &[String]) -> Result<()> {
    if let Some(word) = overrides.iter().find(|word| word.starts_with('-') || !word.contains('=')) {
        return Err(Fail::Usage(format!("demo: expected key=value, got '{word}'")));
    }
    setup::run(workspace)?;
    println!("demo: building simdino (this takes minutes the first time)");
    let simdino = Simdino::build(workspace)?;
    let train = Path::new("runs/demo-data/train");
    let test = Path::new("runs/demo-data/val");
    draw(workspace, &simdino, train, TRAIN)?;
    draw(workspace, &simdino, test, TEST)?;

    let run = fresh_run(workspace, "demo");
    println!("demo: training {CONFIG} into {}", run.display());
    process::run(&mut simdino.train(CONFIG, &run, train, overrides))?;
    println!("demo: evaluating k-NN of the trained network, the untrained network, and raw pixels");
    let knn = Knn::read(&process::json(&mut simdino.eval_knn(&run, train, test))?)?;
    process::run(&mut simdino.report(&run))?;
    summary(&knn, &simdino::report_of(&run));
    Ok(())
}

fn summary(knn: &Knn, report: &Path) {
    println!(
        "demo: 20-NN accuracy {:.1}% trained, {:.1}% untrained, {:.1}% pixels; see {}",
        100.0 * knn.trained,
        100.0 * knn.untrained,
        100.0 * knn.pixels,
        report.display()
    );
    println!(
        "{}",
        json!({
            "knn": knn.trained,
            "untrained": knn.untrained,
            "pixels": knn.pixels,
            "report": report.to_string_lossy(),
        })
    );
}

/// Draws `set` into `dir`, unless it is already there from an earlier demo.
///
/// # Errors
/// Returns an error if drawing fails or a file cannot be written.
pub fn draw(ws: &Workspace, simdino: &Simdino<'_>, dir: &Path, set: Synthetic) -> Result<()> {
    let full = ws.path(dir);
    let stamp = full.join("complete.txt"); // written last, so it marks a complete set
    let wanted = format!("{set:?}\n");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    if full.exists() {
        fs::remove_dir_all(&full).context(|| format!("cannot remove {}", full.display()))?;
    }
    println!("drawing {} images of {} px into {}", set.count, set.size, dir.display());
    process::run(&mut simdino.data_synth(dir, set))?;
    fs::write(&stamp, wanted).context(|| format!("cannot write {}", stamp.display()))
}

/// Returns `runs/NAME`, or the first of `runs/NAME-2`, `-3`, ... that does not exist, so that no
/// run is overwritten.
fn fresh_run(workspace: &Workspace, name: &str) -> PathBuf {
    let numbered = |n: u32| match n {
        1 => PathBuf::from(format!("runs/{name}")),
        n => PathBuf::from(format!("runs/{name}-{n}")),
    };
    let first_free = (1..u32::MAX).map(numbered).find(|run| !workspace.path(run).exists());
    first_free.unwrap_or_else(|| numbered(1))
}
