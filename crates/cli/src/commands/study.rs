//! `simdino study`: executes a grid of runs, and collects the outcomes in one table and on one
//! page.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::counted;
use data::DataConfig;
use report::study::Row;

use crate::config;
use crate::console::{answer, note};
use crate::failure::{Context, Failure, Result};
use crate::study::grid::Grid;
use crate::study::runs::{self, Options};
use crate::study::tables;
use crate::train::signals::StopFlag;

/// Arguments of `simdino study`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File that describes the grid (docs/STUDIES.md)
    grid: PathBuf,
    /// Folder of the study [default: runs/NAME of the file]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Number of concurrent runs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// Stop after this many seconds; the same command continues later
    #[arg(long, value_name = "SECONDS")]
    budget: Option<u32>,
    /// Execute only the first N runs
    #[arg(long, value_name = "N")]
    first: Option<NonZeroUsize>,
    /// Print and check all runs and their settings, without executing any
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the grid or one of its settings is invalid, the folder cannot be written, a
/// signal stops the study, or every run fails. A single failed run is only a row of the table.
pub fn run(args: &Args) -> Result<()> {
    let shown = args.grid.display().to_string();
    let text = fs::read_to_string(&args.grid)
        .map_err(|error| Failure::usage(format!("{shown}: cannot read the grid file: {error}")))?;
    let document =
        config::read_yaml(&text).map_err(|what| Failure::usage(format!("{shown}: {what}")))?;
    let grid = Grid::read(&document, &shown)?;
    let first = args.first.map_or(grid.runs.len(), NonZeroUsize::get).min(grid.runs.len());
    let name = args.grid.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let out = folder(args, &name)?;
    if args.dry_run {
        return list(&grid, &out, first);
    }
    check_first(&grid)?;
    fs::create_dir_all(&out).context(|| format!("cannot create {}", out.display()))?;
    let until = args.budget.map(|s| Instant::now() + Duration::from_secs(s.into()));
    let options = Options {
        out: out.clone(),
        jobs: args.jobs.into(),
        first,
        until,
        stop: StopFlag::listen()?,
    };
    let some =
        if first < grid.runs.len() { format!("the first {first} of ") } else { String::new() };
    let runs = counted(grid.runs.len(), "run", "runs");
    note(&format!("study {name}: {some}{runs} in {}", out.display()));
    let mut trouble = None;
    let runs::Made { rows, end } = runs::make(&grid, &options, &mut |rows, at| {
        note(&sentence(rows, at));
        if let Err(failure) = tables::write(&out, &name, &grid, rows) {
            trouble = Some(failure);
        }
    })?;
    let tables = tables::write(&out, &name, &grid, &rows);
    end.and(trouble.map_or(Ok(()), Err)).and(tables)?;
    note(&summary(&rows));
    answer(&format!("{}\n", out.join("study.html").display()))?;
    match options.stop.is_set() {
        true => Err(Failure::stopped(format!(
            "stopped by a signal; run the same command again to continue the study ({})",
            out.display()
        ))),
        false if rows[..first].iter().all(|row| row.status == "failed") => {
            Err(Failure::failed(format!(
                "every run failed; {} gives the reasons, and the same command tries them again",
                out.join("study.csv").display()
            )))
        }
        false => Ok(()),
    }
}

/// Returns the folder of the study, which must not be that of a training run.
fn folder(args: &Args, name: &str) -> Result<PathBuf> {
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    match out.join("config.resolved.yaml").exists() {
        false => Ok(out),
        true => Err(Failure::usage(format!(
            "{} holds a training run: choose another folder with --out",
            out.display()
        ))),
    }
}

/// Checks the first run, because a mistake in the base or in shared settings would make all fail.
fn check_first(grid: &Grid) -> Result<()> {
    match grid.runs.first() {
        Some(run) => config::load(&grid.base, &run.overrides).map(|_| ()),
        None => Ok(()),
    }
}

/// Prints the first runs with their settings and what is wrong with them.
///
/// # Errors
/// Returns an error if any is invalid, or was trained with other settings.
fn list(grid: &Grid, out: &Path, first: usize) -> Result<()> {
    let (mut text, mut opened, mut invalid) = (String::new(), Vec::new(), 0);
    for run in &grid.runs[..first] {
        let problems = match config::load(&grid.base, &run.overrides) {
            Ok(loaded) => problem_of_images(&loaded.config.data, &mut opened),
            Err(failure) => Some(failure.lines().join("; ")),
        };
        invalid += usize::from(problems.is_some());
        let problems = problems.map(|text| format!("  invalid: {text}")).unwrap_or_default();
        text += &format!("{}  {}{problems}\n", run.name, run.overrides.join(" "));
    }
    answer(&text)?;
    if invalid > 0 {
        return Err(Failure::usage(format!("invalid runs: {invalid} of {first}")));
    }
    runs::check_finished(grid, out)
}

/// Returns why images cannot be opened; `None` if they can. `opened` has the findings about images
/// that were opened before.
fn problem_of_images(
    config: &DataConfig,
    opened: &mut Vec<(DataConfig, Option<String>)>,
) -> Option<String> {
    if let Some((_, problem)) = opened.iter().find(|(other, _)| other == config) {
        return problem.clone();
    }
    let problem = data::open(config).err().map(|error| base::error_chain(&error));
    opened.push((config.clone(), problem.clone()));
    problem
}

fn sentence(rows: &[Row], at: usize) -> String {
    let row = &rows[at];
    let ended = rows.iter().filter(|row| row.ended()).count();
    let percent = |x: Option<f64>| x.map_or("-".into(), |x| report::percent(x, 1));
    let what = match (row.status.as_str(), row.collapsed) {
        ("done", Some(true)) => format!("k-NN {}, collapsed", percent(row.knn)),
        ("done", _) => format!("k-NN {}", percent(row.knn)),
        _ => format!("{}: {}", row.status, row.message),
    };
    let seconds = row.seconds.map(|s| format!(" in {s:.1} s")).unwrap_or_default();
    format!("[{ended}/{}] {}: {what}{seconds}", rows.len(), row.run)
}

fn summary(rows: &[Row]) -> String {
    let count = |status: &str| rows.iter().filter(|row| row.status == status).count();
    let collapsed = rows.iter().filter(|row| row.collapsed == Some(true)).count();
    format!(
        "runs done: {}, {collapsed} of them collapsed; failed: {}, unfinished: {}, not started: {}",
        count("done"),
        count("failed"),
        count("unfinished"),
        count("not started")
    )
}
