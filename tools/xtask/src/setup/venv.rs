//! Creates and fills `.venv`.
//!
//! A mark is written before the installation, and a stamp after it. A folder with a mark but no
//! stamp was interrupted, and is created again. A folder with neither belongs to the user: it is
//! adopted if it contains what is needed, and never deleted.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::pinned::{TORCH, VENV, VENV_PYTHON};
use super::{machine, python, version};
use crate::fail::{Context, Fail, Result, failed};
use crate::process;
use crate::workspace::Workspace;

const STAMP: &str = "simdino-setup.txt";
const BEGUN: &str = "simdino-setup.begun";
const LOG: &str = ".cache/setup.log";

/// Names and versions of the installed packages. The two of NVIDIA provide headers that NCCL's C++
/// interface needs besides those of torch.
const PINS: [(&str, &str); 4] = [
    ("torch", TORCH),
    ("nvidia-cuda-crt", "13.0.*"),
    ("nvidia-cuda-cccl", "13.0.*"),
    ("numpy", "2.*"),
];

/// Creates or completes `.venv` if necessary, and returns the folder of its torch.
///
/// # Errors
/// Returns one sentence if Python, pip, disk space, or the network is missing.
pub fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let venv = workspace.path(VENV);
    if let Some(torch) = complete(&venv) {
        return Ok(torch);
    }
    refuse_foreign(&venv)?;
    machine::check_platform()?;
    machine::check_disk(workspace.root())?;
    let python = python::find(workspace)?;
    println!(
        "set-up: installing torch {TORCH} into .venv (2.6 GB to download, once; log in {LOG})"
    );
    start_log(workspace)?;
    let result = make(workspace, python).and_then(|()| match complete(&venv) {
        Some(torch) => Ok(torch),
        None => failed(format!("pip succeeded, but {VENV} is incomplete; see {LOG}")),
    });
    if result.is_err() && venv.join(BEGUN).exists() {
        // Leaves nothing incomplete. An error of this would matter less than `result`.
        let _ = fs::remove_dir_all(&venv);
    }
    let torch = result?;
    let _ = fs::remove_file(venv.join(BEGUN));
    Ok(torch)
}

/// Returns an error if `.venv` exists and was not created by setup.
fn refuse_foreign(venv: &Path) -> Result<()> {
    let ours = venv.join(STAMP).exists() || venv.join(BEGUN).exists();
    if ours || venv.symlink_metadata().is_err() {
        return Ok(());
    }
    failed(format!(
        "{} was not created by this set-up and lacks torch {TORCH}: move it away, or run \
         `{VENV_PYTHON} -m pip install {}`",
        venv.display(),
        requirements().join(" ")
    ))
}

/// Installs additional packages into `.venv`, which already contains torch.
pub fn add(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    start_log(workspace)?;
    pip(workspace, workspace.command(workspace.path(VENV_PYTHON)), packages)
}

/// Returns the folder of torch if `venv` is complete. Writes the stamp if it is missing.
fn complete(venv: &Path) -> Option<PathBuf> {
    let torch = site_packages(venv)?.join("torch");
    if !torch.join("lib/libtorch_cpu.so").exists()
        || version::of_libtorch(&torch).as_deref() != Some(TORCH)
    {
        return None;
    }
    let stamp = venv.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|text| text == stamp_text()) {
        return Some(torch);
    }
    let installed = installed_packages(torch.parent()?);
    if !PINS.iter().all(|&(name, pin)| satisfied(&installed, name, pin)) {
        return None;
    }
    fs::write(&stamp, stamp_text()).ok()?;
    Some(torch)
}

fn stamp_text() -> String {
    requirements().join("\n") + "\n"
}

fn requirements() -> Vec<String> {
    PINS.iter().map(|(name, version)| format!("{name}=={version}")).collect()
}

fn site_packages(venv: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(venv.join("lib")).ok()?;
    folders
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages")))
        .find(|folder| folder.is_dir())
}

/// Returns the names of completely installed packages with their versions, as in their `.dist-info`
/// folders. pip writes RECORD last.
fn installed_packages(site: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(site) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().join("RECORD").exists())
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_suffix(".dist-info").map(str::to_owned)
        })
        .collect()
}

