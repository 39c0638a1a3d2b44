//! `cargo xtask bench model`: compares the backbone with timm's in PyTorch eager mode, and loading
//! weights with reading a file.
//!
//! Memory is measured in separate runs in which the C library returns freed memory to the system
//! immediately. Otherwise, the numbers depend on the fragmentation of the heap: those of either
//! program, and their ratio, varied by up to 7% from run to run. The size of the heap with its gaps
//! is reported as well.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::bench::python_with;
use crate::fail::{Context, Result, failed, usage};
use crate::workspace::Workspace;
use crate::{process, setup};

const PEER: &str = "benches/peers/model.py";
const PEER_PACKAGES: [&str; 2] = ["timm==1.0.22", "torchvision==0.26.0"];
/// Folder in which the large file is written and deleted.
const SCRATCH: &str = "target/bench-model";
const ROUNDS: usize = 3;
const STEPS: &str = "8";
const STEPS_OF_MEMORY: &str = "2";
const THREADS: &str = "2";

/// Environment variable of glibc that makes larger allocations come directly from the system, and
/// return to it when they are freed.
const NO_HEAP: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "65536");

/// The fastest pass and the least memory over several rounds.
#[derive(Debug, Clone, Copy)]
struct Best {
    step_ms: f64,
    /// Peak memory of tensors alone.
    peak_mib: f64,
    /// Peak memory including the gaps of the heap.
    heap_mib: f64,
}

impl Best {
    const NONE: Self =
        Self { step_ms: f64::INFINITY, peak_mib: f64::INFINITY, heap_mib: f64::INFINITY };

    /// Adds a run for the time and one for the memory.
    fn with(self, timed: &Value, measured: &Value) -> Result<Self> {
        let number = |run: &Value, key: &str| match run[key].as_f64() {
            Some(number) => Ok(number),
            None => failed(format!("no {key} in {run}")),
        };
        let mib = |run| Ok(number(run, "peak_memory_bytes")? / f64::from(1 << 20));
        Ok(Self {
            step_ms: self.step_ms.min(number(timed, "step_ms")?),
            peak_mib: self.peak_mib.min(mib(measured)?),
            heap_mib: self.heap_mib.min(mib(timed)?),
        })
    }
}

/// Runs both programs in turns, and prints their ratios.
///
/// # Errors
/// Returns an error if an option is invalid, there is no Python with torch, or a program fails.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let json = match arguments {
        [] => false,
        [word] if word == "--json" => true,
        [word, ..] => return usage(format!("bench model: unexpected argument '{word}'")),
    };
    setup::run(workspace)?;
    let Some(python) = python_with(workspace, "timm.models", &PEER_PACKAGES)? else {
        return failed(format!("no python3 on this machine can import torch {}", setup::TORCH));
    };
    process::run(&mut workspace.cargo(&[
        "build",
        "--package",
        "simdino-model",
        "--example",
        "speed",
    ]))?;
    let ours = workspace.path("target/debug/examples/speed");
    let step = || with_word(workspace, ours.as_os_str(), "step");
    let peer = || with_word(workspace, &python, PEER);
    let (mut simdino, mut timm, mut again) = (Best::NONE, Best::NONE, Best::NONE);
    for _ in 0..ROUNDS {
        simdino = round(simdino, &[], &step)?;
        timm = round(timm, &[], &peer)?;
        again = round(again, &["1"], &step)?;
    }
    let scratch = workspace.path(SCRATCH);
    fs::create_dir_all(&scratch).context(|| format!("cannot create {}", scratch.display()))?;
    let load = process::json(workspace.command(&ours).arg("load").arg(&scratch))?;
    print!("{}", table([simdino, timm, again], &load));
    if json {
        println!("{}", summary([simdino, timm, again], &load));
    }
    Ok(())
}

fn with_word(workspace: &Workspace, program: &OsStr, word: &str) -> Command {
    let mut command = workspace.command(program);
    command.arg(word);
    command
}

/// Runs a program twice, once for its time and once for its memory.
fn round(best: Best, more: &[&str], program: &dyn Fn() -> Command) -> Result<Best> {
    let run = |steps: &str, heap: &[(&str, &str)]| {
        let mut program = program();
        program.args([steps, THREADS]).args(more).env("OMP_NUM_THREADS", THREADS);
        process::json(program.envs(heap.iter().copied()))
    };
    best.with(&run(STEPS, &[])?, &run(STEPS_OF_MEMORY, &[NO_HEAP])?)
}

fn load_ratio(load: &Value) -> Option<f64> {
    Some(load["load_s"].as_f64()? / load["read_s"].as_f64()?)
}

fn table([simdino, timm, again]: [Best; 3], load: &Value) -> String {
    let line = |name: &str, best: Best| {
        format!(
            "{name:<26} {:>10.1} {:>12.0} {:>15.0}\n",
            best.step_ms, best.peak_mib, best.heap_mib
        )
    };
    let mut text = format!(
        "ViT-S/16, 8 images of 224 pixels, forward and backward, {THREADS} threads of the CPU\n\
         {:<26} {:>10} {:>12} {:>15}\n",
        "program", "step ms", "peak MiB", "with heap MiB"
    );
    text += &line("simdino", simdino);
    text += &line("timm eager", timm);
    text += &line("simdino, checkpointing", again);
    if let (Some(ratio), Some(seconds)) = (load_ratio(load), load["load_s"].as_f64()) {
        text += &format!(
            "ViT-L loaded from safetensors in {seconds:.2} s, {ratio:.2} times the \
             time to read the file\n"
        );
    }
    text
}

/// Returns the ratios of our numbers to theirs.
fn summary([simdino, timm, again]: [Best; 3], load: &Value) -> Value {
    let rounded = |x: f64| json!((x * 1000.0).round() / 1000.0);
    json!({
        "ratio_time": rounded(simdino.step_ms / timm.step_ms),
        "ratio_memory": rounded(simdino.peak_mib / timm.peak_mib),
        "ratio_memory_with_heap": rounded(simdino.heap_mib / timm.heap_mib),
        "ratio_time_checkpointed": rounded(again.step_ms / simdino.step_ms),
        "ratio_memory_checkpointed": rounded(again.peak_mib / simdino.peak_mib),
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
            let with = |b: Best, &(ms, mib)| b.with(&round(ms, 2 * mib), &round(9.0 * ms, mib));
            rounds.iter().try_fold(Best::NONE, with).unwrap()
        };
        let (simdino, timm) =
            (best([(90.0, 500), (80.0, 510)]), best([(100.0, 1000), (120.0, 999)]));
        let load = json!({"load_s": 0.5, "read_s": 0.4});
        let again = Best { step_ms: 100.0, peak_mib: 125.0, heap_mib: 1.0 };
        let summary = summary([simdino, timm, again], &load);
        assert_eq!(summary["ratio_time"], 0.8);
        assert_eq!(summary["ratio_load"], 1.25);
        assert!(table([simdino, timm, again], &load).contains("1.25 times the time"));
        assert_eq!(summary["ratio_memory"], 0.501);
        assert_eq!(summary["ratio_time_checkpointed"], 1.25);
        assert_eq!(summary["ratio_memory_checkpointed"], 0.25);
        assert_eq!((simdino.peak_mib, simdino.heap_mib), (500.0, 1000.0));
        assert!(Best::NONE.with(&json!({}), &round(1.0, 1)).is_err());
    }
}
