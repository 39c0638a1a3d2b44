//! The end-to-end test of `cargo xtask test`: the real binary draws images, trains, is killed,
//! resumes, is evaluated, and writes its report, in about a minute.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::demo;
use crate::fail::{Context, Result, failed};
use crate::process;
use crate::simdino::{Knn, Simdino, Synthetic, report_of};
use crate::workspace::Workspace;

const CONFIG: &str = "configs/demo.yaml";
const DIR: &str = "runs/smoke";
/// Overrides that shorten the demo's recipe to 27 steps, 9 per epoch, with a checkpoint every 5.
const SMALLER: [&str; 7] = [
    "train.batch_size=64",
    "train.epochs=3",
    "optim.warmup_epochs=1",
    "train.log_every=5",
    "train.checkpoint_every=5",
    "probe.train_path=",
    "probe.test_path=",
];
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the test in `runs/smoke`, which it empties first.
///
/// # Errors
/// Returns an error that names the command that failed, or the output that is missing.
pub fn run(workspace: &Workspace) -> Result<()> {
    let simdino = Simdino::build(workspace)?;
    let dir = workspace.path(DIR);
    if dir.exists() {
        fs::remove_dir_all(&dir).context(|| format!("cannot empty {}", dir.display()))?;
    }
    let (train, test) = (Path::new(DIR).join("train"), Path::new(DIR).join("test"));
    demo::draw(workspace, &simdino, &train, Synthetic { count: 600, size: 64, seed: 0 })?;
    demo::draw(workspace, &simdino, &test, Synthetic { count: 200, size: 64, seed: 1 })?;

    let run = Path::new(DIR).join("run");
    let full = workspace.path(&run);
    let overrides = SMALLER.map(str::to_owned);
    let mut killed = simdino.train(CONFIG, &run, &train, &overrides);
    let child = killed.spawn().context(|| format!("cannot start {}", process::shown(&killed)))?;
    kill_after_checkpoint(child, &full)?;
    let before = last_step(&full)?;
    process::run(&mut simdino.train(CONFIG, &run, &train, &overrides))?;
    let after = last_step(&full)?;
    if after <= before {
        return failed(format!("the resumed run ended at step {after}, not after step {before}"));
    }
    let knn = Knn::read(&process::json(&mut simdino.eval_knn(&run, &train, &test))?)?;
    println!("smoke: killed after step {before}, resumed to step {after}, {knn:?}");
    process::run(&mut simdino.report(&run))?;
    check_files(&full)?;
    check_report(&report_of(&full))
}

/// Kills the training with SIGKILL once its first checkpoint is on disk.
fn kill_after_checkpoint(mut child: Child, run: &Path) -> Result<()> {
    let start = Instant::now();
    while !has_checkpoint(run) {
        if let Some(status) = child.try_wait().context(|| "cannot wait for the training".into())? {
            return failed(format!("the training ended before its first checkpoint ({status})"));
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return failed(format!("no checkpoint after {} s of training", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().and_then(|()| child.wait()).context(|| "cannot kill the training".into())?;
    Ok(())
}

fn has_checkpoint(run: &Path) -> bool {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else { return false };
    entries.filter_map(|entry| entry.ok()).any(|entry| {
        entry.file_name().to_string_lossy().starts_with("step-")
            && entry.path().join("manifest.json").exists()
    })
}

/// Returns the highest step in metrics.jsonl, and checks that every line is JSON.
fn last_step(run: &Path) -> Result<u64> {
    let path = run.join("metrics.jsonl");
    let text = fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
    // The last line of a killed run may be incomplete.
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let mut last = 0;
    for line in whole.lines() {
        let record: Value = serde_json::from_str(line)
            .context(|| format!("{} has a line that is not JSON: {line:?}", path.display()))?;
        last = last.max(record["step"].as_u64().unwrap_or(0));
    }
    Ok(last)
}

fn check_files(run: &Path) -> Result<()> {
    let names = [
        "config.yaml",
        "config.resolved.yaml",
        "env.json",
        "metrics.jsonl",
        "weights/teacher.safetensors",
    ];
    let empty = |name: &&str| !fs::metadata(run.join(name)).is_ok_and(|file| file.len() > 0);
    match names.iter().find(|name| empty(name)) {
        Some(name) => failed(format!("the run wrote no {name} in {}", run.display())),
        None => Ok(()),
    }
}

/// Checks that the report is a complete page that fetches nothing.
fn check_report(path: &Path) -> Result<()> {
    let page = fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
    if !page.contains("</html>") || !page.contains("<svg") {
        return failed(format!("{} is not a complete page with curves", path.display()));
    }
    match fetched(&page) {
        Some(address) => failed(format!("{} fetches {address}", path.display())),
        None => Ok(()),
    }
}

/// Returns the first URL that a browser would fetch to show the page.
fn fetched(page: &str) -> Option<&str> {
    ["src=\"http", "src=\"//", "url(http", "@import", "<link "]
        .iter()
        .find_map(|needle| page.find(needle))
        .map(|at| page[at..].split(['>', '\n']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_fetches_is_found_out() {
        assert_eq!(
            fetched("<p>see https://example.org</p><img src=\"data:image/png;base64,\">"),
            None
        );
        let script = "<html><script src=\"https://example.org/x.js\"></script>";
        assert_eq!(fetched(script), Some("src=\"https://example.org/x.js\""));
    }

    #[test]
    fn the_last_step_survives_a_cut_line() {
        let dir = std::env::temp_dir().join(format!("xtask-smoke-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"st").unwrap();
        assert_eq!(last_step(&dir).unwrap(), 2);
        fs::write(dir.join("metrics.jsonl"), "{\"step\":1}\nnonsense\n{}\n").unwrap();
        assert!(last_step(&dir).unwrap_err().to_string().contains("nonsense"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
