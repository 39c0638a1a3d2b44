//! `cargo xtask bench objects`: compares cuts, CRF, and label propagation with SciPy, pydensecrf,
//! and torch.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::fail::{Context, Result, failed, usage};
use crate::workspace::Workspace;
use crate::{process, setup};

const PEER: &str = "benches/peers/objects.py";
const PEER_PACKAGES: [&str; 3] = ["scipy==1.17.1", "pydensecrf2==1.1", "pillow==12.3.0"];
const SCRATCH: &str = "target/bench/objects";
const VENV: &str = "target/bench/objects-venv";

/// Name of a ratio, and the keys of each side whose times are summed and compared.
type Ratio = (&'static str, &'static [&'static str], &'static [&'static str]);

/// `ncut` computes the eigenvector of a given graph; `cut` starts from the features, so that both
/// sides also compute the graph.
const RATIOS: [Ratio; 9] = [
    ("ncut_900", &["dense_900"], &["solve_900"]),
    ("ncut_3600", &["dense_3600"], &["solve_3600"]),
    ("ncut_3600_eigsh", &["lanczos_3600"], &["solve_3600"]),
    ("cut_900", &["graph_900", "dense_900"], &["graph_900", "solve_900"]),
    ("cut_3600", &["graph_3600", "dense_3600"], &["graph_3600", "solve_3600"]),
    ("cut_900_eigsh", &["graph_900", "lanczos_900"], &["graph_900", "solve_900"]),
    ("cut_3600_eigsh", &["graph_3600", "lanczos_3600"], &["graph_3600", "solve_3600"]),
    ("crf", &["crf"], &["crf"]),
    ("vos", &["vos"], &["vos"]),
];

/// Largest differences of results: of vectors up to sign, relative to the largest entry, and of
/// probabilities.
const DIFFERENCES: [(&str, f64); 4] = [
    ("difference_dense_900", 1e-6),
    ("difference_dense_3600", 1e-6),
    ("difference_crf", 1e-3),
    ("difference_vos", 1e-4),
];

/// Runs both sides on the same input, each with one thread, and prints their ratios.
///
/// # Errors
/// Returns an error if an option is invalid, there is no Python with torch, a program fails, or
/// results differ.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let json = match arguments {
        [] => false,
        [word] if word == "--json" => true,
        [word, ..] => return usage(format!("bench objects: unexpected argument '{word}'")),
    };
    setup::run(workspace)?;
    let peer = Peer::new(workspace)?;
    let folder = workspace.path(SCRATCH);
    fs::create_dir_all(&folder).context(|| format!("cannot create {}", folder.display()))?;
    let photo = photo(workspace, &folder)?;
    peer.run("prepare", &folder, photo.as_deref())?;
    let example = ["run", "--quiet", "--package", "simdino-objects", "--example", "bench_objects"];
    let ours = process::json(workspace.cargo(&example).arg("--").arg(&folder))?;
    println!("the peers take minutes, because they include a dense eigensolver with 3,600 patches");
    let theirs = peer.run("run", &folder, None)?.unwrap_or_default();
    let summary = summary(&ours, &theirs)?;
    print!("{}", table(&ours, &theirs, &summary));
    if json {
        println!("{}", Value::from(summary));
    }
    differing(&theirs)
}

/// The Python of the peers.
#[derive(Debug)]
struct Peer<'a> {
    workspace: &'a Workspace,
    python: PathBuf,
    /// The folder that contains torch.
    packages: String,
}

impl<'a> Peer<'a> {
    /// Creates a virtual environment with SciPy and pydensecrf, separate from the one that has
    /// torch.
    fn new(workspace: &'a Workspace) -> Result<Self> {
        let Some(torch): Option<OsString> = setup::python_with_torch(workspace) else {
            return failed(format!("no python3 on this machine can import torch {}", setup::TORCH));
        };
        let where_torch =
            "import torch, os; print(os.path.dirname(os.path.dirname(torch.__file__)))";
        let packages = process::probe(workspace.command(&torch).args(["-c", where_torch]));
        let python = workspace.path(VENV).join("bin/python");
        let peer = Self { workspace, python, packages: packages.unwrap_or_default() };
        let imports = ["-c", "import scipy, pydensecrf.densecrf, PIL, torch"];
        if process::probe(peer.command().args(imports)).is_none() {
            println!("installing {} into {VENV}", PEER_PACKAGES.join(", "));
            process::run(workspace.command(&torch).args(["-m", "venv", VENV]))?;
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            process::run(workspace.command(&peer.python).args(install).args(PEER_PACKAGES))?;
        }
        Ok(peer)
    }

    fn command(&self) -> std::process::Command {
        let mut command = self.workspace.command(&self.python);
        command.env("PYTHONPATH", &self.packages);
        command
    }

