//! Tests the export of weights to timm and transformers and their import, with those libraries.

use crate::bench::python_with;
use crate::fail::Result;
use crate::workspace::Workspace;
use crate::{process, setup};

const SCRIPT: &str = "tools/parity/round_trip.py";
/// The libraries, in the versions that the fixtures were made with; 40 MB in total besides torch.
const PACKAGES: [&str; 3] = ["timm==1.0.22", "torchvision==0.26.0", "transformers==4.57.3"];

/// Runs the script with the real program. Prints that it is skipped if there is no Python with
/// torch, or if these libraries cannot be installed.
///
/// # Errors
/// Returns an error if the build fails or a weight has changed.
pub fn run(workspace: &Workspace) -> Result<()> {
    let python = match python_with(workspace, "timm, transformers", &PACKAGES) {
        Ok(Some(python)) => python,
        Ok(None) => {
            println!(
                "python: skipped, because LIBTORCH is set and no python3 on this machine can \
                 import torch {}",
                setup::TORCH
            );
            return Ok(());
        }
        Err(fail) => {
            println!("python: skipped, because timm and transformers cannot be installed: {fail}");
            return Ok(());
        }
    };
    if process::probe(workspace.command(&python).args(["-c", "import timm, transformers"]))
        .is_none()
    {
        println!("python: skipped, because the Python with torch lacks timm or transformers");
        return Ok(());
    }
    // Built together, because alone, the example would build shared dependencies with other
    // features.
    process::run(&mut workspace.cargo(&[
        "build",
        "--package=trainer",
        "--bin=simdino",
        "--package=simdino-model",
        "--example=features",
    ]))?;
    let target = workspace.path("target/debug");
    let mut command = workspace.command(&python);
    command.arg(SCRIPT).arg(target.join("simdino")).arg(target.join("examples/features"));
    process::run(command.env("HF_HUB_OFFLINE", "1").env("TRANSFORMERS_VERBOSITY", "error"))
}
