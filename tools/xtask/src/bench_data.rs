//! `cargo xtask bench data`: compares the data pipeline with torchvision + Pillow and
//! albumentations.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fail::{Context, Result, failed, usage};
use crate::simdino::{self, Simdino, Synthetic};
use crate::workspace::Workspace;
use crate::{bench, process, setup};

const PEER: &str = "benches/peers/data.py";
/// Packages that the peers need besides torch.
pub const PEER_PACKAGES: [&str; 2] = ["torchvision==0.26.0", "albumentations==2.0.8"];
/// Images that are drawn if there is no folder of photographs.
const DRAWN: Synthetic = Synthetic { count: 100, size: 450, seed: 0 };

/// The parsed arguments.
#[derive(Debug, PartialEq)]
struct Request {
    images: Option<PathBuf>,
    seconds: f64,
    rounds: usize,
    json: bool,
}

/// Images per second of each program in one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    ours: f64,
    ours_2_threads: f64,
    decode_only: f64,
    opencv_decode_only: f64,
    torchvision: f64,
    albumentations: f64,
}

/// Runs simdino and its peers one after the other, several times, and prints medians.
///
/// # Errors
/// Returns an error if an option is invalid or a program fails.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let request = parse(arguments)?;
    setup::run(workspace)?;
    let simdino = Simdino::build(workspace)?;
    let images = match &request.images {
        Some(images) => images.clone(),
        None => default_images(workspace, &simdino)?,
    };
    let Some(python) =
        bench::python_with(workspace, "torchvision, albumentations", &PEER_PACKAGES)?
    else {
        return failed("the peers need a python3 with torch, torchvision, and albumentations");
    };
    let mut rounds = Vec::new();
    for _ in 0..request.rounds {
        rounds.push(round(workspace, &simdino, &python, &images, request.seconds)?);
    }
    let summary = summary(&rounds);
    print!("{}", table(&images, &summary));
    if request.json {
        println!("{summary}");
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Request> {
    let mut request = Request { images: None, seconds: 8.0, rounds: 3, json: false };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || match words.next() {
            Some(value) => Ok(value.clone()),
            None => usage(format!("{word} needs a value")),
        };
        match word.as_str() {
            "--json" => request.json = true,
            "--images" => request.images = Some(value()?.into()),
            "--seconds" => match value()?.parse() {
                Ok(seconds) if seconds > 0.0 => request.seconds = seconds,
                _ => return usage("--seconds needs a number greater than 0"),
            },
            "--rounds" => match value()?.parse() {
                Ok(rounds) if rounds > 0 => request.rounds = rounds,
                _ => return usage("--rounds needs an integer greater than 0"),
            },
            other => return usage(format!("bench data: unexpected argument '{other}'")),
        }
    }
    Ok(request)
}

/// Returns the photographs of the test data if there are any, or else draws images.
fn default_images(workspace: &Workspace, simdino: &Simdino<'_>) -> Result<PathBuf> {
    if let Some(photos) = photographs_of_test_data(workspace)? {
        return Ok(photos);
    }
    let drawn = workspace.path("target/bench/drawn");
    if !drawn.is_dir() {
        println!(
            "bench: neither --images nor SIMDINO_TEST_DATA is given: drawing images (PNG, not \
             JPEG)"
        );
        process::run(&mut simdino.data_synth(&drawn, DRAWN))?;
    }
    Ok(simdino::images(&drawn))
}

/// Returns the photographs of the test data, for benchmarks that cannot draw images.
///
/// # Errors
/// Returns an error if there are no photographs.
pub fn photographs(workspace: &Workspace) -> Result<PathBuf> {
    match photographs_of_test_data(workspace)? {
        Some(photos) => Ok(photos),
        None => usage("name a folder of photographs with --images, or set SIMDINO_TEST_DATA"),
    }
}

/// Unpacks the photographs of the test data below `target`.
fn photographs_of_test_data(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let folder = workspace.path("target/bench");
    fs::create_dir_all(&folder).context(|| format!("cannot create {}", folder.display()))?;
    let photos = std::env::var_os("SIMDINO_TEST_DATA")
        .map(|data| Path::new(&data).join("photos.tar"))
        .filter(|photos| photos.is_file());
    let Some(photos) = photos else { return Ok(None) };
    let mut tar = workspace.command("tar");
    process::run(tar.arg("xf").arg(photos).arg("-C").arg(&folder))?;
    Ok(Some(folder.join("photos")))
}

