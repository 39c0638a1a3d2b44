//! Tests the archive as its users get it: unpacked in some folder, with some Python.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::{COMPLETIONS, FILES, VERSION};
use crate::fail::{Context, Result, failed};
use crate::files::{make_executable, make_folder, write};
use crate::setup::{self, TORCH};
use crate::workspace::{LIBTORCH_LINK, Workspace};
use crate::{process, simdino};

/// Overrides that shorten the recipe `quickstart` to two steps.
const SMALLER: [&str; 11] = [
    "run.device=cpu",
    "run.threads=1",
    "data.workers=1",
    "augment.global_crops_size=32",
    "augment.local_crops_size=16",
    "model.arch=vit_nano",
    "model.image_size=32",
    "head.hidden_dim=32",
    "head.out_dim=16",
    "train.batch_size=16",
    "train.epochs=1",
];
/// Programs that the launcher calls, besides Python.
const TOOLS: [&str; 4] = ["cat", "dirname", "readlink", "sed"];

/// An unpacked archive, and a folder to work in.
struct Unpacked {
    launcher: PathBuf,
    work: PathBuf,
    libtorch: PathBuf,
}

/// Unpacks `archive` below `folder` and tests it.
///
/// # Errors
/// Returns an error that describes what is missing or does not work.
pub fn check(workspace: &Workspace, archive: &Path, folder: &Path) -> Result<()> {
    make_folder(folder)?;
    process::run(workspace.command("tar").arg("-xf").arg(archive).arg("-C").arg(folder))?;
    let file = archive.file_name().unwrap_or_default().to_string_lossy();
    let root = folder.join(file.trim_end_matches(".tar.gz"));
    files(&root)?;
    let work = folder.join("work");
    make_folder(&work)?;
    // A link, like that of users who have ~/.local/bin on their PATH.
    let launcher = work.join("simdino");
    symlink(root.join("bin/simdino"), &launcher).context(|| "cannot create a link".into())?;
    let libtorch = workspace.path(LIBTORCH_LINK).join("lib");
    let unpacked = Unpacked { launcher, work, libtorch };
    unpacked.refusals(workspace)?;
    unpacked.trains()?;
    unpacked.uses_python(workspace)
}

/// Checks that every file that INSTALL.txt mentions exists.
fn files(root: &Path) -> Result<()> {
    let mut names: Vec<String> = FILES.map(str::to_owned).into();
    names.extend(["INSTALL.txt", "THIRD-PARTY.txt", "recipes/quickstart.yaml"].map(str::to_owned));
    names.extend(COMPLETIONS.map(|(_, file)| format!("completions/{file}")));
    let empty = |name: &&String| !fs::metadata(root.join(name)).is_ok_and(|file| file.len() > 100);
    match names.iter().find(empty) {
        Some(name) => failed(format!("the archive lacks {name}, or the file is almost empty")),
        None => Ok(()),
    }
}

