//! `simdino config`: shows and checks configs, lists the recipes, and explains the keys.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};
use simdino::config::problems;
use simdino::config::schema::{self, Key};
use simdino::recipes;

use crate::config::{self, RunConfig};
use crate::console::{answer, note};
use crate::failure::{Failure, Result};

/// Arguments of `simdino config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the config with every default and override filled in
    Show {
        #[command(flatten)]
        source: Source,
        /// One JSON object instead of YAML
        #[arg(long)]
        json: bool,
    },
    /// Print all problems, or `ok` and the values that follow from the config
    Check(Source),
    /// List the embedded recipes, or print one as a starting point
    Recipes {
        /// Recipe to print, as YAML
        name: Option<String>,
    },
    /// Explain the keys of a config: what each takes, its default, and whether it may change when a
    /// run is resumed
    Keys {
        /// Section or key, such as train or train.epochs; all if none is given
        path: Option<String>,
    },
    /// Print the JSON schema of a config, which editors use to complete and check keys
    Schema,
}

/// A config file and its overrides.
#[derive(Debug, clap::Args)]
struct Source {
    /// Config file (YAML), or the name of a recipe (`simdino config recipes`)
    config: PathBuf,
    /// Values that win over the file, such as train.epochs=10
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Returns all problems of the config, or an error about an unknown recipe or key.
pub fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::Show { source, json } => show(source, *json),
        Action::Check(source) => check(source),
        Action::Recipes { name: Some(name) } => print_recipe(name),
        Action::Recipes { name: None } => list_recipes(),
        Action::Keys { path } => explain(path.as_deref()),
        Action::Schema => answer(&config::json_schema()),
    }
}

/// Prints the resolved config. Invalid values are only noted, because seeing them helps to find the
/// mistake.
fn show(source: &Source, json: bool) -> Result<()> {
    let loaded = config::load_unchecked(&source.config, &source.overrides)?;
    let problems = loaded.config.validate();
    loaded.notes.iter().for_each(|text| note(text));
    problems.iter().for_each(|text| note(&format!("warning: {text}")));
    if json {
        return answer(&format!("{}\n", serde_json::to_string(&loaded.config)?));
    }
    answer(&config::to_yaml(&loaded.config)?)
}

fn check(source: &Source) -> Result<()> {
    let loaded = config::load_unchecked(&source.config, &source.overrides)?;
    loaded.notes.iter().for_each(|text| note(text));
    for warning in &loaded.warnings {
        note(&format!("warning: {warning}"));
    }
    let problems = loaded.config.validate();
    if !problems.is_empty() {
        return Err(Failure::problems(problems));
    }
    let lines = derived(&loaded.config).into_iter();
    let lines: String = lines.map(|(name, value)| format!("  {name:<22}{value}\n")).collect();
    answer(&format!("ok\n{lines}"))
}

fn print_recipe(name: &str) -> Result<()> {
    match recipes::text(name) {
        Some(text) => answer(text),
        None => Err(Failure::usage(config::no_recipe(name))),
    }
}

fn list_recipes() -> Result<()> {
    let width = recipes::names().map(str::len).max().unwrap_or_default();
    let lines = recipes::names().filter_map(|name| {
        let summary = recipes::summary(recipes::text(name)?);
        Some(format!("{name:<width$}  {summary}\n"))
    });
    answer(&lines.collect::<String>())
}

/// Explains the keys at and below a dotted path.
fn explain(path: Option<&str>) -> Result<()> {
    let root = schema::of::<RunConfig>().map_err(simdino::Error::from)?;
    let below = |key: &str| match path {
        Some(path) => {
            key.strip_prefix(path).is_some_and(|rest| matches!(rest.get(..1), None | Some(".")))
        }
        None => true,
    };
    let keys = schema::leaves(&root).into_iter().filter(|(key, _)| below(key));
    let text: String = keys.map(|(path, key)| explained(&path, key)).collect();
    match path {
        Some(path) if text.is_empty() => {
            let document = path.rsplit('.').fold(Value::Null, |value, key| json!({ key: value }));
            Err(Failure::problems(problems::find(&root, &document)))
        }
        _ => answer(&text),
    }
}

fn explained(path: &str, key: &Key) -> String {
    let resume = if key.may_change_on_resume { "; may change on resume" } else { "" };
    let takes = problems::expectation(&key.kind);
    let mut text =
        format!("{path}\n  takes {takes}; default {}{resume}\n  {}\n", key.default, key.doc);
    for word in schema::words(&key.kind).iter().filter(|word| !word.doc.is_empty()) {
        text.push_str(&format!("    {}: {}\n", word.word, word.doc));
    }
    text
}

/// Returns numbers that follow from the config alone, with their names.
fn derived(config: &RunConfig) -> Vec<(&'static str, String)> {
    let (train, augment) = (&config.train, &config.augment);
    let tokens = |size: u32| {
        let side = i64::from(size) / config.model.patch_size;
        format!("{}", side * side + 1)
    };
    let mut derived = vec![
        ("learning rate", format!("{:.6} after warm-up", config.learning_rate())),
        ("images per pass", format!("{}", train.batch_size / train.accumulate)),
        ("crops per image", format!("{}", 2 + augment.local_crops_number)),
        ("global crop tokens", tokens(augment.global_crops_size)),
    ];
    if augment.local_crops_number > 0 {
        derived.push(("local crop tokens", tokens(augment.local_crops_size)));
    }
    let width = config.head.out_dim;
    for (key, groups) in config.groups() {
        let rows = train.batch_size / groups;
        derived.push(match key {
            _ if key.starts_with("simdino.") => {
                ("coding rate", format!("{rows} images x {width} dimensions per group"))
            }
            _ => ("KoLeo", format!("{rows} images per group")),
        });
    }
    if config.head.prototypes > 0 {
        derived.push(("prototypes", format!("{} of {width} dimensions", config.head.prototypes)));
    }
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_numbers_of_the_defaults() {
        let derived = derived(&RunConfig::default());
        let find = |name: &str| &derived.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(find("learning rate"), "0.001000 after warm-up");
        assert_eq!(find("global crop tokens"), "197");
        assert_eq!(find("local crop tokens"), "37");
        assert_eq!(find("coding rate"), "64 images x 256 dimensions per group");
    }
}
