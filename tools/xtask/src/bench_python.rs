//! `cargo xtask bench python`: compares the wheel `simdino` with what it replaces in a training
//! loop.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::fail::{Context, Result, failed, usage};
use crate::wheels::library::Glibc;
use crate::workspace::Workspace;
use crate::{bench, bench_data, process, setup, wheels};

const SCRIPT: &str = "benches/peers/python.py";
/// Folder in which the wheel is installed.
const INSTALLED: &str = "target/bench/python";

/// The parsed arguments.
#[derive(Debug, PartialEq)]
struct Request {
    images: Option<PathBuf>,
    seconds: String,
    json: bool,
}

/// Builds the wheel, installs it into a separate folder, and runs the measurements.
///
/// # Errors
/// Returns an error if an option is invalid or a program fails.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let request = parse(arguments)?;
    setup::run(workspace)?;
    let packages = bench_data::PEER_PACKAGES;
    let python = bench::python_with(workspace, "torchvision, albumentations", &packages)?;
    let Some(python) = python else {
        return failed("the peers need a python3 with torch, torchvision, and albumentations");
    };
    let images = match request.images {
        Some(images) => images,
        None => bench_data::photographs(workspace)?,
    };
    let installed = workspace.path(INSTALLED);
    let wheel_bytes = install(workspace, &python, &installed)?;
    let script = |words: &[&str]| -> Result<Value> {
        let mut command: Command = workspace.command(&python);
        command.arg(SCRIPT).args(words).arg("--images").arg(&images);
        command.args(["--seconds", &request.seconds]).env("PYTHONPATH", &installed);
        process::json(&mut command)
    };
    let mut rates = [0.0; 3];
    for (rate, who) in rates.iter_mut().zip(["simdino", "torchvision", "albumentations"]) {
        let measured = script(&["loader", who])?;
        let Some(value) = measured["img_s"].as_f64() else {
            return failed(format!("{SCRIPT} loader {who} printed no img_s: {measured}"));
        };
        *rate = value;
        println!("{who:<16} {rate:>8.1} images per second, two workers");
    }
    let (resume, loss) = (script(&["resume"])?, script(&["loss"])?);
    let [way, cpu] = [&resume["resume_ms"], &resume["resume_cpu_ms"]].map(rounded);
    let [ours, theirs] = [&loss["simdino_us"], &loss["published_us"]].map(rounded);
    println!(
        "first batch in the middle of ten million listed images: {way} ms ({cpu} ms of CPU time)"
    );
    println!("coding rate of 64 x 256 and its gradient: {ours} us, published {theirs} us");
    if request.json {
        let [ours, torchvision, albumentations] = rates;
        let summary = json!({
            "loader_torchvision": rounded(&json!(ours / torchvision)),
            "loader_albumentations": rounded(&json!(ours / albumentations)),
            "resume_ms": way,
            "loss": rounded(&loss["loss"]),
            "wheel_bytes": wheel_bytes,
        });
        println!("{summary}");
    }
    Ok(())
}

/// Rounds a number to two decimals.
fn rounded(number: &Value) -> Value {
    json!((number.as_f64().unwrap_or_default() * 100.0).round() / 100.0)
}

fn parse(arguments: &[String]) -> Result<Request> {
    let mut request = Request { images: None, seconds: "10".into(), json: false };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || match words.next() {
            Some(value) => Ok(value.clone()),
            None => usage(format!("{word} needs a value")),
        };
        match word.as_str() {
            "--json" => request.json = true,
            "--images" => request.images = Some(value()?.into()),
            "--seconds" => {
                request.seconds = value()?;
                if !request.seconds.parse().is_ok_and(|seconds: f64| seconds > 0.0) {
                    return usage("--seconds needs a number greater than 0");
                }
            }
            other => return usage(format!("bench python: unexpected argument '{other}'")),
        }
    }
    Ok(request)
}

/// Installs the wheel, and returns its size in bytes.
fn install(workspace: &Workspace, python: &OsString, folder: &Path) -> Result<u64> {
    let dist = folder.with_extension("dist");
    for folder in [folder, &dist] {
        let _ = fs::remove_dir_all(folder); // may be left by an earlier run
    }
    let wheel = wheels::library::make(workspace, &dist, Glibc::Here)?;
    let mut pip = workspace.command(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]);
    process::run(pip.args(["--no-deps", "--target"]).arg(folder).arg(&wheel))?;
    let metadata = fs::metadata(&wheel).context(|| format!("cannot read {}", wheel.display()))?;
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let request = parse(&words("--seconds 2.5 --json --images photos")).unwrap();
        let expected = Request { images: Some("photos".into()), seconds: "2.5".into(), json: true };
        assert_eq!(request, expected);
        for wrong in ["--seconds", "--seconds no", "--seconds 0", "photos"] {
            assert_eq!(parse(&words(wrong)).unwrap_err().code(), 2, "{wrong}");
        }
    }
}
