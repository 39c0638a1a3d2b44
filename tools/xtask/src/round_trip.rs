//! Weights to timm and transformers and back, by those libraries themselves.

use crate::bench::python_with;
use crate::fail::Result;
use crate::workspace::Workspace;
use crate::{process, setup};

const SCRIPT: &str = "tools/parity/round_trip.py";
/// The libraries, at the versions that the fixtures were made with; 40 MB in all, torch is there.
const PACKAGES: [&str; 3] = ["timm==1.0.22", "torchvision==0.26.0", "transformers==4.57.3"];

/// Runs the script with the real program. It is skipped, in a sentence, where there is no Python
/// with torch, or these libraries cannot be installed.
///
/// # Errors
/// The build, or a weight that changed on its way.
pub fn run(workspace: &Workspace) -> Result<()> {
    let python = match python_with(workspace, "timm, transformers", &PACKAGES) {
        Ok(Some(python)) => python,
        Ok(None) => {
            println!(
                "python: skipped, since LIBTORCH is the user's and no python3 here imports torch {}",
                setup::TORCH
            );
            return Ok(());
        }
        Err(fail) => {
            println!("python: skipped, since timm and transformers cannot be installed: {fail}");
            return Ok(());
        }
    };
    if process::probe(workspace.command(&python).args(["-c", "import timm, transformers"]))
        .is_none()
    {
        println!("python: skipped, since no timm and transformers are beside the torch in use");
        return Ok(());
    }
    // In one call: alone, the example would be built with other features of what both depend on.
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