impl Unpacked {
    /// Returns the command `bin/simdino ARGS` without any environment variable that would help it.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.launcher);
        command.args(args).current_dir(&self.work);
        for name in ["LD_LIBRARY_PATH", "LIBTORCH", "SIMDINO_TORCH_LIB", "PYTHONPATH"] {
            command.env_remove(name);
        }
        command
    }

    fn with_lib(&self, lib: &Path, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("SIMDINO_TORCH_LIB", lib);
        command
    }

    /// Trains with a recipe, without any Python.
    fn trains(&self) -> Result<()> {
        let synth = ["data", "synth", "set", "--count", "32", "--size", "32"];
        process::run(&mut self.with_lib(&self.libtorch, &synth))?;
        let path = format!("data.path={}", simdino::images(Path::new("set")).display());
        let args = [&["train", "quickstart", &path][..], &SMALLER].concat();
        process::run(&mut self.with_lib(&self.libtorch, &args))?;
        let weights = self.work.join("runs/quickstart/weights/teacher.safetensors");
        if weights.is_file() {
            return Ok(());
        }
        failed(format!("a run with the recipe quickstart wrote no {}", weights.display()))
    }

    /// Runs with the torch of a Python, if there is one on this machine.
    fn uses_python(&self, workspace: &Workspace) -> Result<()> {
        let Some(python) = setup::python_with_torch(workspace) else {
            println!(
                "dist: no python3 on this machine has torch {TORCH}, so the archive was tested \
                 without one"
            );
            return Ok(());
        };
        // The full path, because a stand-in that starts `python3` would find itself.
        let find = format!("command -v '{}'", python.to_string_lossy());
        let Some(python) = process::probe(workspace.command("sh").args(["-c", &find])) else {
            return failed(format!("{python:?} ran but is not on PATH"));
        };
        let path = path_with(Path::new(&python).parent().unwrap_or(Path::new("")));
        // A folder of this name in the current folder must be ignored.
        make_folder(&self.work.join("torch"))?;
        write(&self.work.join("torch/__init__.py"), "raise SystemExit('the wrong torch')\n")?;
        let version = process::probe(self.command(&["--version"]).env("PATH", &path));
        if version.as_deref() != Some(&format!("simdino {VERSION}")) {
            return failed(format!("bin/simdino --version prints {version:?} with {python:?}"));
        }
        process::run(self.command(&["inspect", "env"]).env("PATH", &path))?;
        // The same Python, without its packages.
        let bare = self.python("bare", &format!("exec '{python}' -S -E \"$@\""))?;
        refused(self.command(&["--version"]).env("PATH", path_with(&bare)), "has no torch")
    }

    /// Checks that each unsuitable torch is rejected with one sentence.
    fn refusals(&self, workspace: &Workspace) -> Result<()> {
        let older = self.torch("older", "2.10.0+cu128", &[])?;
        let mute = self.torch("mute", "", &[])?;
        let for_cpus = self.torch("for cpus", &format!("{TORCH}+cpu"), &["libc10.so"])?;
        let colon = self.torch("a:b", TORCH, &[])?;
        for (lib, says) in [
            (older.as_path(), "torch is 2.10.0+cu128 in "),
            (&mute, "says which version of torch"),
            (&colon, "has a colon"),
            (Path::new("/nowhere"), "SIMDINO_TORCH_LIB is /nowhere, which has no libtorch_cpu.so"),
        ] {
            refused(&mut self.with_lib(lib, &["--version"]), says)?;
        }
        if self.libtorch.join("libtorch_cuda.so").exists() {
            let says = "has no libtorch_cuda.so: it is not the build";
            refused(&mut self.with_lib(&for_cpus, &["--version"]), says)?;
        }
        let older = older.parent().unwrap_or(&older).display().to_string();
        let with_older = self.python("with older", &format!("echo '{older}'"))?;
        let without = self.python("without", "exit 1")?;
        for (folder, says) in [(&with_older, "torch is 2.10.0"), (&without, "has no torch")] {
            refused(self.command(&["--version"]).env("PATH", path_with(folder)), says)?;
        }
        let no_python = self.tools(workspace)?;
        refused(self.command(&["--version"]).env("PATH", no_python), "there is no python3 on PATH")
    }

    /// Creates a fake torch of this version, whose libraries are empty files.
    fn torch(&self, name: &str, version: &str, libraries: &[&str]) -> Result<PathBuf> {
        let lib = self.work.join(name).join("lib");
        make_folder(&lib)?;
        for library in libraries.iter().chain(&["libtorch_cpu.so"]) {
            write(&lib.join(library), "")?;
        }
        let text = "from typing import Optional\n\n__all__ = ['__version__', 'cuda']\n";
        let version = format!("{text}__version__ = '{version}'\n");
        write(&lib.with_file_name("version.py"), &version)?;
        Ok(lib)
    }

    /// Creates a folder with a `python3` that runs this script.
    fn python(&self, name: &str, script: &str) -> Result<PathBuf> {
        let folder = self.work.join(name);
        make_folder(&folder)?;
        write(&folder.join("python3"), &format!("#!/bin/sh\n{script}\n"))?;
        make_executable(&folder.join("python3"))?;
        Ok(folder)
    }

    /// Creates a folder with the launcher's tools, but no Python.
    fn tools(&self, workspace: &Workspace) -> Result<PathBuf> {
        let folder = self.work.join("tools");
        make_folder(&folder)?;
        for tool in TOOLS {
            let find = format!("command -v {tool}");
            let found = process::probe(workspace.command("sh").args(["-c", &find]));
            let found = found.unwrap_or_else(|| format!("/bin/{tool}"));
            symlink(found, folder.join(tool)).context(|| "cannot create a link".into())?;
        }
        Ok(folder)
    }
}

/// Checks that the command fails with a single sentence that contains `says`.
fn refused(command: &mut Command, says: &str) -> Result<()> {
    let output =
        command.output().context(|| format!("cannot start `{}`", process::shown(command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let right = output.status.code() == Some(1)
        && said.lines().count() == 1
        && said.starts_with("simdino: ")
        && said.contains(says);
    if right {
        return Ok(());
    }
    let status = output.status;
    failed(format!(
        "bin/simdino should exit with code 1 and print '{says}', but it printed \
         {said:?} ({status})"
    ))
}

/// Returns `PATH` with `folder` in front.
fn path_with(folder: &Path) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    match folder.as_os_str().is_empty() {
        true => rest,
        false => [folder.as_os_str(), &rest].join(OsStr::new(":")),
    }
}