/// Returns whether names such as "nvidia_cuda_crt-13.0.88" include the pinned package.
fn satisfied(installed: &[String], name: &str, pin: &str) -> bool {
    let name = name.replace('-', "_");
    installed.iter().filter_map(|folder| folder.rsplit_once('-')).any(|(found, found_version)| {
        found.eq_ignore_ascii_case(&name) && version::matches_pin(found_version, pin)
    })
}

fn make(workspace: &Workspace, python: &str) -> Result<()> {
    let venv = workspace.path(VENV);
    if venv.join(STAMP).exists() {
        // Created by setup with other pins; pip changes what differs.
        fs::rename(venv.join(STAMP), venv.join(BEGUN))
            .context(|| format!("cannot write {}", venv.display()))?;
    } else {
        create(workspace, python, &venv)?;
    }
    let requirements = requirements();
    let packages: Vec<&str> = requirements.iter().map(String::as_str).collect();
    pip(workspace, workspace.command(workspace.path(VENV_PYTHON)), &packages)
}

fn create(workspace: &Workspace, python: &str, venv: &Path) -> Result<()> {
    if venv.join(BEGUN).exists() {
        fs::remove_dir_all(venv).context(|| format!("cannot remove {}", venv.display()))?;
    }
    fs::create_dir_all(venv)
        .and_then(|()| File::create(venv.join(BEGUN)))
        .context(|| format!("cannot create {}", venv.display()))?;
    let made = |options: &[&str]| {
        let mut command = workspace.command(python);
        process::probe(command.args(["-m", "venv"]).args(options).arg(VENV)).is_some()
    };
    if made(&[]) && runs_pip(workspace.command(workspace.path(VENV_PYTHON))) {
        return Ok(());
    }
    // Debian ships venv without ensurepip, but the system's pip can install pip into the
    // environment.
    if !made(&["--clear", "--without-pip"]) {
        return failed(format!(
            "{python} cannot create a virtual environment: install its venv module (Debian, \
             Ubuntu: apt-get install python3-venv)"
        ));
    }
    File::create(venv.join(BEGUN)).context(|| format!("cannot write {}", venv.display()))?;
    if !runs_pip(workspace.command(python)) {
        return failed(format!(
            "{python} has no pip: install it (Debian, Ubuntu: apt-get install python3-pip \
             python3-venv), or set LIBTORCH to the folder of a libtorch {TORCH}"
        ));
    }
    let Some(site) = site_packages(venv) else {
        return failed(format!("{python} created {VENV} without site-packages; see {LOG}"));
    };
    pip(workspace, workspace.command(python), &["--target", &site.to_string_lossy(), "pip"])
}

fn runs_pip(mut python: Command) -> bool {
    process::probe(python.args(["-m", "pip", "--version"])).is_some()
}

/// Runs `python -m pip install`, with all output in the log and its main steps on the terminal.
fn pip(workspace: &Workspace, mut python: Command, arguments: &[&str]) -> Result<()> {
    let temporary = workspace.path(".cache/tmp");
    fs::create_dir_all(&temporary).context(|| format!("cannot create {}", temporary.display()))?;
    let path = workspace.path(LOG);
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .context(|| format!("cannot write {}", path.display()))?;
    let errors = log.try_clone().context(|| format!("cannot write {}", path.display()))?;
    python
        .args(["-m", "pip", "install", "--progress-bar", "off", "--retries", "2"])
        .arg("--disable-pip-version-check")
        .args(arguments)
        .env("TMPDIR", &temporary) // /tmp may be too small for the wheels
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .stderr(errors);
    let result = process::each_line(&mut python, |line| {
        let _ = writeln!(log, "{line}"); // a lost line of the log does not fail the setup
        if line.trim_start().starts_with("Downloading") || line.starts_with("Installing") {
            println!("  {}", shortened(line.trim()));
        }
    });
    let _ = fs::remove_dir_all(&temporary);
    result.map_err(|_| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        Fail::Failed(why_pip_failed(&text))
    })
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= 100 {
        return line.to_owned();
    }
    line.chars().take(97).chain("...".chars()).collect()
}

