//! `cargo xtask bench eval`: compares evaluations on frozen features with torch and scikit-learn.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::fail::{Context, Result, usage};
use crate::simdino::{Simdino, Synthetic, images};
use crate::workspace::Workspace;
use crate::{bench, process, setup};

const PEER: &str = "benches/peers/eval.py";
const PEER_PACKAGES: [&str; 4] =
    ["scikit-learn==1.7.2", "timm==1.0.22", "torchvision==0.26.0", "faiss-cpu==1.15.1"];
/// Folder for features and images.
const FOLDER: &str = "target/bench-eval";
/// Images whose features are extracted.
const DRAWN: Synthetic = Synthetic { count: 256, size: 320, seed: 0 };
/// The measured evaluations, in the order of the table.
const KINDS: [&str; 5] = ["knn", "logreg", "linear_grid", "extract", HUMMINGBIRD];
/// The nearest-patch search of in-context segmentation, which separate programs measure.
const HUMMINGBIRD: &str = "hummingbird";
const HUMMINGBIRD_PEER: &str = "benches/peers/hummingbird.py";

/// Runs simdino and its peers one after the other on the same features, and prints ratios. A
/// missing peer is null in the summary.
///
/// # Errors
/// Returns an error if an option is invalid or simdino fails.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let (mut json, mut options) = (false, Vec::new());
    for word in arguments {
        match word.as_str() {
            "--json" => json = true,
            word if ["--train=", "--test=", "--width=", "--classes=", "--rounds="]
                .iter()
                .any(|known| word.starts_with(known)) =>
            {
                options.push(word.to_owned());
            }
            word => return usage(format!("bench eval: unexpected argument '{word}'")),
        }
    }
    setup::run(workspace)?;
    let simdino = Simdino::build(workspace)?;
    let folder = workspace.path(FOLDER);
    fs::create_dir_all(&folder).context(|| format!("cannot create {}", folder.display()))?;
    let drawn = folder.join(format!("drawn-{}", DRAWN.count));
    if !drawn.exists() {
        process::run(&mut simdino.data_synth(&drawn, DRAWN))?;
    }
    let mut command = workspace.torch_command(simdino.path());
    command.args(["bench", "eval", "--json", "--folder"]).arg(&folder);
    command.arg("--images").arg(images(&drawn)).args(&options);
    let mut ours = process::json(&mut command)?;
    let theirs = match bench::python_with(
        workspace,
        "sklearn, timm, torchvision, faiss",
        &PEER_PACKAGES,
    )? {
        Some(python) => {
            let mut command = workspace.command(&python);
            command.arg(PEER).arg("--folder").arg(&folder).arg("--images").arg(images(&drawn));
            command.arg("--settings").arg(ours.to_string());
            let mut theirs = process::json(&mut command)?;
            let search = hummingbird(workspace, &simdino, &python, &ours["threads"])?;
            put(&mut ours, &mut theirs, &search);
            theirs
        }
        None => {
            let why = format!("no python3 on this machine can import torch {}", setup::TORCH);
            json!({"missing": KINDS.map(|kind| (kind, &why)).into_iter().collect::<BTreeMap<_, _>>()})
        }
    };
    print!("{}", table(&ours, &theirs));
    if json {
        println!("{}", summary(&ours, &theirs));
    }
    Ok(())
}

/// Returns the times of the search in simdino and its peers.
fn hummingbird(
    workspace: &Workspace,
    simdino: &Simdino<'_>,
    python: &OsStr,
    threads: &Value,
) -> Result<Value> {
    // Built together, because alone, the example would build shared dependencies with other
    // features.
    process::run(&mut workspace.cargo(&[
        "build",
        "--package=trainer",
        "--bin=simdino",
        "--package=simdino-eval",
        "--example=nearest",
    ]))?;
    let example = simdino.path().with_file_name("examples").join("nearest");
    let mut command = workspace.torch_command(Path::new(python));
    command.arg(HUMMINGBIRD_PEER).arg("--ours").arg(example);
    process::json(command.arg("--threads").arg(threads.to_string()))
}

/// Adds the times of the search to those of the other evaluations; the peer is faiss.
fn put(ours: &mut Value, theirs: &mut Value, search: &Value) {
    ours["seconds"][HUMMINGBIRD] = search["nearest_s"].clone();
    theirs["seconds"][HUMMINGBIRD] = search["faiss_s"].clone();
    if let Some(why) = search["missing"]["faiss_s"].as_str() {
        theirs["missing"][HUMMINGBIRD] = why.into();
    }
}

