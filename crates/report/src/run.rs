//! Reads the files in the folder of a run, any of which may be missing.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use simdino::RunConfig;
use trainer::metrics::{Record, read_jsonl};

use crate::error::{Error, Result};

/// Size limit of a picture that is embedded in a page.
const MAX_PICTURE_BYTES: u64 = 16_000_000;

/// A part of a run, or the reason why it is missing.
pub(crate) type Piece<T> = std::result::Result<T, String>;

/// The parts of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Name of the run, which is the name of its folder.
    pub name: String,
    /// `metrics.jsonl`.
    pub records: Piece<Vec<Record>>,
    /// `config.resolved.yaml` as text.
    pub config_text: Piece<String>,
    /// The parsed config, if this version can read it.
    pub config: Option<RunConfig>,
    /// `env.json`.
    pub environment: Piece<Value>,
    /// `results.json`.
    pub results: Piece<Value>,
    /// `pictures/crops.png`.
    pub crops: Piece<Vec<u8>>,
    /// `pictures/pca.png`.
    pub pca: Piece<Vec<u8>>,
    /// Rows of `bad_images.tsv` and of the `bad_images.N.tsv` of other processes: file and reason.
    pub broken: Vec<(String, String)>,
}

impl Run {
    /// Reads all existing files; `read_config` parses the text of the config.
    ///
    /// # Errors
    /// Returns an error if the folder does not exist or has neither readable metrics nor a config.
    pub(crate) fn read(
        folder: &Path,
        read_config: &dyn Fn(&str) -> Option<RunConfig>,
    ) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::NoFolder { folder: folder.display().to_string() });
        }
        let records = read_records(&folder.join("metrics.jsonl"));
        let config_text = read_text(&folder.join("config.resolved.yaml"));
        if let (Err(why), Err(_)) = (&records, &config_text) {
            let study = folder.join("study.html");
            let why = match study.is_file() {
                true => format!("it is a study, and its page is {}", study.display()),
                false => why.clone(),
            };
            return Err(Error::NotARun { folder: folder.display().to_string(), why });
        }
        Ok(Self {
            name: name_of(folder),
            records,
            config: config_text.as_deref().ok().and_then(read_config),
            config_text,
            environment: read_json(&folder.join("env.json")),
            results: read_json(&folder.join("results.json")),
            crops: read_png(&folder.join("pictures/crops.png")),
            pca: read_png(&folder.join("pictures/pca.png")),
            broken: read_broken(folder),
        })
    }

    /// Returns a sentence for each file that is in `folder` but cannot be used.
    pub(crate) fn damage(&self, folder: &Path) -> Vec<String> {
        let unread = match (&self.config_text, &self.config) {
            (Ok(_), None) => Some("config.resolved.yaml cannot be read by this version".to_owned()),
            _ => None,
        };
        let files = [
            ("metrics.jsonl", self.records.as_ref().err()),
            ("config.resolved.yaml", self.config_text.as_ref().err().or(unread.as_ref())),
            ("env.json", self.environment.as_ref().err()),
            ("results.json", self.results.as_ref().err()),
            ("pictures/crops.png", self.crops.as_ref().err()),
            ("pictures/pca.png", self.pca.as_ref().err()),
        ];
        let files = files.into_iter().filter(|(file, _)| folder.join(file).exists());
        files.filter_map(|(_, why)| Some(format!("{}: {}", folder.display(), why?))).collect()
    }

    /// Returns the records; empty if they are missing.
    pub(crate) fn records(&self) -> &[Record] {
        self.records.as_deref().unwrap_or_default()
    }

    /// Returns the latest finite value of the metric `name`.
    pub(crate) fn last(&self, name: &str) -> Option<f64> {
        let values = self.records().iter().rev().filter_map(|record| record.get(name));
        values.into_iter().find(|value| value.is_finite())
    }
}

/// Returns the name of a folder, even if the path is `.`.
pub(crate) fn name_of(folder: &Path) -> String {
    let absolute: PathBuf = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    absolute.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default()
}

fn because(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let name = file_name(path);
    move |error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no {name}"),
        _ => format!("{name} cannot be read: {error}"),
    }
}

fn read_text(path: &Path) -> Piece<String> {
    fs::read_to_string(path).map_err(because(path))
}

fn read_records(path: &Path) -> Piece<Vec<Record>> {
    fs::metadata(path).map_err(because(path))?;
    let records = read_jsonl(path).map_err(|error| error.to_string())?;
    if records.is_empty() {
        let name = file_name(path);
        return Err(match read_text(path)?.contains('\n') {
            true => format!("{name} is damaged: none of its lines holds metrics"),
            false => format!("{name} has no complete line yet"),
        });
    }
    Ok(records)
}

fn read_json(path: &Path) -> Piece<Value> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| format!("{} is damaged: {error}", file_name(path)))
}

fn read_png(path: &Path) -> Piece<Vec<u8>> {
    let size = fs::metadata(path).map_err(because(path))?.len();
    if size > MAX_PICTURE_BYTES {
        return Err(format!("{} is too large for a page ({size} bytes)", file_name(path)));
    }
    let bytes = fs::read(path).map_err(because(path))?;
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(format!("{} is not a PNG", file_name(path)));
    }
    Ok(bytes)
}

/// Reads the lists of broken images of all processes, the first process first, and drops the
/// headings. A file that several processes list is returned once. A list that is missing or
/// unreadable counts as empty.
fn read_broken(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut lists: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| Some((rank_of(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    lists.sort();
    let mut named = HashSet::new();
    let mut broken = Vec::new();
    for (_, path) in lists {
        let text = fs::read_to_string(path).unwrap_or_default();
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        for (file, reason) in rows.filter(|row| *row != ("file", "reason")) {
            if named.insert(file.to_owned()) {
                broken.push((file.to_owned(), reason.to_owned()));
            }
        }
    }
    broken
}

/// Returns the rank of the process whose list of broken images has this file name; `None` if it is
/// another file.
fn rank_of(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("bad_images.")?;
    if rest == "tsv" { Some(0) } else { rest.strip_suffix(".tsv")?.parse().ok() }
}
