//! `simdino reproduce`: lists the numbers of the paper and the commands that measure them, runs
//! these commands, and compares our results with the paper.

mod kept;
mod measure;
mod networks;
mod page;
mod paper;
mod plan;
mod row;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use eval::FeaturePrecision;
use serde_json::json;
use trainer::files::write_atomic;

use crate::console::{answer, note};
use crate::failure::{Context, Failure, Result};

use self::measure::Task;
use self::networks::AllGiven;
use self::page::{Here, Line};
use self::plan::{DATA, Folders};
use self::row::{Measure, Row};

/// Arguments of `simdino reproduce`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rows: a name such as table1/simdino_vitb16, or all of a table or figure, such as table1; may
    /// be repeated
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Only these measures of the rows, such as knn
    #[arg(long = "measure", value_name = "NAME", value_delimiter = ',')]
    measures: Vec<String>,
    /// Images: imagenet, coco, ade20k, or davis, and the folder; may be repeated
    #[arg(long, value_name = "KEY=FOLDER")]
    data: Vec<String>,
    /// A folder with the authors' checkpoints, which are recognized by their names
    #[arg(long, value_name = "FOLDER")]
    released: Option<PathBuf>,
    /// Weights, or a run, of a network of the paper; the name is not needed if the rows are about
    /// one network
    #[arg(long, value_name = "[NETWORK=]PATH")]
    weights: Vec<String>,
    /// Folder for the table, reproduce.md, and results
    #[arg(long, value_name = "FOLDER", default_value = "reproduced")]
    out: PathBuf,
    /// Measure again what has been measured already
    #[arg(long)]
    again: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long)]
    device: Option<String>,
    /// Precision of the networks, fp32 or bf16; fp32 also on a GPU, to come closest to the paper
    #[arg(long, default_value_t = FeaturePrecision::Fp32)]
    precision: FeaturePrecision,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a name is unknown or something could not be measured.
pub fn run(args: &Args) -> Result<()> {
    let rows = chosen(args)?;
    let folders = folders(&args.data)?;
    let mut given = match &args.released {
        Some(folder) => networks::released(folder)?,
        None => AllGiven::new(),
    };
    networks::typed(&args.weights, &rows, &mut given)?;
    let wanted = |measure: &Measure| {
        args.measures.is_empty() || args.measures.iter().any(|name| name == measure.name)
    };
    if given.is_empty() {
        return describe(args, &rows, &wanted, &folders);
    }
    for (network, weights) in &given {
        note(&format!("{network}: {}", weights.path.display()));
    }
    let mut options = vec!["--precision".to_owned(), args.precision.to_string()];
    if let Some(device) = &args.device {
        options.extend(["--device".to_owned(), device.clone()]);
    }
    let task =
        Task { folders: &folders, given: &given, out: &args.out, options, again: args.again };
    let tables = measure::all(&rows, &wanted, &task)?;
    let path = measure::page(&args.out);
    write_atomic(&path, page::markdown(&tables.all).as_bytes())
        .context(|| format!("{}: cannot write the table", path.display()))?;
    print(args, &tables.here)?;
    match tables.complete {
        true => Ok(()),
        false => {
            Err(Failure::failed("some rows could not be measured; the table gives the reasons"))
        }
    }
}

fn print(args: &Args, lines: &[Line]) -> Result<()> {
    if args.json {
        return answer(&format!("{}\n", json!({ "lines": lines })));
    }
    answer(&page::markdown(lines))
}

/// Returns the requested rows; all if none are named.
fn chosen(args: &Args) -> Result<Vec<Row>> {
    let mut rows = paper::rows();
    for name in &args.rows {
        if !rows.iter().any(|row| row.is(name)) {
            let mut groups: Vec<&str> =
                rows.iter().filter_map(|row| row.name.split('/').next()).collect();
            groups.dedup();
            return Err(Failure::usage(format!(
                "--row {name}: no such row or group; `simdino reproduce` lists the rows, and the \
                 groups are {}",
                groups.join(", ")
            )));
        }
    }
    for name in &args.measures {
        let measures = rows.iter().flat_map(|row| &row.measures).map(|measure| measure.name);
        let known: BTreeSet<&str> = measures.collect();
        if !known.contains(name.as_str()) {
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!(
                "--measure {name}: unknown measure; the measures are {known}"
            )));
        }
    }
    rows.retain(|row| args.rows.is_empty() || args.rows.iter().any(|name| row.is(name)));
    Ok(rows)
}

fn folders(data: &[String]) -> Result<Folders> {
    let mut folders = Folders::new();
    for text in data {
        let known = text.split_once('=').and_then(|(key, folder)| {
            Some((DATA.iter().find(|set| set.key == key)?, PathBuf::from(folder)))
        });
        let Some((set, folder)) = known else {
            let layouts: Vec<String> =
                DATA.iter().map(|set| format!("{}=FOLDER ({})", set.key, set.layout)).collect();
            let layouts = layouts.join("; ");
            return Err(Failure::usage(format!("--data {text}: expected one of {layouts}")));
        };
        if !folder.is_dir() {
            return Err(Failure::failed(format!("{}: no such folder", folder.display())));
        }
        folders.insert(set.key, folder);
    }
    Ok(folders)
}

/// Prints rows without measuring: a list of all rows, or the commands of the requested ones.
fn describe(
    args: &Args,
    rows: &[Row],
    wanted: &dyn Fn(&Measure) -> bool,
    folders: &Folders,
) -> Result<()> {
    let none = Here { but: Some("no weights".to_owned()), ..Here::default() };
    let measures =
        |row: &'_ Row| row.measures.iter().filter(|m| wanted(m)).cloned().collect::<Vec<_>>();
    let of = |row: &Row| -> Vec<Line> {
        measures(row).iter().flat_map(|m| page::lines(row, m, &none).collect::<Vec<_>>()).collect()
    };
    let commands = |row: &Row| -> Vec<String> {
        row.commands_of(None, folders).iter().map(|words| crate::shell::typed(words)).collect()
    };
    if args.json {
        let object = |row: &Row| {
            json!({
                "row": row.name, "shows": row.shows, "network": row.network, "note": row.note,
                "commands": commands(row), "lines": of(row),
            })
        };
        let rows: Vec<_> = rows.iter().map(object).collect();
        return answer(&format!("{}\n", json!({ "rows": rows })));
    }
    if args.rows.is_empty() {
        let after = "\n--row NAME prints the commands of a row; add --weights or --released, and \
             --data, to run them.\n";
        return answer(&(page::list(rows) + after));
    }
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{}: {}", row.name, row.shows);
        if !row.note.is_empty() {
            let _ = writeln!(text, "  {}", row.note);
        }
        if let (Some(network), None) = (row.network, row.recipe()) {
            let _ = writeln!(text, "  There is no recipe for {network}; W stands for its weights.");
        }
        for command in commands(row) {
            let _ = writeln!(text, "  {command}");
        }
        text.push('\n');
    }
    let lines: Vec<Line> = rows.iter().flat_map(of).collect();
    if !lines.is_empty() {
        text += &page::markdown(&lines);
    }
    answer(&text)
}
