//! Executes the runs of a study, each in its own process and several at a time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use report::study::Row;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trainer::files::{write_atomic, write_json};

use super::grid::{Grid, RunSpec};
use super::outcome::{self, DONE};
use crate::config;
use crate::failure::{Context, Failure, Result, STOPPED};
use crate::train::signals::StopFlag;

/// Interval at which the processes are polled.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a run that is asked to stop may take to finish its step and write its checkpoint.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the file in a run's folder with the seconds of its earlier sessions, until it is done.
const SECONDS: &str = "study-seconds.txt";
/// Suffix of the name of the file that receives the output of a run.
const OUTPUT: &str = "output.txt";

/// How a study is executed.
pub struct Options {
    /// Folder of the study; its subfolder `runs` contains the runs.
    pub out: PathBuf,
    /// Number of concurrent processes.
    pub jobs: usize,
    /// Number of runs to execute, from the first.
    pub first: usize,
    /// When to stop; `None` to execute all runs.
    pub until: Option<Instant>,
    /// Set if a signal asks to stop.
    pub stop: StopFlag,
}

impl Options {
    fn is_over(&self) -> bool {
        self.stop.is_set() || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// The contents of the file [`DONE`].
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    base: PathBuf,
    overrides: Vec<String>,
    /// See [`settings`]; files of earlier versions lack it.
    #[serde(default)]
    settings: Settings,
    row: Row,
}

/// Values of a config by dotted key.
type Settings = BTreeMap<String, Value>;

/// Keys and sections that the results of a run do not depend on.
const WITHOUT_EFFECT: [&str; 12] = [
    "run.name",
    "run.dir",
    "run.timeout_s",
    "data.workers",
    "data.prefetch",
    "data.cache",
    "data.spill_dir",
    "model.checkpoint_blocks",
    "train.cuda_graph",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
];

/// Returns all settings that the results of a run depend on. They include those of the base config,
/// because its file may change under the same name.
fn settings(grid: &Grid, spec: &RunSpec) -> Result<Settings> {
    let config = config::load_unchecked(&grid.base, &spec.overrides)?.config;
    let mut settings = Settings::new();
    add_leaves("", serde_json::to_value(&config)?, &mut settings);
    settings.retain(|key, _| !WITHOUT_EFFECT.contains(&key.as_str()));
    Ok(settings)
}

/// Adds all values in `value` that are not objects, by their dotted keys.
fn add_leaves(key: &str, value: Value, leaves: &mut Settings) {
    let Value::Object(section) = value else {
        leaves.insert(key.to_owned(), value);
        return;
    };
    let dotted = |name: String| if key.is_empty() { name } else { format!("{key}.{name}") };
    section.into_iter().for_each(|(name, value)| add_leaves(&dotted(name), value, leaves));
}

/// A run whose process is active.
struct Running {
    at: usize,
    settings: Settings,
    child: Child,
    since: Instant,
}

/// The outcome of a study.
pub struct Made {
    /// One row for each run of the grid.
    pub rows: Vec<Row>,
    /// An error if the study ended early because a file cannot be written or a process cannot be
    /// started.
    pub end: Result<()>,
}

/// Executes all runs that are not done. Calls `tell` with all rows and the index of each run that
/// ends, successfully or not. A run that fails is not an error.
///
/// # Errors
/// Returns an error if a finished run was made with other settings; no run has been started then.
pub fn make(grid: &Grid, options: &Options, tell: &mut dyn FnMut(&[Row], usize)) -> Result<Made> {
    let mut rows: Vec<Row> =
        grid.runs.iter().map(|spec| outcome::row_of(spec, "not started")).collect();
    let mut waiting = Vec::new();
    for (at, spec) in grid.runs.iter().enumerate() {
        match finished(grid, spec, &options.out)? {
            Some(row) => rows[at] = row,
            None if at < options.first => waiting.push(at),
            None => {}
        }
    }
    let mut running = Vec::new();
    let end = execute(grid, options, waiting, (&mut running, &mut rows), tell);
    // After an error, no process may be left behind.
    stop_all(&mut running);
    for run in running {
        rows[run.at] = outcome::row_of(&grid.runs[run.at], "unfinished");
    }
    Ok(Made { rows, end })
}

/// Executes the runs `waiting`. After an error, some processes may still be `running`.
fn execute(
    grid: &Grid,
    options: &Options,
    waiting: Vec<usize>,
    (running, rows): (&mut Vec<Running>, &mut Vec<Row>),
    tell: &mut dyn FnMut(&[Row], usize),
) -> Result<()> {
    let mut waiting = waiting.into_iter();
    loop {
        let over = options.is_over();
        while running.len() < options.jobs && !over {
            let Some(at) = waiting.next() else { break };
            let spec = &grid.runs[at];
            match settings(grid, spec) {
                Ok(settings) => {
                    let child = start(grid, spec, options)?;
                    running.push(Running { at, settings, child, since: Instant::now() });
                }
                Err(failure) => {
                    let message = failure.lines().join("; ");
                    rows[at] = Row { message, ..outcome::row_of(spec, "failed") };
                    tell(rows, at);
                }
            }
        }
        if running.is_empty() {
            return Ok(());
        }
        if over {
            stop_all(running);
        }
        for at in ended(grid, options, running, rows)? {
            tell(rows, at);
        }
        sleep(PAUSE);
    }
}

/// Removes the processes that have exited, saves their outcomes, and returns the indices of the
/// runs that have ended. A run that was stopped is not among them.
fn ended(
    grid: &Grid,
    options: &Options,
    running: &mut Vec<Running>,
    rows: &mut [Row],
) -> Result<Vec<usize>> {
    let mut ended = Vec::new();
    let mut next = 0;
    while next < running.len() {
        let status = running[next].child.try_wait().context(|| "cannot wait for a run".into())?;
        let Some(status) = status else {
            next += 1;
            continue;
        };
        let run = running.remove(next);
        let spec = &grid.runs[run.at];
        let folder = folder(&options.out, spec);
        let seconds = earlier_seconds(&folder) + run.since.elapsed().as_secs_f64();
        rows[run.at] = outcome::row_of(spec, "unfinished");
        if status.code() == Some(STOPPED.into()) || status.code().is_none() && options.is_over() {
            keep_seconds(&folder, seconds)?;
            continue;
        }
        let row = if status.success() {
            outcome::read(spec, &folder, seconds)
        } else {
            Err(last_words(&output_file(options, spec)).unwrap_or_else(|| status.to_string()))
        };
        match row {
            Ok(row) => {
                let (base, overrides) = (grid.base.clone(), spec.overrides.clone());
                let done = Done { base, overrides, settings: run.settings, row };
                write_json(&folder.join(DONE), &done)?;
                // The file exists only if the run was interrupted before.
                let _ = fs::remove_file(folder.join(SECONDS));
                rows[run.at] = done.row;
            }
            Err(message) => {
                rows[run.at] = Row { message, ..outcome::row_of(spec, "failed") };
                keep_seconds(&folder, seconds)?;
            }
        }
        ended.push(run.at);
    }
    Ok(ended)
}

/// Returns the seconds that a run took in earlier sessions.
fn earlier_seconds(folder: &Path) -> f64 {
    let text = fs::read_to_string(folder.join(SECONDS));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0.0)
}

