//! Installs and tests the wheels in new environments of every installed Python.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fail::{Context, Result, failed};
use crate::files::{make_folder, write};
use crate::process;
use crate::setup::{self, TORCH};
use crate::workspace::Workspace;

/// Minor version of the oldest supported Python.
const OLDEST: u32 = 10;
/// Cache of NumPy wheels for Pythons without torch.
const WHEELHOUSE: &str = ".cache/wheelhouse";
const TESTS: &str = "crates/py/tests";
/// Script that prints the minor version of Python 3.
const VERSION: &str = "import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else 0)";

/// An environment in which a wheel is installed.
struct Environment {
    python: PathBuf,
    minor: u32,
}

/// Installs the wheel `simdino` without an index into an empty environment of each Python, and runs
/// the tests; those that need NumPy or torch run only where these are available.
///
/// # Errors
/// Returns an error if a test fails or there is no Python.
pub fn check_library(
    workspace: &Workspace,
    wheel: &Path,
    reference: &Path,
    folder: &Path,
) -> Result<()> {
    let pythons = pythons(workspace);
    if pythons.is_empty() {
        return failed(format!("no Python 3.{OLDEST} or later found to test the wheel with"));
    }
    let torch = torch_site(workspace);
    for (&minor, python) in &pythons {
        let environment = Environment::make(workspace, python, minor, folder)?;
        environment.install(workspace, wheel)?;
        let modules = match &torch {
            Some((of, site)) if *of == minor => {
                environment.add_folder(workspace, site)?;
                "numpy,torch"
            }
            _ if environment.install_numpy(workspace, minor) => "numpy",
            _ => "",
        };
        println!(
            "wheels: Python 3.{minor} with {}",
            if modules.is_empty() { "neither NumPy nor torch" } else { modules }
        );
        let mut tests = environment.command(workspace);
        tests.args(["-m", "unittest", "discover", "--start-directory", TESTS]);
        tests.env("SIMDINO_REFERENCE", reference).env("SIMDINO_REQUIRE", modules);
        process::run(tests.env("HF_HUB_OFFLINE", "1"))?;
    }
    if torch.is_none() {
        println!("wheels: no Python found with torch {TORCH}, so the losses were not tested");
    }
    Ok(())
}

/// Installs the wheel `simdino-cli` with a torch, with which it must train, and without one.
///
/// # Errors
/// Returns an error that describes what does not work.
pub fn check_program(workspace: &Workspace, wheel: &Path, folder: &Path) -> Result<()> {
    let pythons = pythons(workspace);
    let torch = torch_site(workspace);
    let chosen = torch.as_ref().map(|(minor, _)| *minor);
    let Some((&minor, python)) =
        pythons.iter().find(|(minor, _)| chosen.is_none_or(|of| of == **minor))
    else {
        return failed("no Python found to test simdino-cli with");
    };
    let environment = Environment::make(workspace, python, minor, &folder.join("program"))?;
    environment.install(workspace, wheel)?;
    let program = environment.python.with_file_name("simdino");
    environment.refuses(workspace, &program, "there is no torch")?;
    let site = environment.site(workspace)?;
    make_folder(&site.join("torch"))?;
    write(&site.join("torch/__init__.py"), "raise SystemExit('imported')\n")?;
    write(&site.join("torch/version.py"), "__version__ = '2.10.0+cu128'\n")?;
    environment.refuses(workspace, &program, "torch is 2.10.0+cu128")?;
    // A CPU-only build of torch.
    write(&site.join("torch/version.py"), &format!("__version__ = '{TORCH}+cpu'\n"))?;
    environment.refuses(workspace, &program, "--force-reinstall")?;
    fs::remove_dir_all(site.join("torch")).context(|| "cannot remove a folder".into())?;
    let Some((_, torch)) = torch else {
        println!("wheels: no Python found with torch {TORCH}, so simdino-cli was not started");
        return Ok(());
    };
    // First with torch beside simdino_cli, as pip installs them, then in another folder, as with
    // `--user`.
    let link = site.join("torch");
    std::os::unix::fs::symlink(torch.join("torch"), &link)
        .context(|| "cannot create a link".into())?;
    environment.trains(workspace, &program, folder)?;
    fs::remove_file(link).context(|| "cannot remove a link".into())?;
    environment.add_folder(workspace, &torch)?;
    process::run(environment.bare(workspace, &program).arg("--version"))
}

impl Environment {
    fn make(workspace: &Workspace, python: &Path, minor: u32, folder: &Path) -> Result<Self> {
        let folder = folder.join(format!("python3.{minor}"));
        process::run(workspace.command(python).args(["-m", "venv"]).arg(&folder))?;
        Ok(Self { python: folder.join("bin/python"), minor })
    }

    /// Returns a command of its Python, without the user's environment variables.
    fn command(&self, workspace: &Workspace) -> Command {
        self.bare(workspace, &self.python)
    }