fn round(
    workspace: &Workspace,
    simdino: &Simdino<'_>,
    python: &OsString,
    images: &Path,
    seconds: f64,
) -> Result<Round> {
    let peer = |name: &str| {
        let mut command = workspace.command(python);
        command.args([PEER, name, "--seconds", &seconds.to_string()]).arg("--images").arg(images);
        number(&process::json(&mut command)?["img_s"])
    };
    let torchvision = peer("torchvision")?;
    let ours = process::json(&mut simdino.bench_data(images, seconds))?;
    let albumentations = peer("albumentations")?;
    let opencv_decode_only = peer("decode")?;
    Ok(Round {
        ours: number(&ours["pipeline"][0]["img_s"])?,
        ours_2_threads: number(&ours["pipeline"][1]["img_s"])?,
        decode_only: number(&ours["decode_only_img_s"])?,
        opencv_decode_only,
        torchvision,
        albumentations,
    })
}

fn number(value: &Value) -> Result<f64> {
    match value.as_f64() {
        Some(value) => Ok(value),
        None => failed(format!("expected images per second, got {value}")),
    }
}

/// Returns medians over the rounds. Ratios are medians of the ratios of the rounds.
fn summary(rounds: &[Round]) -> Value {
    let median = |of: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2] * 1000.0).round() / 1000.0
    };
    json!({
        "ours_img_s": median(|r| r.ours),
        "decode_only_img_s": median(|r| r.decode_only),
        "opencv_decode_only_img_s": median(|r| r.opencv_decode_only),
        "ratio_opencv_decode_only": median(|r| r.decode_only / r.opencv_decode_only),
        "torchvision_img_s": median(|r| r.torchvision),
        "albumentations_img_s": median(|r| r.albumentations),
        "ratio_torchvision": median(|r| r.ours / r.torchvision),
        "ratio_albumentations": median(|r| r.ours / r.albumentations),
        "share_of_decode_only": median(|r| r.ours / r.decode_only),
        "speedup_2_threads": median(|r| r.ours_2_threads / r.ours),
        "rounds": rounds.len(),
    })
}

fn table(images: &Path, summary: &Value) -> String {
    let value = |key: &str| summary[key].as_f64().unwrap_or(f64::NAN);
    let mut text = format!("images in {}, one thread, 2x224 + 10x96 crops\n", images.display());
    for (name, key, ratio) in [
        ("simdino", "ours_img_s", None),
        ("simdino, decoding alone", "decode_only_img_s", Some(value("share_of_decode_only"))),
        ("torchvision + Pillow", "torchvision_img_s", Some(value("ratio_torchvision"))),
        ("albumentations", "albumentations_img_s", Some(value("ratio_albumentations"))),
    ] {
        let ratio =
            ratio.map_or(String::new(), |ratio| format!("  simdino is {ratio:.2}x as fast"));
        text += &format!("{name:<26} {:>8.1} img/s{ratio}\n", value(key));
    }
    text += &format!(
        "{:<26} {:>8.1} img/s  simdino decodes {:.2}x as fast\n",
        "OpenCV, decoding alone",
        value("opencv_decode_only_img_s"),
        value("ratio_opencv_decode_only")
    );
    text + &format!("two threads are {:.2}x as fast as one\n", value("speedup_2_threads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let request = parse(&words("--images d --seconds 2.5 --rounds 1 --json")).unwrap();
        let expected = Request { images: Some("d".into()), seconds: 2.5, rounds: 1, json: true };
        assert_eq!(request, expected);
        for bad in ["--seconds 0", "--rounds x", "--images", "--fast"] {
            assert_eq!(parse(&words(bad)).unwrap_err().code(), 2, "{bad}");
        }
    }

    #[test]
    fn ratios_are_medians_of_the_rounds() {
        let round = |ours, torchvision| Round {
            ours,
            ours_2_threads: 2.0 * ours,
            decode_only: 400.0,
            opencv_decode_only: 200.0,
            torchvision,
            albumentations: 50.0,
        };
        let summary = summary(&[round(100.0, 10.0), round(200.0, 40.0), round(90.0, 10.0)]);
        assert_eq!(summary["ratio_torchvision"], 9.0);
        assert_eq!(summary["ours_img_s"], 100.0);
        assert_eq!(summary["speedup_2_threads"], 2.0);
        let table = table(Path::new("x"), &summary);
        assert!(table.contains("9.00x as fast"));
        assert!(table.contains("simdino decodes 2.00x as fast"));
    }
}
