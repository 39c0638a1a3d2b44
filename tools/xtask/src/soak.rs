//! `cargo xtask soak`: kills small runs at random times. Each resumed run must end bitwise equal to
//! an undisturbed one.
//!
//! A checkpoint is written after every second step, so that many of the kills occur while one is
//! being saved.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::demo;
use crate::fail::{Context, Result, failed, usage};
use crate::process;
use crate::simdino::{Simdino, Synthetic};
use crate::workspace::Workspace;

const CONFIG: &str = "configs/demo.yaml";
const DIR: &str = "runs/soak";
/// Overrides for a run of 24 steps that takes some seconds.
const SMALL: [&str; 14] = [
    "augment.global_crops_size=32",
    "augment.local_crops_size=16",
    "model.image_size=32",
    "train.batch_size=16",
    "train.epochs=3",
    "train.accumulate=2",
    "simdino.rate_groups=2", // one for each pass
    "train.checkpoint_every=2",
    "train.log_every=1",
    "optim.warmup_epochs=1",
    "probe.train_path=",
    "probe.test_path=",
    "run.threads=1",
    "run.device=cpu",
];
/// The files of the last checkpoint that are compared.
const FILES: [&str; 4] = ["student", "teacher", "optimizer", "objective"];

/// The parsed arguments.
#[derive(Debug, PartialEq)]
struct Request {
    kills: u64,
    seed: u64,
    json: bool,
    overrides: Vec<String>,
}

/// Kills and resumes the requested number of runs.
///
/// # Errors
/// Returns an error if an option is invalid, or a resumed run fails or ends differently.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let request = parse(arguments)?;
    let simdino = Simdino::build(workspace)?;
    let dir = workspace.path(DIR);
    if dir.exists() {
        fs::remove_dir_all(&dir).context(|| format!("cannot empty {}", dir.display()))?;
    }
    let images = Path::new(DIR).join("images");
    demo::draw(workspace, &simdino, &images, Synthetic { count: 128, size: 32, seed: 0 })?;
    let mut overrides: Vec<String> = SMALL.map(str::to_owned).into();
    overrides.extend(request.overrides.iter().cloned());
    let soak = Soak { simdino: &simdino, images, overrides };

    let start = Instant::now();
    soak.finish(Path::new(DIR).join("whole").as_path())?;
    let length = start.elapsed();
    let whole = last_state(&workspace.path(Path::new(DIR).join("whole")))?;
    println!(
        "soak: the run takes {:.1} s without interruption; seed {}",
        length.as_secs_f64(),
        request.seed
    );

    let (mut random, mut identical) = (Random(request.seed), 0);
    for number in 0..request.kills {
        let moment = length.mul_f64(random.share());
        let run = Path::new(DIR).join(format!("killed-{number}"));
        soak.kill_after(&run, moment)?;
        let found = checkpoints(&workspace.path(&run));
        soak.finish(&run)?;
        let same = last_state(&workspace.path(&run))? == whole;
        identical += u64::from(same);
        println!(
            "soak: kill {number} after {:.2} s, {found}: {}",
            moment.as_secs_f64(),
            if same { "identical" } else { "DIFFERENT" }
        );
        if same {
            let run = workspace.path(&run);
            fs::remove_dir_all(&run).context(|| format!("cannot remove {}", run.display()))?;
        }
    }
    if request.json {
        println!("{}", json!({"kills": request.kills, "identical": identical}));
    }
    if identical == request.kills {
        return Ok(());
    }
    failed(format!(
        "{} of {} killed runs ended in a different state",
        request.kills - identical,
        request.kills
    ))
}

struct Soak<'a> {
    simdino: &'a Simdino<'a>,
    images: PathBuf,
    overrides: Vec<String>,
}

impl Soak<'_> {
    /// Trains to the end, from the current state of the run.
    fn finish(&self, run: &Path) -> Result<()> {
        let mut command = self.simdino.train(CONFIG, run, &self.images, &self.overrides);
        let output = command.output().context(|| "cannot start simdino".into())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        failed(format!("{} ended with {}: {said}", process::shown(&command), output.status))
    }

    /// Starts a run, and kills it with SIGKILL after `moment` unless it has ended by then.
    fn kill_after(&self, run: &Path, moment: Duration) -> Result<()> {
        let mut command = self.simdino.train(CONFIG, run, &self.images, &self.overrides);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().context(|| "cannot start simdino".into())?;
        std::thread::sleep(moment);
        child.kill().and_then(|()| child.wait()).context(|| "cannot kill the run".into())?;
        Ok(())
    }
}

/// Describes the checkpoints that a killed run has left.
fn checkpoints(run: &Path) -> String {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else {
        return "before the first checkpoint".into();
    };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let whole = names.iter().filter(|name| name.starts_with("step-")).max();
    let partial = names.iter().any(|name| name.ends_with(".partial"));
    let whole = whole.map_or("no checkpoint", String::as_str);
    if partial { format!("{whole} and a part of the next") } else { whole.to_owned() }
}

/// Returns the contents of the last checkpoint's files.
fn last_state(run: &Path) -> Result<Vec<Vec<u8>>> {
    let latest = run.join("checkpoints/latest");
    let name =
        fs::read_to_string(&latest).context(|| format!("cannot read {}", latest.display()))?;
    let folder = run.join("checkpoints").join(name.trim());
    let read = |part: &str| {
        let file = folder.join(format!("{part}.safetensors"));
        fs::read(&file).context(|| format!("cannot read {}", file.display()))
    };
    FILES.iter().map(|part| read(part)).collect()
}

/// SplitMix64, so that the seed determines when runs are killed.
struct Random(u64);

impl Random {
    /// Returns a number in [0, 1).
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn parse(arguments: &[String]) -> Result<Request> {
    let mut request = Request { kills: 5, seed: 0, json: false, overrides: Vec::new() };
    let mut words = arguments.iter();
    let number_of = |option: &str, value: Option<&String>| match value.map(|word| word.parse()) {
        Some(Ok(number)) => Ok(number),
        _ => usage(format!("{option} needs a number")),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => request.json = true,
            "--kills" => request.kills = number_of(word, words.next())?,
            "--seed" => request.seed = number_of(word, words.next())?,
            other if other.contains('=') && !other.starts_with('-') => {
                request.overrides.push(word.clone());
            }
            other => return usage(format!("soak: unexpected argument '{other}'")),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_the_moments() {
        let shares = |seed| {
            let mut random = Random(seed);
            (0..100).map(|_| random.share()).collect::<Vec<_>>()
        };
        assert_eq!(shares(3), shares(3));
        assert_ne!(shares(3), shares(4));
        assert!(shares(3).iter().all(|share| (0.0..1.0).contains(share)));
        let mean = shares(3).iter().sum::<f64>() / 100.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }

    #[test]
    fn options_are_read() {
        let words = ["--kills", "50", "--json", "method=dino"].map(str::to_owned);
        let overrides = vec!["method=dino".to_owned()];
        assert_eq!(parse(&words).unwrap(), Request { kills: 50, seed: 0, json: true, overrides });
        assert!(parse(&["--kills".to_owned(), "many".to_owned()]).is_err());
    }
}