/// Saves the seconds that an unfinished run has taken so far. Does nothing if it has no folder yet.
fn keep_seconds(folder: &Path, seconds: f64) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let file = folder.join(SECONDS);
    write_atomic(&file, format!("{seconds:.3}\n").as_bytes())
        .context(|| format!("cannot write {}", file.display()))
}

/// Checks that the runs in the folder `out` that are done have the settings that the grid has now.
///
/// # Errors
/// Returns an error that names the first one that does not.
pub fn check_finished(grid: &Grid, out: &Path) -> Result<()> {
    grid.runs.iter().try_for_each(|spec| finished(grid, spec, out).map(|_| ()))
}

/// Returns the row of a run that is done; `None` if it is not.
///
/// # Errors
/// Returns an error if the file [`DONE`] is damaged, or if the run was made with settings other
/// than those that it has now.
fn finished(grid: &Grid, spec: &RunSpec, out: &Path) -> Result<Option<Row>> {
    let path = folder(out, spec).join(DONE);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    let done: Done = serde_json::from_str(&text).context(|| path.display().to_string())?;
    if done.overrides != spec.overrides || done.base != grid.base {
        return Err(Failure::usage(format!(
            "{}: this run was trained with different settings than the grid has now: choose \
             another folder with --out",
            path.display()
        )));
    }
    // The settings in the file went through JSON text, which may change the last digit of a number.
    let now = serde_json::to_string(&settings(grid, spec)?)?;
    let now: Settings = serde_json::from_str(&now)?;
    // Only keys that both have are compared, because another version may have other keys.
    let other =
        now.iter().find(|(key, now)| done.settings.get(*key).is_some_and(|old| old != *now));
    if let Some((key, now)) = other {
        return Err(Failure::usage(format!(
            "{}: this run was trained with a different {key} ({}) than {} has now ({now}): choose \
             another folder with --out",
            path.display(),
            done.settings[key],
            grid.base.display()
        )));
    }
    Ok(Some(done.row))
}

