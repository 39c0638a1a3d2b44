//! New environments of every Python here, in which the wheels are installed and tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fail::{Context, Result, failed};
use crate::files::{make_folder, write};
use crate::process;
use crate::setup::{self, TORCH};
use crate::workspace::Workspace;

/// The oldest Python that the wheel is for, by its minor version.
const OLDEST: u32 = 10;
/// NumPy for the Pythons that have no torch here; fetched once.
const WHEELHOUSE: &str = ".cache/wheelhouse";
const TESTS: &str = "crates/py/tests";
/// What an environment says of itself.
const VERSION: &str = "import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else 0)";

/// An environment in which a wheel is installed.
struct Environment {
    python: PathBuf,
    minor: u32,
}

/// Installs the wheel `simdino` without an index into an empty environment of each Python, and runs
/// the tests: those that need NumPy or torch where these are.
///
/// # Errors
/// A test that fails, or no Python.
pub fn check_library(
    workspace: &Workspace,
    wheel: &Path,
    reference: &Path,
    folder: &Path,
) -> Result<()> {
    let pythons = pythons(workspace);
    if pythons.is_empty() {
        return failed(format!("no Python from 3.{OLDEST} on is here to try the wheel with"));
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
        println!("wheels: no Python here has torch {TORCH}, so the losses were not tried");
    }
    Ok(())
}

/// Installs the wheel `simdino-cli` beside a torch, where it must train, and beside none.
///
/// # Errors
/// What does not work there.
pub fn check_program(workspace: &Workspace, wheel: &Path, folder: &Path) -> Result<()> {
    let pythons = pythons(workspace);
    let torch = torch_site(workspace);
    let chosen = torch.as_ref().map(|(minor, _)| *minor);
    let Some((&minor, python)) =
        pythons.iter().find(|(minor, _)| chosen.is_none_or(|of| of == **minor))
    else {
        return failed("no Python is here to try simdino-cli with");
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
    // The build for CPUs alone.
    write(&site.join("torch/version.py"), &format!("__version__ = '{TORCH}+cpu'\n"))?;
    environment.refuses(workspace, &program, "--force-reinstall")?;
    fs::remove_dir_all(site.join("torch")).context(|| "cannot remove a folder".into())?;
    let Some((_, torch)) = torch else {
        println!("wheels: no Python here has torch {TORCH}, so simdino-cli was not started");
        return Ok(());
    };
    // As pip lays them out, torch beside simdino_cli; and then in another folder, as `--user` does.
    let link = site.join("torch");
    std::os::unix::fs::symlink(torch.join("torch"), &link)
        .context(|| "cannot make a link".into())?;
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

    /// Its Python, without what the user's variables would add.
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

    /// Nothing but the wheel: what it depends on is not needed to install it.
    fn install(&self, workspace: &Workspace, wheel: &Path) -> Result<()> {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let mut command = self.command(workspace);
        command.args(pip).args(["--no-index", "--no-deps"]).arg(wheel);
        process::run(&mut command)
    }

    /// NumPy from the wheelhouse, which is filled where there is an index.
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

    /// Where its packages are.
    fn site(&self, workspace: &Workspace) -> Result<PathBuf> {
        site_of(workspace, &self.python)
    }

    /// Makes the packages of another folder importable, after its own.
    fn add_folder(&self, workspace: &Workspace, folder: &Path) -> Result<()> {
        let path = self.site(workspace)?.join("others.pth");
        write(&path, &format!("{}\n", folder.display()))
    }

    /// The program must lead from a folder of images to a backbone and a report, from a folder that
    /// holds nothing else.
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
            Some(file) => failed(format!("simdino train of the wheel has made no {file}")),
        }
    }

    /// The program must fail with one sentence that holds `says`.
    fn refuses(&self, workspace: &Workspace, program: &Path, says: &str) -> Result<()> {
        let mut command = self.bare(workspace, program);
        let output = command.arg("--version").output();
        let output = output.context(|| format!("cannot start {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(1) && said.lines().count() == 1 && said.contains(says) {
            return Ok(());
        }
        failed(format!(
            "simdino of Python 3.{} should fail with 1 and say '{says}', and said {said:?} ({})",
            self.minor, output.status
        ))
    }
}

/// Folder of the packages of a Python.
fn site_of(workspace: &Workspace, python: &Path) -> Result<PathBuf> {
    let script = "import sysconfig; print(sysconfig.get_path('platlib'))";
    match process::probe(workspace.command(python).args(["-c", script])) {
        Some(folder) => Ok(folder.into()),
        None => failed(format!("{} does not say where its packages are", python.display())),
    }
}

/// Minor version and folder of the packages of the Python that has torch.
fn torch_site(workspace: &Workspace) -> Option<(u32, PathBuf)> {
    let python = setup::python_with_torch(workspace)?;
    let minor = process::probe(workspace.command(&python).args(["-c", VERSION]))?.parse().ok()?;
    let script = "import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))";
    let site = process::probe(workspace.command(&python).args(["-c", script]))?;
    Some((minor, site.into()))
}

/// One Python of each minor version, with venv: those on PATH, and those that pyenv has installed.
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