    fn run(&self, what: &str, folder: &Path, photo: Option<&Path>) -> Result<Option<Value>> {
        let mut command = self.command();
        command.args([PEER, what]).arg(folder).args(photo);
        if what == "run" {
            return process::json(&mut command).map(Some);
        }
        process::run(&mut command).map(|()| None)
    }
}

/// Returns a photograph of the test data, if there is any.
fn photo(workspace: &Workspace, folder: &Path) -> Result<Option<PathBuf>> {
    let pack = std::env::var_os("SIMDINO_TEST_DATA")
        .map(|data| Path::new(&data).join("coco_mini.tar"))
        .filter(|pack| pack.is_file());
    let Some(pack) = pack else {
        println!("bench: SIMDINO_TEST_DATA is not set: drawing an image");
        return Ok(None);
    };
    process::run(workspace.command("tar").arg("xf").arg(pack).arg("-C").arg(folder))?;
    let images = folder.join("coco_mini/images");
    let entries = fs::read_dir(&images).context(|| format!("cannot read {}", images.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).min())
}

fn seconds(side: &Value, keys: &[&str]) -> Result<f64> {
    let mut sum = 0.0;
    for key in keys {
        match side[*key].as_f64() {
            Some(seconds) => sum += seconds,
            None => return failed(format!("no {key} in {side}")),
        }
    }
    Ok(sum)
}

/// Returns ratios of their times to ours, and further numbers of interest.
fn summary(ours: &Value, theirs: &Value) -> Result<Map<String, Value>> {
    let rounded = |x: f64| json!((x * 100.0).round() / 100.0);
    let mut summary = Map::new();
    for (name, their_keys, our_keys) in RATIOS {
        let ratio = seconds(theirs, their_keys)? / seconds(ours, our_keys)?;
        summary.insert(name.to_owned(), rounded(ratio));
    }
    let image = seconds(ours, &["masks_900", "crf_of_3_masks"])?;
    summary.insert("seconds_3_masks_900".into(), rounded(image));
    if let Some(bytes) = ours["peak_memory_3600"].as_f64() {
        summary.insert("peak_mib_3600".into(), rounded(bytes / f64::from(1 << 20)));
    }
    for (name, _) in DIFFERENCES {
        summary.insert(name.to_owned(), theirs[name].clone());
    }
    Ok(summary)
}

fn table(ours: &Value, theirs: &Value, summary: &Map<String, Value>) -> String {
    let mut text =
        format!("one thread\n{:<20} {:>12} {:>12} {:>10}\n", "", "theirs, s", "ours, s", "ratio");
    for (name, their_keys, our_keys) in RATIOS {
        let time = |side: &Value, keys: &[&str]| seconds(side, keys).unwrap_or(f64::NAN);
        let (theirs, ours) = (time(theirs, their_keys), time(ours, our_keys));
        text += &format!("{name:<20} {theirs:>12.4} {ours:>12.4} {:>10}\n", summary[name]);
    }
    for (name, value) in summary.iter().filter(|(name, _)| RATIOS.iter().all(|row| row.0 != **name))
    {
        text += &format!("{name:<24} {value}\n");
    }
    text
}

/// Returns an error if results differ by more than is allowed.
fn differing(theirs: &Value) -> Result<()> {
    for (name, most) in DIFFERENCES {
        match theirs[name].as_f64() {
            Some(difference) if difference <= most => {}
            _ => {
                return failed(format!(
                    "{name} is {}, but at most {most:e} was expected",
                    theirs[name]
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides() -> (Value, Value) {
        let side = |factor: f64| {
            let mut side = Map::new();
            for key in RATIOS.iter().flat_map(|(_, theirs, ours)| theirs.iter().chain(*ours)) {
                side.insert((*key).to_owned(), json!(factor));
            }
            side
        };
        let mut ours = side(0.5);
        ours.insert("masks_900".into(), json!(0.1));
        ours.insert("crf_of_3_masks".into(), json!(0.2));
        let mut theirs = side(4.0);
        for (name, _) in DIFFERENCES {
            theirs.insert(name.to_owned(), json!(1e-9));
        }
        (ours.into(), theirs.into())
    }

    #[test]
    fn ratios_are_theirs_over_ours() {
        let (ours, mut theirs) = sides();
        let found = summary(&ours, &theirs).unwrap();
        assert_eq!(found["ncut_3600"], 8.0);
        assert_eq!(found["seconds_3_masks_900"], 0.3);
        assert!(table(&ours, &theirs, &found).contains("cut_900_eigsh"));
        theirs["crf"] = Value::Null;
        assert!(summary(&ours, &theirs).is_err());
    }

    #[test]
    fn other_results_are_an_error() {
        let (_, mut theirs) = sides();
        assert!(differing(&theirs).is_ok());
        theirs["difference_crf"] = json!(0.1);
        assert!(differing(&theirs).is_err());
        theirs["difference_crf"] = Value::Null;
        assert!(differing(&theirs).is_err());
    }
}