/// Returns a sentence with pip's error and what to do about it.
fn why_pip_failed(log: &str) -> String {
    let has = |needle: &str| log.contains(needle);
    let advice = if has("No space left on device") {
        "the disk is full: free some space"
    } else if has("name resolution") || has("NewConnectionError") || has("ConnectTimeout") {
        "the package index cannot be reached: check the network and pip's index and proxy settings"
    } else if has("No matching distribution") {
        "the package index does not offer it for this machine: check pip's index settings"
    } else {
        "see the log"
    };
    let last = log
        .lines()
        .rev()
        .find(|line| line.starts_with("ERROR"))
        .or_else(|| log.lines().rev().find(|line| !line.trim().is_empty()))
        .unwrap_or("no output");
    format!(
        "pip could not install what the build needs; {advice}, or set LIBTORCH to the folder of a \
         libtorch {TORCH} (pip: {}; full log in {LOG})",
        shortened(last.trim().trim_start_matches("ERROR: "))
    )
}

fn start_log(workspace: &Workspace) -> Result<()> {
    let path = workspace.path(LOG);
    let write = || {
        fs::create_dir_all(workspace.path(".cache"))?;
        fs::write(&path, "")
    };
    write().context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a `.venv` as pip would, with these packages.
    fn fake(name: &str, packages: &[&str]) -> PathBuf {
        let venv = std::env::temp_dir().join(format!("xtask-venv-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&venv);
        let site = venv.join("lib/python3.11/site-packages");
        fs::create_dir_all(site.join("torch/lib")).unwrap();
        fs::write(site.join("torch/lib/libtorch_cpu.so"), "").unwrap();
        fs::write(site.join("torch/version.py"), "__version__ = '2.11.0+cu130'\n").unwrap();
        for package in packages {
            fs::create_dir_all(site.join(format!("{package}.dist-info"))).unwrap();
            fs::write(site.join(format!("{package}.dist-info/RECORD")), "").unwrap();
        }
        venv
    }

    const ALL: [&str; 4] =
        ["torch-2.11.0", "nvidia_cuda_crt-13.0.88", "nvidia_cuda_cccl-13.0.85", "numpy-2.4.6"];

    #[test]
    fn a_full_folder_without_stamp_is_adopted_and_stamped() {
        let venv = fake("full", &ALL);
        let torch = complete(&venv).unwrap();
        assert!(torch.ends_with("lib/python3.11/site-packages/torch"));
        assert_eq!(fs::read_to_string(venv.join(STAMP)).unwrap(), stamp_text());
        fs::remove_dir_all(&venv).unwrap();
    }

    #[test]
    fn a_missing_package_or_an_unfinished_one_is_not_complete() {
        let venv = fake("missing", &ALL[..2]);
        assert_eq!(complete(&venv), None);
        fs::remove_dir_all(&venv).unwrap();

        let venv = fake("unfinished", &ALL);
        let record = "lib/python3.11/site-packages/torch-2.11.0.dist-info/RECORD";
        fs::remove_file(venv.join(record)).unwrap();
        assert_eq!(complete(&venv), None);
        assert!(!venv.join(STAMP).exists());
        fs::remove_dir_all(&venv).unwrap();
    }

    #[test]
    fn a_stamp_of_other_pins_does_not_count() {
        let venv = fake("stale", &ALL[..1]);
        fs::write(venv.join(STAMP), "torch==2.11.0\n").unwrap();
        assert_eq!(complete(&venv), None);
        fs::write(venv.join(STAMP), stamp_text()).unwrap();
        assert!(complete(&venv).is_some());
        fs::remove_dir_all(&venv).unwrap();
    }

    #[test]
    fn pip_failures_say_what_to_do() {
        let offline = "WARNING: Retrying after NewConnectionError: name resolution\n\
                       ERROR: No matching distribution found for torch==2.11.0\n";
        let sentence = why_pip_failed(offline);
        assert!(sentence.contains("check the network"), "{sentence}");
        assert!(sentence.contains("No matching distribution found"), "{sentence}");
        let full = "ERROR: Could not install packages: [Errno 28] No space left on device\n";
        assert!(why_pip_failed(full).contains("the disk is full"));
        assert!(!why_pip_failed("").contains('\n'));
    }
}