fn start(grid: &Grid, spec: &RunSpec, options: &Options) -> Result<Child> {
    let file = output_file(options, spec);
    let runs = options.out.join("runs");
    fs::create_dir_all(&runs).context(|| format!("cannot create {}", runs.display()))?;
    let cannot = || format!("cannot write {}", file.display());
    let output = File::create(&file).context(cannot)?;
    let same = output.try_clone().context(cannot)?;
    // This link opens the running program even if its file is replaced during the study.
    let program = match Path::new("/proc/self/exe").exists() {
        true => "/proc/self/exe".into(),
        false => std::env::current_exe().context(|| "cannot find this program".into())?,
    };
    let mut command = Command::new(program);
    command.arg("train").arg(&grid.base).args(["--resume", "auto"]);
    if options.jobs > 1 {
        let cores = available_parallelism().map_or(1, usize::from);
        let share = (cores / options.jobs).max(1);
        command.arg(format!("run.threads={share}")).arg(format!("data.workers={share}"));
    }
    command.args(&spec.overrides);
    command.arg(format!("run.dir={}", runs.display())).arg(format!("run.name={}", spec.name));
    command.stdin(Stdio::null()).stdout(same).stderr(output);
    command.spawn().context(|| "cannot start a run".into())
}

/// Asks all runs to write a checkpoint and exit, as a scheduler would, and waits for them. Runs
/// that take too long are killed, and continue from an earlier checkpoint the next time.
fn stop_all(running: &mut [Running]) {
    for run in running.iter() {
        // An error means that the process has exited in the meantime.
        let _ = kill_process(Pid::from_child(&run.child), Signal::TERM);
    }
    let until = Instant::now() + PATIENCE;
    for run in running {
        while matches!(run.child.try_wait(), Ok(None)) && Instant::now() < until {
            sleep(PAUSE);
        }
        let _ = run.child.kill();
    }
}

fn folder(out: &Path, spec: &RunSpec) -> PathBuf {
    out.join("runs").join(&spec.name)
}

fn output_file(options: &Options, spec: &RunSpec) -> PathBuf {
    options.out.join("runs").join(format!("{}.{OUTPUT}", spec.name))
}

/// Returns the last non-empty line that a run printed.
fn last_words(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_earlier_sessions_are_kept_with_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        keep_seconds(&run, 2.5).unwrap();
        assert_eq!(earlier_seconds(&run), 0.0, "a run that did not begin has no folder");
        fs::create_dir(&run).unwrap();
        keep_seconds(&run, 2.5).unwrap();
        assert_eq!(earlier_seconds(&run), 2.5);
    }
}
