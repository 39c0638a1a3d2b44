//! The grid of a study: its runs and their order.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::failure::{self, Failure};

/// Keys of a grid file.
const KEYS: [&str; 6] = ["base", "settings", "methods", "rows", "axes", "seeds"];
/// Maximum number of runs; a larger grid is more likely a mistake.
const MOST_RUNS: usize = 10_000;

/// A study as its file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Config file or recipe that all runs share.
    pub base: PathBuf,
    /// Keys of all axes. `rows` comes first if there are named rows.
    pub axes: Vec<String>,
    /// The runs, in the order in which they are started.
    pub runs: Vec<RunSpec>,
}

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSpec {
    /// Name of its folder, unique in the study.
    pub name: String,
    /// Name of its method.
    pub method: String,
    /// Key of each axis that applies to the run, and the value as text.
    pub cell: Vec<(String, String)>,
    /// Seed of the run.
    pub seed: u64,
    /// Overrides of the base config, as `key=value`.
    pub overrides: Vec<String>,
}

/// A value on an axis: its name, and the settings that it implies.
#[derive(Debug, Clone)]
struct Choice {
    axis: String,
    name: String,
    settings: Vec<String>,
}

impl Grid {
    /// Reads a grid from the parsed document of its file; `shown` is the name of the file in
    /// messages.
    ///
    /// # Errors
    /// Returns a sentence that names the invalid key and says what its value must be.
    pub fn read(document: &Value, shown: &str) -> failure::Result<Self> {
        let wrong = |what: String| Failure::usage(format!("{shown}: {what}"));
        let Value::Object(keys) = document else {
            return Err(wrong(format!("expected the keys {}", KEYS.join(", "))));
        };
        if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(wrong(format!(
                "{key}: unknown key; the keys of a grid are {}",
                KEYS.join(", ")
            )));
        }
        let Some(base) = keys.get("base").and_then(Value::as_str) else {
            return Err(wrong("base: must name a config file or a recipe".into()));
        };
        let shared = settings(keys.get("settings"), "settings").map_err(wrong)?;
        let methods = named(keys.get("methods"), "methods").map_err(wrong)?;
        let rows = named(keys.get("rows"), "rows").map_err(wrong)?;
        let seeds = keys.get("seeds").map_or(Ok(vec![0]), seeds).map_err(wrong)?;
        let (axes, mut blocks) = blocks(keys.get("axes")).map_err(wrong)?;
        if !rows.is_empty() {
            blocks.iter_mut().for_each(|block| block.insert(0, rows.clone()));
        }
        let axes: Vec<String> =
            (!rows.is_empty()).then(|| "rows".to_owned()).into_iter().chain(axes).collect();
        let mut runs: Vec<RunSpec> = Vec::new();
        let methods = if methods.is_empty() { vec![base_alone()] } else { methods };
        let parts = parts(keys.get("axes"), &methods, &seeds).map_err(wrong)?;
        for (block, (methods, seeds)) in blocks.iter().zip(parts) {
            let size = block.iter().map(Vec::len).fold(1, usize::saturating_mul);
            let made = size.saturating_mul(methods.len()).saturating_mul(seeds.len());
            if made > MOST_RUNS {
                return Err(wrong(format!("axes: the grid has more than {MOST_RUNS} runs")));
            }
            let cells = scattered(size).map(|at| cell(block, at));
            let cells: Vec<Vec<Choice>> = cells.collect();
            for seed in seeds {
                for cell in &cells {
                    let of = |method: &Choice| run(&shared, method, cell, seed);
                    runs.extend(methods.iter().map(of));
                }
            }
        }
        Ok(Self { base: base.into(), axes, runs: without_repetitions(runs).map_err(wrong)? })
    }
}

/// Removes repeated runs, which occur if grids overlap.
///
/// # Errors
/// Returns an error if two runs have the same name but different settings: they would share a
/// folder, and only one of them would run.
fn without_repetitions(runs: Vec<RunSpec>) -> Result<Vec<RunSpec>, String> {
    let mut known: HashMap<String, Vec<String>> = HashMap::new();
    let mut kept = Vec::with_capacity(runs.len());
    for run in runs {
        let mut settings = run.overrides.clone();
        settings.sort();
        match known.get(&run.name) {
            Some(before) if *before == settings => {}
            Some(_) => {
                let name = &run.name;
                return Err(format!(
                    "two runs with different settings would be named '{name}': give the values \
                     different names"
                ));
            }
            None => {
                known.insert(run.name.clone(), settings);
                kept.push(run);
            }
        }
    }
    Ok(kept)
}

