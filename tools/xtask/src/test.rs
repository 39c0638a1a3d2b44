//! `cargo xtask test`: runs every check of this repository, in order, until one fails.

use std::time::Instant;

use crate::fail::{Fail, Result, failed, usage};
use crate::workspace::Workspace;
use crate::{
    dist, gpu_bundle, layering, messages, process, round_trip, setup, sizes, smoke, soak, spelling,
    wheels,
};

/// Name of a stage, and its function.
type Stage = (&'static str, fn(&Workspace) -> Result<()>);

const STAGES: [Stage; 16] = [
    ("setup", setup::run),
    ("components", components),
    ("format", |ws| process::run(&mut ws.cargo(&["fmt", "--all", "--", "--check"]))),
    ("layering", layering::check),
    ("sizes", sizes::check),
    ("spelling", spelling::check),
    ("messages", messages::check),
    ("clippy", |ws| {
        let all = ["--all-targets", "--", "-D", "warnings"];
        process::run(ws.cargo(&["clippy", "--workspace", "--all-features"]).args(all))?;
        // Without features. `augment` is checked alone, because the others enable its decoders.
        let none = ["clippy", "-p", "simdino-augment", "--no-default-features"];
        process::run(ws.cargo(&none).args(all))?;
        let none = ["clippy", "-p", "simdino-data", "-p", "trainer", "--no-default-features"];
        process::run(ws.cargo(&none).args(all))
    }),
    ("tests", |ws| {
        run_tests(ws, &["test", "--workspace"])?;
        // Tests of features that are off by default, in the whole workspace, so that builds are
        // shared with the call above.
        run_tests(ws, &["test", "--workspace", "--all-features", "--test", "it", "remote"])
    }),
    ("docs", |ws| {
        let mut cargo = ws.cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
        process::run(cargo.env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("python", round_trip::run),
    ("gpu-check", gpu_bundle::test),
    ("wheels", wheels::test),
    ("dist", dist::test),
    ("smoke", smoke::run),
    ("soak", |ws| {
        // First as documented, with the config's own method; then the method with the most state:
        // masks, two centers, and a frozen last layer.
        soak::run(ws, &["--kills", "1", "--json"].map(str::to_owned))?;
        let words = ["--kills", "5", "method=dinov2", "head.prototypes=64", "koleo.groups=2"];
        soak::run(ws, &words.map(str::to_owned))
    }),
];

/// Runs all stages, or setup and the stages in `only`.
///
/// # Errors
/// Returns an error if a name is unknown, or the error of the first stage that fails.
pub fn run(workspace: &Workspace, only: &[String]) -> Result<()> {
    if let Some(name) = only.iter().find(|name| STAGES.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = STAGES.iter().map(|(name, _)| *name).collect();
        return usage(format!("no stage named '{name}': the stages are {}", known.join(", ")));
    }
    let wanted = |name: &str| only.is_empty() || name == "setup" || only.iter().any(|o| o == name);
    let start = Instant::now();
    for (name, stage) in STAGES.iter().filter(|(name, _)| wanted(name)) {
        println!("== {name} [{}]", clock(start));
        stage(workspace).map_err(|fail| Fail::Failed(format!("stage {name}: {fail}")))?;
    }
    println!("== passed [{}]", clock(start));
    Ok(())
}

/// Runs tests whose threads sleep while they wait for each other.
///
/// Each test runs libtorch on as many threads as there are cores, and by default OpenMP's threads
/// spin at the end of each operation. With several tests at once, they would spin most of the time.
fn run_tests(workspace: &Workspace, args: &[&str]) -> Result<()> {
    process::run(workspace.cargo(args).env("OMP_WAIT_POLICY", "passive"))
}

/// Formats the minutes and seconds since `start`.
fn clock(start: Instant) -> String {
    let seconds = start.elapsed().as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Checks that rustfmt and clippy are there, which a minimal toolchain lacks. `.ci/run` installs
/// them; checks install nothing.
fn components(workspace: &Workspace) -> Result<()> {
    let there = |tool| process::probe(&mut workspace.cargo(&[tool, "--version"])).is_some();
    match ["fmt", "clippy"].into_iter().all(there) {
        true => Ok(()),
        false => {
            failed("cargo fmt and cargo clippy are needed: rustup component add rustfmt clippy")
        }
    }
}
