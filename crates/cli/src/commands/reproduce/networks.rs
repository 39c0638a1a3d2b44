//! The given weights, and which network of the paper each file contains.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use eval::store::network_fingerprint;
use model::ModelConfig;
use serde_json::Value as Json;
use tch::Device;

use crate::commands::import::name;
use crate::config::{self, RunConfig};
use crate::failure::{Context, Failure, Result};
use crate::weights;

use super::row::Row;

/// Extensions of weight files.
const EXTENSIONS: [&str; 4] = ["pth", "pt", "bin", "safetensors"];

/// Weights of a network of the paper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub path: PathBuf,
    /// Whether they are the authors' released weights.
    pub released: bool,
}

/// Weights by the name of their network.
pub type AllGiven = BTreeMap<String, Given>;

/// What identifies weights before anything is measured.
#[derive(Debug)]
pub struct Identity {
    pub fingerprint: String,
    /// Why the weights cannot be those of the network in the paper, if that is the case.
    pub unfit: Option<String>,
}

/// Adds the weights that were given as `[NETWORK=]PATH` for the networks of the chosen rows to
/// `all`.
///
/// # Errors
/// Returns an error if the network is ambiguous or has weights already.
pub fn typed(given: &[String], rows: &[Row], all: &mut AllGiven) -> Result<()> {
    let mut networks: Vec<&str> = rows.iter().filter_map(|row| row.network).collect();
    networks.sort_unstable();
    networks.dedup();
    for text in given {
        let named = text.split_once('=').filter(|(name, _)| networks.contains(name));
        let (network, path) = match (named, networks.as_slice()) {
            (Some(named), _) => named,
            (None, [only]) => (*only, text.as_str()),
            (None, _) => {
                let names = networks.join(", ");
                return Err(Failure::usage(format!(
                    "--weights {text}: specify the network as NETWORK=PATH, where NETWORK is one \
                     of {names}"
                )));
            }
        };
        let path = PathBuf::from(path);
        if all.insert(network.to_owned(), Given { path, released: false }).is_some() {
            return Err(Failure::usage(format!("--weights: {network} already has weights")));
        }
    }
    Ok(())
}