fn base_alone() -> Choice {
    Choice { axis: "methods".into(), name: "base".into(), settings: Vec::new() }
}

/// Returns the order in which the cells of a block are visited. Each step advances by about 0.618
/// (the golden ratio) of the number of cells, so that the runs of a study that is cut short are
/// spread over the whole block. The step is coprime to `size`, so every cell is visited once.
fn scattered(size: usize) -> impl Iterator<Item = usize> {
    let divisor = |a: usize, b: usize| {
        let (mut a, mut b) = (a, b);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let near = (size as f64 * 0.618).round() as usize;
    let stride = (near.max(1)..=size.max(1)).find(|&s| divisor(s, size) == 1).unwrap_or(1);
    (0..size).map(move |i| i * stride % size)
}

/// Returns the choices of the cell with index `at`, where the last axis varies fastest.
fn cell(block: &[Vec<Choice>], at: usize) -> Vec<Choice> {
    let mut rest = at;
    let mut choices: Vec<Choice> = Vec::new();
    for axis in block.iter().rev() {
        choices.push(axis[rest % axis.len()].clone());
        rest /= axis.len();
    }
    choices.reverse();
    choices
}

fn run(shared: &[String], method: &Choice, cell: &[Choice], seed: u64) -> RunSpec {
    let words = cell.iter().map(|choice| match choice.axis.rsplit('.').next() {
        Some("rows") | None => choice.name.clone(),
        Some(key) => format!("{key}={}", choice.name),
    });
    let words: Vec<String> = std::iter::once(method.name.clone())
        .chain(words)
        .chain([format!("seed={seed}")])
        .map(|word| word.replace(|c: char| !c.is_alphanumeric() && !"=.-_".contains(c), "_"))
        .collect();
    let settings = cell.iter().flat_map(|choice| &choice.settings);
    let overrides = shared.iter().chain(&method.settings).chain(settings).cloned();
    RunSpec {
        name: words.join("_"),
        method: method.name.clone(),
        cell: cell.iter().map(|choice| (choice.axis.clone(), choice.name.clone())).collect(),
        seed,
        overrides: overrides.chain([format!("run.seed={seed}")]).collect(),
    }
}

/// Converts a mapping `{key: value}` to `key=value` settings.
fn settings(value: Option<&Value>, what: &str) -> Result<Vec<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => Ok(map.iter().map(setting).collect()),
        Some(_) => Err(format!("{what}: must be key: value pairs such as train.epochs: 2")),
    }
}

fn setting((key, value): (&String, &Value)) -> String {
    format!("{key}={}", text(value))
}

/// Formats a value as on the command line.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Reads named settings, `{name: {key: value, ..}}`.
fn named(value: Option<&Value>, axis: &str) -> Result<Vec<Choice>, String> {
    let map = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) if map.is_empty() => {
            return Err(format!("{axis}: names nothing; give it a value or leave it out"));
        }
        Some(Value::Object(map)) => map,
        Some(_) => return Err(format!("{axis}: must be names with key: value pairs below them")),
    };
    let choice = |(name, value): (&String, &Value)| {
        let settings = settings(Some(value), &format!("{axis}.{name}"))?;
        Ok(Choice { axis: axis.to_owned(), name: name.clone(), settings })
    };
    map.iter().map(choice).collect()
}

/// Reads a list of seeds.
fn seeds(value: &Value) -> Result<Vec<u64>, String> {
    let wrong = || "seeds: must be a list of non-negative integers such as [0, 1, 2]".to_owned();
    let seeds = value.as_array().filter(|seeds| !seeds.is_empty()).ok_or_else(wrong)?;
    seeds.iter().map(|seed| seed.as_u64().ok_or_else(wrong)).collect()
}

