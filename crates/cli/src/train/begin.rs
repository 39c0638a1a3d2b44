//! Interprets the first argument of `simdino train`: a config, or images, which are trained on with
//! the recipe `quickstart`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::counted;
use data::Dataset;
use serde_json::Value;
use simdino::config::{Sizing, sizes_for};
use simdino::device;
use torch_ext::Launch;

use crate::config::{self, Loaded};
use crate::failure::{Failure, Result};

/// The recipe for images without a config.
const QUICKSTART: &str = "quickstart";
/// Extensions of lists and shards, which no config has.
const DATA: [&str; 8] = ["tar", "gz", "tgz", "parquet", "csv", "tsv", "jsonl", "txt"];

/// Names of files and folders that do not identify a dataset.
const GENERIC: [&str; 20] = [
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "testing",
    "unlabeled",
    "data",
    "dataset",
    "images",
    "image",
    "imgs",
    "img",
    "pictures",
    "jpg",
    "jpeg",
    "png",
    "metadata",
    "shards",
];

/// A checked config, and its images if they were opened to choose sizes.
pub struct Begun {
    pub loaded: Loaded,
    pub dataset: Option<Arc<Dataset>>,
}

/// Reads the config `what`, or the recipe with that name; if `what` names images, uses the recipe
/// `quickstart` with them. For `sizing: auto`, chooses the sizes that the config does not give, for
/// `planned` processes or, if that is `None`, for those that the launcher has started.
///
/// # Errors
/// Returns all problems of the config at once. Also returns an error if the images cannot be opened
/// or the variables of the launcher contradict each other.
pub fn begin(what: &Path, overrides: &[String], planned: Option<usize>) -> Result<Begun> {
    if let Some(path) =
        overrides.iter().find(|word| !word.contains('=') && Path::new(word).exists())
    {
        let text = format!("'{path}' is not a KEY=VALUE argument: did you mean data.path={path}?");
        return Err(Failure::usage(text));
    }
    let Some(name) = name_of_images(what)? else { return sized(what, overrides, planned) };
    let mut all = vec![format!("data.path={}", what.display()), format!("run.name={name}")];
    all.extend_from_slice(overrides);
    let mut begun = sized(Path::new(QUICKSTART), &all, planned)?;
    if begun.loaded.given["run"]["name"].is_null() {
        begun.loaded.config.run.name = Some(name);
    }
    begun
        .loaded
        .notes
        .insert(0, format!("training on {} with the recipe {QUICKSTART}", what.display()));
    Ok(begun)
}

/// Returns the name of a run on the images `what`; `None` if `what` is not a folder, a list, or a
/// shard.
fn name_of_images(what: &Path) -> Result<Option<String>> {
    if what.join("config.resolved.yaml").is_file() {
        return Err(Failure::usage(format!(
            "{0} is a run: continue it with the command that started it and --resume auto, or \
             train with its config {0}/config.resolved.yaml",
            what.display()
        )));
    }
    let extension = what.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    // A recipe takes precedence over a folder with the same name.
    let recipe = what.to_str().is_some_and(|name| simdino::recipes::text(name).is_some());
    if recipe || !(what.is_dir() || DATA.contains(&extension)) {
        return Ok(None);
    }
    Ok(Some(name_of(&what.canonicalize().unwrap_or_else(|_| PathBuf::from(what)))))
}

/// Returns a name for a run on the images at `path`: its last component up to the first dot,
/// prefixed with the component before if the last one is generic.
fn name_of(path: &Path) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let name = |path: &Path| -> String {
        let part = path.file_name().unwrap_or_default().to_string_lossy();
        part.split('.').next().unwrap_or_default().chars().map(plain).collect()
    };
    let last = name(path);
    let before = path.parent().map(name).filter(|before| !before.is_empty() && *before != last);
    match before {
        Some(before) if GENERIC.contains(&last.to_lowercase().as_str()) => {
            format!("{before}_{last}")
        }
        _ if last.is_empty() => QUICKSTART.to_owned(),
        _ => last,
    }
}

fn sized(config: &Path, overrides: &[String], planned: Option<usize>) -> Result<Begun> {
    let loaded = config::load_unchecked(config, overrides)?;
    if loaded.config.sizing != Sizing::Auto || !loaded.config.data.validate().is_empty() {
        return Ok(Begun { loaded: config::load(config, overrides)?, dataset: None });
    }
    let on_gpu = device::resolve(loaded.config.run.device)?.is_cuda();
    let dataset = Arc::new(data::open(&loaded.config.data).map_err(simdino::Error::from)?);
    let processes = match planned {
        Some(processes) => processes,
        None => Launch::from_variables(&std::env::vars().collect())?.size,
    };
    let sizes = sizes_for(&loaded.given, loaded.config.method, dataset.len(), on_gpu, processes);
    let chosen = chosen(&sizes, &loaded.given);
    let mut loaded = config::load_with(sizes, config, overrides)?;
    if !chosen.is_empty() {
        loaded.notes.push(format!(
            "chosen for {} on {}: {}",
            counted(dataset.len(), "image", "images"),
            devices(on_gpu, processes),
            chosen.join(" ")
        ));
    }
    Ok(Begun { loaded, dataset: Some(dataset) })
}

/// Returns words such as `a GPU` or `a GPU for each of 2 processes`.
fn devices(on_gpu: bool, processes: usize) -> String {
    let device = if on_gpu { "GPU" } else { "CPU" };
    match processes {
        1 => format!("a {device}"),
        _ => format!("a {device} for each of {processes} processes"),
    }
}

/// Returns the sizes that were not given, as `KEY=VALUE`.
fn chosen(sizes: &Value, given: &Value) -> Vec<String> {
    let sections = sizes.as_object().into_iter().flatten();
    let keys = sections.flat_map(|(section, keys)| {
        keys.as_object().into_iter().flatten().map(move |(key, value)| (section, key, value))
    });
    let absent =
        keys.filter(|(section, key, _)| given[section.as_str()].get(key.as_str()).is_none());
    let typed = absent.map(|(section, key, value)| match value.as_str() {
        Some(text) => format!("{section}.{key}={text}"),
        None => format!("{section}.{key}={value}"),
    });
    typed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_tells_nothing_follows_the_one_before() {
        for (path, expected) in [
            ("/sets/birds", "birds"),
            ("/sets/birds/train", "birds_train"),
            ("/sets/fish/Images", "fish_Images"),
            ("/sets/fish/metadata.csv", "fish_metadata"),
            ("/sets/my photos", "my_photos"),
            ("/images/images", "images"),
            ("/train", "train"),
            ("/", QUICKSTART),
        ] {
            assert_eq!(name_of(Path::new(path)), expected, "{path}");
        }
    }
}
