//! `cargo xtask`: setup, demo, tests, and benchmarks of this repository. It does not need libtorch
//! itself, because it installs libtorch.
#![forbid(unsafe_code)]

mod bench;
mod bench_coding_rate;
mod bench_data;
mod bench_eval;
mod bench_model;
mod bench_objects;
mod bench_python;
mod demo;
mod dist;
mod fail;
mod figures;
mod files;
mod gpu_bundle;
mod layering;
mod messages;
mod process;
mod round_trip;
mod setup;
mod simdino;
mod sizes;
mod smoke;
mod soak;
mod spelling;
mod test;
mod wheels;
mod workspace;

use std::process::ExitCode;

use fail::{Result, usage};
use workspace::Workspace;

const HELP: &str = "\
cargo xtask demo [key=value ...]   train on synthetic images and show what was learned (5 minutes)
cargo xtask test [STAGE ...]       run all checks: format, layering, clippy, tests, docs, a test run
cargo xtask soak [--kills N] [--seed S] [--json] [key=value ...]
                                   kill a small run at random moments; it must always end the same
cargo xtask messages               write docs/MESSAGES.txt, which lists all messages of the program
cargo xtask docs-figures           redraw the figures in docs/
cargo xtask dist [OUT]             build the release archive, which uses the torch of a Python
cargo xtask wheels [--program FILE] [--old-glibc] [OUT]
                                   build the wheels simdino and simdino-cli for pip
cargo xtask gpu-bundle [--cifar DIR] [OUT]
                                   build the folder to copy to a machine with a GPU but without Rust
cargo xtask setup                  only install what the build needs (the other tasks do so, too)
cargo xtask bench step [--config FILE] [--device cpu|cuda] [--steps N] [--json] [key=value ...]
                                   compare the training step with the same step in PyTorch and timm
cargo xtask bench data [--images DIR] [--seconds S] [--rounds N] [--json]
                                   compare the data pipeline with torchvision and albumentations
cargo xtask bench eval [--json] [--train=N] [--test=N] [--width=N] [--classes=N] [--rounds=N]
                                   compare evaluations of frozen features with torch and sklearn
cargo xtask bench model [--json]
                                   compare a backbone with timm's, and loading with reading a file
cargo xtask bench python [--images DIR] [--seconds S] [--json]
                                   compare the wheel with a DataLoader and with the published loss
cargo xtask bench coding-rate [--json]
                                   compare the closed form of the coding rate with autograd
cargo xtask bench objects [--json] compare normalized cuts, dense CRF, and label propagation with
                                   scipy, pydensecrf, and torch";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            eprintln!("xtask: {fail}");
            ExitCode::from(fail.code())
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words.iter().any(|word| matches!(*word, "-h" | "--help")) {
        println!("{HELP}");
        return Ok(());
    }
    match words.as_slice() {
        [] | ["help"] => {
            println!("{HELP}");
            Ok(())
        }
        ["setup"] => setup::run(&Workspace::find()?),
        ["demo", ..] => demo::run(&Workspace::find()?, &arguments[1..]),
        ["test", ..] => test::run(&Workspace::find()?, &arguments[1..]),
        ["soak", ..] => soak::run(&Workspace::find()?, &arguments[1..]),
        ["wheels", ..] => wheels::run(&Workspace::find()?, &arguments[1..]),
        ["dist", ..] => dist::run(&Workspace::find()?, &arguments[1..]),
        ["gpu-bundle", ..] => gpu_bundle::run(&Workspace::find()?, &arguments[1..]),
        ["messages"] => messages::write(&Workspace::find()?),
        ["docs-figures"] => figures::run(&Workspace::find()?),
        ["bench", "step", ..] => bench::step(&Workspace::find()?, &arguments[2..]),
        ["bench", "coding-rate", ..] => {
            bench_coding_rate::run(&Workspace::find()?, &arguments[2..])
        }
        ["bench", "eval", ..] => bench_eval::run(&Workspace::find()?, &arguments[2..]),
        ["bench", "objects", ..] => bench_objects::run(&Workspace::find()?, &arguments[2..]),
        ["bench", "python", ..] => bench_python::run(&Workspace::find()?, &arguments[2..]),
        ["bench", "model", ..] => bench_model::run(&Workspace::find()?, &arguments[2..]),
        ["bench", "data", ..] => bench_data::run(&Workspace::find()?, &arguments[2..]),
        _ => usage(format!("no such task: {}\n{HELP}", words.join(" "))),
    }
}