/// The methods and the seeds of a block.
type Part = (Vec<Choice>, Vec<u64>);

/// Returns the methods and the seeds of each block: those in its lists `methods` and `seeds`, or
/// all methods of the grid and the grid's seeds.
fn parts(axes: Option<&Value>, methods: &[Choice], shared: &[u64]) -> Result<Vec<Part>, String> {
    let blocks: Vec<&Value> = match axes {
        Some(Value::Array(blocks)) => blocks.iter().collect(),
        axes => vec![axes.unwrap_or(&Value::Null)],
    };
    let of = |block: &&Value| {
        let methods = match block.get("methods") {
            Some(names) => chosen(names, methods)?,
            None => methods.to_vec(),
        };
        let seeds = match block.get("seeds") {
            Some(own) => seeds(own).map_err(|error| format!("axes.{error}"))?,
            None => shared.to_vec(),
        };
        Ok((methods, seeds))
    };
    blocks.iter().map(of).collect()
}

/// Returns the methods with these names.
fn chosen(names: &Value, methods: &[Choice]) -> Result<Vec<Choice>, String> {
    let wrong = || "axes.methods: must be a list of names such as [held, dino]".to_owned();
    let find = |name: &Value| {
        let name = name.as_str().ok_or_else(wrong)?;
        let found = methods.iter().find(|method| method.name == name).cloned();
        found.ok_or_else(|| format!("axes.methods: '{name}' is not defined in methods"))
    };
    names.as_array().ok_or_else(wrong)?.iter().map(find).collect()
}

type Blocks = Vec<Vec<Vec<Choice>>>;

/// Reads the axes: a single grid, or a list of grids that are run one after another. Returns the
/// keys of all axes, and the choices on each axis of each block.
fn blocks(value: Option<&Value>) -> Result<(Vec<String>, Blocks), String> {
    let wrong = || "axes: must be key: [values] pairs, or a list of such grids".to_owned();
    let maps: Vec<&Map<String, Value>> = match value {
        None | Some(Value::Null) => return Ok((Vec::new(), vec![Vec::new()])),
        Some(Value::Object(map)) => vec![map],
        Some(Value::Array(list)) if !list.is_empty() => list
            .iter()
            .map(|block| block.as_object().ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    let mut keys: Vec<String> = Vec::new();
    let mut blocks = Blocks::new();
    for map in maps {
        let axes = || map.iter().filter(|(key, _)| !["methods", "seeds"].contains(&key.as_str()));
        blocks.push(axes().map(axis).collect::<Result<_, _>>()?);
        for (key, _) in axes() {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
    Ok((keys, blocks))
}

/// Reads the values of an axis. A value may be `{name: {key: value, ..}}` to set other keys as
/// well.
fn axis((key, values): (&String, &Value)) -> Result<Vec<Choice>, String> {
    let wrong = || format!("axes.{key}: must be a list of values such as [16, 64]");
    let values = values.as_array().filter(|values| !values.is_empty()).ok_or_else(wrong)?;
    let mut choices = Vec::new();
    for value in values {
        match value {
            Value::Object(map) => {
                for mut choice in named(Some(&Value::Object(map.clone())), key)? {
                    choice.settings.insert(0, format!("{key}={}", choice.name));
                    choices.push(choice);
                }
            }
            value => choices.push(Choice {
                axis: key.clone(),
                name: text(value),
                settings: vec![setting((key, value))],
            }),
        }
    }
    Ok(choices)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_block_may_have_its_own_methods_and_seeds() {
        let document = json!({
            "base": "demo",
            "methods": { "held": {}, "dino": { "method": "dino" } },
            "axes": [
                { "train.epochs": [1], "seeds": [7] },
                { "train.epochs": [2], "methods": ["dino"] },
            ],
            "seeds": [0, 1],
        });
        let grid = Grid::read(&document, "grid.yaml").unwrap();
        let names: Vec<&str> = grid.runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "dino_epochs=1_seed=7",
                "held_epochs=1_seed=7",
                "dino_epochs=2_seed=0",
                "dino_epochs=2_seed=1",
            ]
        );
        assert_eq!(grid.axes, ["train.epochs"]);
    }
}
