//! `cargo xtask bench model`: the backbone beside timm's in PyTorch eager, and loading beside
//! reading.

use std::fs;

use serde_json::{Value, json};

use crate::bench::python_with;
use crate::fail::{Context, Result, failed, usage};
use crate::workspace::Workspace;
use crate::{process, setup};

const PEER: &str = "benches/peers/model.py";
const PEER_PACKAGES: [&str; 2] = ["timm==1.0.22", "torchvision==0.26.0"];
/// Where the large file is written and deleted.
const SCRATCH: &str = "target/bench-model";
const ROUNDS: usize = 3;
const STEPS: &str = "8";
const THREADS: &str = "2";

/// The fastest pass and the least memory of some rounds.
#[derive(Debug, Clone, Copy)]
struct Best {
    step_ms: f64,
    peak_mib: f64,
}

impl Best {
    const NONE: Self = Self { step_ms: f64::INFINITY, peak_mib: f64::INFINITY };

    fn with(self, round: &Value) -> Result<Self> {
        let number = |key: &str| round[key].as_f64();
        let (Some(ms), Some(bytes)) = (number("step_ms"), number("peak_memory_bytes")) else {
            return failed(format!("no step_ms or peak_memory_bytes in {round}"));
        };
        Ok(Self {
            step_ms: self.step_ms.min(ms),
            peak_mib: self.peak_mib.min(bytes / f64::from(1 << 20)),
        })
    }
}

/// Runs both programs in turns and prints their ratios.
///
/// # Errors
/// A wrong option, no Python with torch, or whichever program failed.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let json = match arguments {
        [] => false,
        [word] if word == "--json" => true,
        [word, ..] => return usage(format!("bench model does not take '{word}'")),
    };
    setup::run(workspace)?;
    let Some(python) = python_with(workspace, "timm.models", &PEER_PACKAGES)? else {
        return failed(format!("no python3 here imports torch {}", setup::TORCH));
    };
    process::run(&mut workspace.cargo(&["build", "--package", "model", "--example", "speed"]))?;
    let ours = workspace.path("target/debug/examples/speed");
    let (mut simdino, mut timm) = (Best::NONE, Best::NONE);
    for _ in 0..ROUNDS {
        let mut program = workspace.command(&ours);
        program.args(["step", STEPS, THREADS]).env("OMP_NUM_THREADS", THREADS);
        simdino = simdino.with(&process::json(&mut program)?)?;
        let mut program = workspace.command(&python);
        program.args([PEER, STEPS, THREADS]).env("OMP_NUM_THREADS", THREADS);
        timm = timm.with(&process::json(&mut program)?)?;
    }
    let scratch = workspace.path(SCRATCH);
    fs::create_dir_all(&scratch).context(|| format!("cannot make {}", scratch.display()))?;
    let load = process::json(workspace.command(&ours).arg("load").arg(&scratch))?;
    print!("{}", table(simdino, timm, &load));
    if json {
        println!("{}", summary(simdino, timm, &load));
    }
    Ok(())
}

fn load_ratio(load: &Value) -> Option<f64> {
    Some(load["load_s"].as_f64()? / load["read_s"].as_f64()?)
}

fn table(simdino: Best, timm: Best, load: &Value) -> String {
    let line = |name: &str, best: Best| {
        format!("{name:<12} {:>10.1} {:>12.0}\n", best.step_ms, best.peak_mib)
    };
    let mut text = format!(
        "ViT-S/16, 8 images of 224 pixels, forward and backward, {THREADS} threads of the CPU\n\
         {:<12} {:>10} {:>12}\n",
        "program", "step ms", "peak MiB"
    );
    text += &line("simdino", simdino);
    text += &line("timm eager", timm);
    if let (Some(ratio), Some(seconds)) = (load_ratio(load), load["load_s"].as_f64()) {
        text += &format!("ViT-L from safetensors in {seconds:.2} s, {ratio:.2} times reading it\n");
    }
    text
}

/// Ours over theirs.
fn summary(simdino: Best, timm: Best, load: &Value) -> Value {
    let rounded = |x: f64| json!((x * 1000.0).round() / 1000.0);
    json!({
        "ratio_time": rounded(simdino.step_ms / timm.step_ms),
        "ratio_memory": rounded(simdino.peak_mib / timm.peak_mib),
        "ratio_load": load_ratio(load).map(rounded),
        "step_ms": rounded(simdino.step_ms),
        "timm_step_ms": rounded(timm.step_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_the_rounds_is_compared() {
        let round = |ms: f64, mib: u64| json!({"step_ms": ms, "peak_memory_bytes": mib << 20});
        let best = |rounds: [(f64, u64); 2]| {
            rounds.iter().try_fold(Best::NONE, |b, &(ms, mib)| b.with(&round(ms, mib))).unwrap()
        };
        let (simdino, timm) =
            (best([(90.0, 500), (80.0, 510)]), best([(100.0, 1000), (120.0, 999)]));
        let load = json!({"load_s": 0.5, "read_s": 0.4});
        let summary = summary(simdino, timm, &load);
        assert_eq!(summary["ratio_time"], 0.8);
        assert_eq!(summary["ratio_load"], 1.25);
        assert!(table(simdino, timm, &load).contains("1.25 times reading it"));
        assert!(Best::NONE.with(&json!({})).is_err());
    }
}