/// Finds the authors' checkpoints in a folder by their file names.
///
/// # Errors
/// Returns an error if the folder cannot be read or contains no checkpoint, or if two files are of
/// the same network.
pub fn released(folder: &Path) -> Result<AllGiven> {
    let entries = fs::read_dir(folder);
    let entries = entries.context(|| format!("{}: cannot read the folder", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut all = AllGiven::new();
    for path in files {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(network) = network_of(&stem).filter(|_| EXTENSIONS.contains(&extension.as_str()))
        else {
            continue;
        };
        if let Some(other) = all.get(&network) {
            return Err(Failure::failed(format!(
                "{} and {}: both are named like {network}; keep only one of them in the folder",
                other.path.display(),
                path.display()
            )));
        }
        all.insert(network, Given { path, released: true });
    }
    match all.is_empty() {
        true => Err(Failure::failed(format!(
            "{}: no checkpoint found whose name gives the method and size, such as \
             simdino_vitb16.pth",
            folder.display()
        ))),
        false => Ok(all),
    }
}

/// Returns the network that a file name describes, if it is unambiguous.
fn network_of(stem: &str) -> Option<String> {
    // The authors' files are sometimes misspelled "SimDNIO".
    let name: String = stem.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.replace("simdnio", "simdino").replace("dinov1", "dino");
    let method =
        ["simdinov2", "simdino", "dinov2", "dino"].into_iter().find(|m| name.contains(m))?;
    let sizes = [
        ("vits", "vits16", ["vitsmall16", "vits16", "small16"]),
        ("vitb", "vitb16", ["vitbase16", "vitb16", "base16"]),
        ("vitl", "vitl16", ["vitlarge16", "vitl16", "large16"]),
    ];
    let mut found = sizes.iter().filter(|(short, _, words)| {
        let patch =
            |at: usize| name[at + short.len()..].chars().next().is_none_or(|c| !c.is_ascii_digit());
        // "vitb" alone means patches of 16, but "vitb8" is another network.
        words.iter().any(|word| name.contains(word)) || name.find(short).is_some_and(patch)
    });
    let (_, size, _) = found.next()?;
    found.next().is_none().then(|| format!("{method}_{size}_in1k"))
}

/// Opens weights to compute their fingerprint and to compare them with the recipe of the row.
///
/// # Errors
/// Returns an error if the weights or the config of their run cannot be read.
pub fn identify(row: &Row, given: &Given) -> Result<Identity> {
    let opened = weights::open(&given.path, None, Device::Cpu)?;
    let fingerprint = network_fingerprint(&opened)?;
    let Some(recipe) = row.recipe() else { return Ok(Identity { fingerprint, unfit: None }) };
    let recipe = config::load_unchecked(Path::new(recipe), &[])?.config;
    let found = &opened.model;
    let words =
        |model: &ModelConfig| format!("{} with patch size {}", name(model.arch), model.patch_size);
    let (expected, found) = (words(&recipe.model), words(found));
    let mut unfit = Vec::new();
    if expected != found {
        unfit.push(format!("the weights are a {found}, not a {expected}"));
    }
    unfit.extend(of_run(&given.path, &recipe)?);
    let unfit = (!unfit.is_empty()).then(|| unfit.join("; "));
    Ok(Identity { fingerprint, unfit })
}

/// Maximum number of differences between two configs that are named.
const MOST_NAMED: usize = 3;

/// Returns the reasons why the run at `path` is not a finished training by `recipe`; empty if it
/// is, or if `path` is not a run.
fn of_run(path: &Path, recipe: &RunConfig) -> Result<Vec<String>> {
    let file = path.join("config.resolved.yaml");
    if !file.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&file);
    let run =
        config::of_run(&text.context(|| format!("{}: cannot read the file", file.display()))?)?;
    let mut why = Vec::new();
    if !path.join("weights").is_dir() {
        why.push("the run is not finished".to_owned());
    }
    let differences = differences(&trained_by(recipe)?, &trained_by(&run)?, "");
    if !differences.is_empty() {
        let more = match differences.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let named: Vec<&str> = differences.iter().take(MOST_NAMED).map(String::as_str).collect();
        why.push(format!("the run was trained with {}{more}", named.join(", ")));
    }
    Ok(why)
}

/// Returns the values of a config that the trained weights depend on.
fn trained_by(config: &RunConfig) -> Result<Json> {
    let mut values = serde_json::to_value(config)?;
    if let Some(sections) = values.as_object_mut() {
        for section in ["run", "data", "probe", "sizing"] {
            sections.remove(section);
        }
        if let Some(train) = sections.get_mut("train").and_then(Json::as_object_mut) {
            train.retain(|key, _| ["batch_size", "epochs", "stop_after"].contains(&key.as_str()));
        }
    }
    Ok(values)
}

/// Describes the values of `b` that differ from those of `a`, by key.
fn differences(a: &Json, b: &Json, key: &str) -> Vec<String> {
    match (a, b) {
        (Json::Object(a), Json::Object(b)) => {
            let of = |(name, value): (&String, &Json)| {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                differences(a.get(name).unwrap_or(&Json::Null), value, &key)
            };
            b.iter().flat_map(of).collect()
        }
        _ if a == b => Vec::new(),
        _ => vec![format!("{key} {b} instead of {a}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_tell_the_network() {
        for (stem, network) in [
            ("SimDNIOv1_vitb16", "simdino_vitb16_in1k"),
            ("simdino_vitb16_ep100", "simdino_vitb16_in1k"),
            ("simdinov2-vit-l-16", "simdinov2_vitl16_in1k"),
            ("dinov2_vitb16_in1k", "dinov2_vitb16_in1k"),
            ("DINO_ViT-B", "dino_vitb16_in1k"),
            ("dino_vit_small_16", "dino_vits16_in1k"),
        ] {
            assert_eq!(network_of(stem).as_deref(), Some(network), "{stem}");
        }
        for stem in ["dino_vitb8", "vitb16", "simdino", "dinov2_vitl14", "dino_vitb16_vitl16", "x"]
        {
            assert_eq!(network_of(stem), None, "{stem}");
        }
    }

    #[test]
    fn a_path_alone_is_clear_only_for_one_network() {
        let row = |network| Row::of("table1", network, "a network");
        let one = [row("simdino_vitb16_in1k")];
        let two = [row("simdino_vitb16_in1k"), row("dino_vitb16_in1k")];
        let mut all = AllGiven::new();
        typed(&["a=b.pth".to_owned()], &one, &mut all).unwrap();
        assert_eq!(all["simdino_vitb16_in1k"].path, Path::new("a=b.pth"));
        let mut all = AllGiven::new();
        assert_eq!(typed(&["b.pth".to_owned()], &two, &mut all).unwrap_err().code(), 2);
        let named = "dino_vitb16_in1k=b.pth".to_owned();
        typed(std::slice::from_ref(&named), &two, &mut all).unwrap();
        assert_eq!(all["dino_vitb16_in1k"].path, Path::new("b.pth"));
        assert!(typed(&[named], &two, &mut all).is_err(), "given twice");
    }

    #[test]
    fn a_run_by_another_config_is_not_the_row() {
        let folder = tempfile::tempdir().unwrap();
        let config = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
            config::load_unchecked(Path::new("simdino_vits16_in1k"), &values).unwrap().config
        };
        let write = |values: &[&str]| {
            let text = config::to_yaml(&config(values)).unwrap();
            fs::write(folder.path().join("config.resolved.yaml"), text).unwrap();
            of_run(folder.path(), &config(&[])).unwrap().join("; ")
        };
        assert_eq!(of_run(folder.path(), &config(&[])).unwrap(), [""; 0], "no run");
        assert_eq!(write(&["run.name=other", "data.path=images"]), "the run is not finished");
        fs::create_dir(folder.path().join("weights")).unwrap();
        assert_eq!(write(&["probe.every_epochs=10", "train.log_every=3"]), "");
        let why = write(&["train.epochs=50", "simdino.eps=0.1"]);
        assert!(
            why.contains("simdino.eps 0.1 instead of ")
                && why.contains("train.epochs 50.0 instead of 100.0"),
            "{why}"
        );
    }
}