fn table(ours: &Value, theirs: &Value) -> String {
    let mut text = format!(
        "{} classes, features with {} columns, {} threads; linear_grid is the time of one \
         step\n{:<12} {:>12} {:>12} {:>8}\n",
        ours["classes"], ours["width"], ours["threads"], "", "simdino s", "peer s", "ratio"
    );
    for kind in KINDS {
        let seconds = |of: &Value| of["seconds"][kind].as_f64();
        let number = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        };
        let ratio = ratio(ours, theirs, kind).map(|ratio| format!("{ratio:.2}"));
        let why = theirs["missing"][kind].as_str().map(|why| format!("  {why}"));
        text += &format!(
            "{kind:<12} {:>12} {:>12} {:>8}{}\n",
            number(seconds(ours)),
            number(seconds(theirs)),
            ratio.unwrap_or_else(|| "-".to_owned()),
            why.unwrap_or_default()
        );
    }
    text + &overlap(ours) + &losses(ours, theirs)
}

/// Describes how close the extraction comes to the slower of its two parts alone, which it could
/// reach if they ran on different hardware.
fn overlap(ours: &Value) -> String {
    let seconds = |kind: &str| ours["seconds"][kind].as_f64();
    let parts = (seconds("extract"), seconds("extract_loader"), seconds("extract_network"));
    let (Some(all), Some(loader), Some(network)) = parts else { return String::new() };
    let over = 100.0 * (all / loader.max(network) - 1.0);
    format!(
        "extract: {all:.2} s; the loader alone {loader:.2} s, the network alone {network:.2} s: \
         {over:.0}% above the slower one\n"
    )
}

/// Describes the minima that both regressions reached; the lower one is the better fit.
fn losses(ours: &Value, theirs: &Value) -> String {
    let empty = Vec::new();
    let list = |of: &Value| of["losses"].as_array().unwrap_or(&empty).clone();
    let pairs = list(ours).into_iter().zip(list(theirs));
    let line = |(ours, theirs): (Value, Value)| {
        format!("loss of logreg: simdino {ours}, scikit-learn {theirs}\n")
    };
    pairs.map(line).collect()
}

/// Returns the time of the peer relative to ours.
fn ratio(ours: &Value, theirs: &Value, kind: &str) -> Option<f64> {
    let ours = ours["seconds"][kind].as_f64().filter(|&seconds| seconds > 0.0)?;
    Some(theirs["seconds"][kind].as_f64()? / ours)
}

fn summary(ours: &Value, theirs: &Value) -> Value {
    let rounded = |ratio: f64| (ratio * 100.0).round() / 100.0;
    let of = |kind: &str| (kind.to_owned(), json!(ratio(ours, theirs, kind).map(rounded)));
    let mut summary: Map<String, Value> = KINDS.iter().map(|kind| of(kind)).collect();
    if theirs["missing"].as_object().is_some_and(|missing| !missing.is_empty()) {
        summary.insert("missing".into(), theirs["missing"].clone());
    }
    summary.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_missing_is_null_with_the_reason() {
        let mut ours =
            json!({"seconds": {"knn": 0.5, "logreg": 2.0, "linear_grid": 0.01, "extract": 1.0}});
        let mut theirs = json!({"seconds": {"knn": 1.25, "linear_grid": 0.05}, "missing": {"logreg": "no sklearn"}});
        let search = json!({"nearest_s": 2.0, "faiss_s": 3.0, "torch_s": 9.0, "missing": {}});
        put(&mut ours, &mut theirs, &search);
        let expected = json!({
            "knn": 2.5, "logreg": null, "linear_grid": 5.0, "extract": null, "hummingbird": 1.5,
            "missing": {"logreg": "no sklearn"},
        });
        assert_eq!(summary(&ours, &theirs), expected);
        ours["seconds"]["extract_loader"] = 0.4.into();
        ours["seconds"]["extract_network"] = 0.8.into();
        let text = table(&ours, &theirs);
        assert!(text.contains("the network alone 0.80 s: 25% above"), "{text}");
        assert!(text.contains("no sklearn") && text.contains("5.00"), "{text}");
        put(
            &mut ours,
            &mut theirs,
            &json!({"nearest_s": 2.0, "faiss_s": null, "missing": {"faiss_s": "no faiss"}}),
        );
        let summary = summary(&ours, &theirs);
        assert!(summary["hummingbird"].is_null(), "{summary}");
        assert_eq!(summary["missing"]["hummingbird"], "no faiss");
    }
}
