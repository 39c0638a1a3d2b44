//! Builds the commands of a row from the given data and weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::row::{How, Measure, Row};

/// A dataset that rows need.
#[derive(Debug, Clone, Copy)]
pub struct DataSet {
    pub key: &'static str,
    /// The expected files and folders, in words.
    pub layout: &'static str,
    /// Placeholder in commands for a folder that is not given.
    pub word: &'static str,
}

/// All datasets.
pub const DATA: [DataSet; 4] = [
    DataSet {
        key: "imagenet",
        layout: "ImageNet-1k: train/ and val/ with a folder per class",
        word: "IMAGENET",
    },
    DataSet {
        key: "coco",
        layout: "COCO: train2017/, val2017/, and annotations/instances_val2017.json",
        word: "COCO",
    },
    DataSet {
        key: "ade20k",
        layout: "ADE20K: images/ and annotations/ with training/ and validation/",
        word: "ADE20K",
    },
    DataSet {
        key: "davis",
        layout: "DAVIS 2017: JPEGImages/480p/, Annotations/480p/, and ImageSets/2017/val.txt",
        word: "DAVIS",
    },
];

/// Folders of data by key.
pub type Folders = BTreeMap<&'static str, PathBuf>;

/// Returns the keys of the datasets that a template names but that are not given.
fn missing_of<'a>(words: impl Iterator<Item = &'a str>, folders: &Folders) -> Vec<&'static str> {
    let words: Vec<&str> = words.collect();
    let named =
        |set: &&DataSet| words.iter().any(|word| word.contains(&format!("{{{}}}", set.key)));
    DATA.iter().filter(named).map(|set| set.key).filter(|key| !folders.contains_key(key)).collect()
}

/// Replaces the keys of datasets in a template with their folders, or with placeholders.
fn filled(word: &str, folders: &Folders) -> String {
    DATA.iter().fold(word.to_owned(), |word, set| {
        let folder = folders.get(set.key).map(|folder| folder.display().to_string());
        let folder = folder.unwrap_or_else(|| set.word.to_owned());
        word.replace(&format!("{{{}}}", set.key), &folder)
    })
}

impl Measure {
    /// Returns the keys of the datasets that the measure needs but that are not given.
    pub fn missing(&self, folders: &Folders) -> Vec<&'static str> {
        match self.how {
            How::Eval(template) => missing_of(template.iter().copied(), folders),
            How::Curve => Vec::new(),
        }
    }

    /// Returns the command, without `simdino` and without the options for the output; `None` for a
    /// curve, which needs no command.
    pub fn command(&self, weights: &str, folders: &Folders) -> Option<Vec<String>> {
        let How::Eval(template) = self.how else { return None };
        let words =
            template.iter().map(|word| filled(&word.replace("{weights}", weights), folders));
        Some(std::iter::once("eval".to_owned()).chain(words).collect())
    }
}

impl Row {
    /// Returns the name of the recipe that trains the network, if there is one.
    pub fn recipe(&self) -> Option<&'static str> {
        self.network.filter(|name| simdino::recipes::text(name).is_some())
    }

    /// Returns the overrides that the recipe is trained with, as `key=value`.
    pub fn training_values(&self, folders: &Folders) -> Vec<String> {
        let images = match self.recipe() {
            Some(name) if name.ends_with("_coco") => "{coco}/train2017",
            _ => "{imagenet}/train",
        };
        let path = format!("data.path={images}");
        let values = std::iter::once(path.as_str()).chain(self.overrides.iter().copied());
        values.map(|value| filled(value, folders)).collect()
    }

    /// Returns the command, without `simdino`, that trains the network; `None` without a recipe.
    pub fn training(&self, folders: &Folders) -> Option<Vec<String>> {
        let mut words = vec!["train".to_owned(), self.recipe()?.to_owned()];
        words.extend(self.training_values(folders));
        words.extend(["--resume", "auto"].map(str::to_owned));
        Some(words)
    }

    /// Returns all commands, without `simdino`, in order. They include the training if no `weights`
    /// are given.
    pub fn commands_of(&self, weights: Option<&str>, folders: &Folders) -> Vec<Vec<String>> {
        let mut commands: Vec<Vec<String>> = Vec::new();
        if weights.is_none() {
            commands.extend(self.training(folders));
        }
        let run = self.recipe().map(|name| format!("runs/{name}"));
        let weights = weights.map(str::to_owned).or(run).unwrap_or_else(|| "W".to_owned());
        if self.network.is_some() {
            commands.extend(self.measures.iter().filter_map(|m| m.command(&weights, folders)));
        }
        let more = self.commands.iter();
        commands.extend(more.map(|words| words.iter().map(|word| (*word).to_owned()).collect()));
        commands
    }
}