    fn bare(&self, workspace: &Workspace, program: &Path) -> Command {
        let mut command = workspace.command(program);
        for name in ["PYTHONPATH", "LD_LIBRARY_PATH", "SIMDINO_TORCH_LIB", "VIRTUAL_ENV"] {
            command.env_remove(name);
        }
        command
    }

    /// Installs the wheel without its dependencies.
    fn install(&self, workspace: &Workspace, wheel: &Path) -> Result<()> {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let mut command = self.command(workspace);
        command.args(pip).args(["--no-index", "--no-deps"]).arg(wheel);
        process::run(&mut command)
    }

    /// Installs NumPy from the cache, which is filled if an index is reachable. Returns whether it
    /// succeeded.
    fn install_numpy(&self, workspace: &Workspace, minor: u32) -> bool {
        let house = workspace.path(WHEELHOUSE).join(format!("python3.{minor}"));
        let quiet = ["--quiet", "--disable-pip-version-check"];
        let install = || {
            let mut command = self.command(workspace);
            command.args(["-m", "pip", "install"]).args(quiet).args(["--no-index", "--find-links"]);
            process::probe(command.arg(&house).arg("numpy")).is_some()
        };
        let download = || {
            let mut command = self.command(workspace);
            command.args(["-m", "pip", "download"]).args(quiet);
            command.args(["--only-binary", ":all:", "--dest"]).arg(&house).arg("numpy");
            process::probe(&mut command).is_some()
        };
        install() || (download() && install())
    }

    /// Returns the folder of its packages.
    fn site(&self, workspace: &Workspace) -> Result<PathBuf> {
        site_of(workspace, &self.python)
    }

    /// Makes the packages of another folder importable, with lower priority than its own.
    fn add_folder(&self, workspace: &Workspace, folder: &Path) -> Result<()> {
        let path = self.site(workspace)?.join("others.pth");
        write(&path, &format!("{}\n", folder.display()))
    }

    /// Checks that the program trains on a folder of images and writes a report, in an otherwise
    /// empty folder.
    fn trains(&self, workspace: &Workspace, program: &Path, folder: &Path) -> Result<()> {
        let run = |words: &[&str]| {
            let mut command = self.bare(workspace, program);
            process::run(command.current_dir(folder).args(words))
        };
        run(&["data", "synth", "drawn", "--count", "40"])?;
        run(&["train", "drawn/images", "train.epochs=1", "run.device=cpu"])?;
        let missing = |file: &&str| !folder.join("runs/drawn_images").join(file).is_file();
        match ["report.html", "weights/teacher.safetensors"].iter().find(|file| missing(file)) {
            None => Ok(()),
            Some(file) => failed(format!("simdino train of the wheel wrote no {file}")),
        }
    }

    /// Checks that the program fails with one sentence that contains `says`.
    fn refuses(&self, workspace: &Workspace, program: &Path, says: &str) -> Result<()> {
        let mut command = self.bare(workspace, program);
        let output = command.arg("--version").output();
        let output = output.context(|| format!("cannot start {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(1) && said.lines().count() == 1 && said.contains(says) {
            return Ok(());
        }
        failed(format!(
            "simdino of Python 3.{} should exit with code 1 and print '{says}', but it printed \
             {said:?} ({})",
            self.minor, output.status
        ))
    }
}

/// Returns the folder of the packages of a Python.
fn site_of(workspace: &Workspace, python: &Path) -> Result<PathBuf> {
    let script = "import sysconfig; print(sysconfig.get_path('platlib'))";
    match process::probe(workspace.command(python).args(["-c", script])) {
        Some(folder) => Ok(folder.into()),
        None => failed(format!("{} does not report where its packages are", python.display())),
    }
}

/// Returns the minor version and the package folder of the Python that has torch.
fn torch_site(workspace: &Workspace) -> Option<(u32, PathBuf)> {
    let python = setup::python_with_torch(workspace)?;
    let minor = process::probe(workspace.command(&python).args(["-c", VERSION]))?.parse().ok()?;
    let script = "import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))";
    let site = process::probe(workspace.command(&python).args(["-c", script]))?;
    Some((minor, site.into()))
}

/// Returns one Python of each minor version that has venv, from PATH and pyenv.
fn pythons(workspace: &Workspace) -> BTreeMap<u32, PathBuf> {
    let mut candidates = vec![PathBuf::from("python3")];
    candidates.extend((OLDEST..OLDEST + 10).map(|minor| format!("python3.{minor}").into()));
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let versions = versions.into_iter().flatten().flatten();
    candidates.extend(versions.map(|entry| entry.path().join("bin/python3")));
    let mut found = BTreeMap::new();
    for python in candidates {
        let script = format!("import venv, ensurepip; {VERSION}");
        let said = process::probe(workspace.command(&python).args(["-c", &script]));
        let minor = said.and_then(|text| text.parse::<u32>().ok()).filter(|&minor| minor >= OLDEST);
        if let Some(minor) = minor {
            found.entry(minor).or_insert(python);
        }
    }
    found
}
