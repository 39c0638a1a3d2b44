//! The contents of the archive, and how it is packed.

use std::fs;
use std::path::{Path, PathBuf};

use super::elf::{self, Needs};
use super::licenses;
use crate::fail::{Context, Result, failed};
use crate::files::{copy, make_executable, make_folder, strip, write};
use crate::process;
use crate::setup::TORCH;
use crate::simdino::Simdino;
use crate::workspace::{LIBTORCH_LINK, Workspace};

/// Version of the release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
const LAUNCHER: &str = include_str!("simdino.sh");
const INSTALL: &str = include_str!("INSTALL.txt");
/// Files that are copied unchanged.
pub const FILES: [&str; 4] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md"];
/// Shells, and the names of their completion files.
pub const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "simdino.bash"), ("zsh", "_simdino"), ("fish", "simdino.fish")];

/// A finished archive.
#[derive(Debug)]
pub struct Archive {
    /// Path of the archive. Its checksum is in the same folder.
    pub path: PathBuf,
    /// Requirements of its program.
    pub needs: Needs,
}

/// Returns the name of the archive, which is also that of the single folder in it.
fn name(target: &str) -> String {
    format!("simdino-{VERSION}-{target}")
}

/// Builds the program, and packs it with everything that belongs to it, in `out`.
///
/// # Errors
/// Returns an error if the build fails, a tool is missing, or a file cannot be written.
pub fn make(workspace: &Workspace, out: &Path) -> Result<Archive> {
    let simdino = Simdino::build(workspace)?;
    let target = target(workspace)?;
    // A separate folder, so that existing files do not interfere.
    let staging = out.join(format!(".making-{}", std::process::id()));
    let made = make_in(workspace, &simdino, &target, &staging).and_then(|made| {
        let path = out.join(made.path.file_name().unwrap_or_default());
        for (from, to) in [(&made.path, &path), (&sum_of(&made.path), &sum_of(&path))] {
            fs::rename(from, to).context(|| format!("cannot write {}", to.display()))?;
        }
        Ok(Archive { path, ..made })
    });
    let _ = fs::remove_dir_all(&staging); // an earlier error matters more
    made
}

fn make_in(
    workspace: &Workspace,
    simdino: &Simdino,
    target: &str,
    staging: &Path,
) -> Result<Archive> {
    let name = name(target);
    let folder = staging.join(&name);
    for part in ["bin", "libexec", "completions", "recipes"] {
        make_folder(&folder.join(part))?;
    }
    let program = folder.join("libexec/simdino");
    strip(workspace, simdino.path(), &program)?;
    let needs = elf::needs(workspace, &program)?;
    let libraries = of_torch(workspace, &needs);
    if libraries.is_empty() {
        return failed(format!("no library that simdino needs is in {LIBTORCH_LINK}/lib"));
    }
    fill(workspace, simdino, target, &folder)?;
    let text = |template: &str| filled(template, target, &needs, &libraries);
    write(&folder.join("bin/simdino"), &text(LAUNCHER))?;
    write(&folder.join("INSTALL.txt"), &text(INSTALL))?;
    make_executable(&folder.join("bin/simdino"))?;
    let path = pack(workspace, staging, &name)?;
    Ok(Archive { path, needs })
}

/// Returns the path of an archive's checksum.
fn sum_of(archive: &Path) -> PathBuf {
    let mut name = archive.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// Returns the platform that cargo builds for, such as `x86_64-unknown-linux-gnu`.
///
/// # Errors
/// Returns an error if rustc does not report it.
pub fn target(workspace: &Workspace) -> Result<String> {
    let said = process::probe(workspace.command("rustc").arg("-vV")).unwrap_or_default();
    match said.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(target) => Ok(target.to_owned()),
        None => failed("`rustc -vV` does not print its host platform"),
    }
}

/// Returns the libraries of torch that a program needs.
pub fn of_torch(workspace: &Workspace, needs: &Needs) -> Vec<String> {
    let lib = workspace.path(LIBTORCH_LINK).join("lib");
    needs.libraries.iter().filter(|name| lib.join(name).exists()).cloned().collect()
}

/// Writes all files except those that depend on the program's requirements.
fn fill(workspace: &Workspace, simdino: &Simdino, target: &str, folder: &Path) -> Result<()> {
    for file in FILES {
        copy(&workspace.path(file), &folder.join(file))?;
    }
    let configs = workspace.path("configs");
    let entries =
        fs::read_dir(&configs).context(|| format!("cannot read {}", configs.display()))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        copy(&path, &folder.join("recipes").join(path.file_name().unwrap_or_default()))?;
    }
    for (shell, file) in COMPLETIONS {
        let mut command = simdino.completions(shell);
        let Some(script) = process::probe(&mut command) else {
            return failed(format!("`{}` failed", process::shown(&command)));
        };
        write(&folder.join("completions").join(file), &format!("{script}\n"))?;
    }
    write(&folder.join("THIRD-PARTY.txt"), &licenses::third_party(workspace, target, "trainer")?)
}

/// Fills in the placeholders of a template.
fn filled(template: &str, target: &str, needs: &Needs, libraries: &[String]) -> String {
    let symbols: Vec<_> = needs.symbols.iter().map(|symbol| format!("      {symbol}")).collect();
    let minor = TORCH.rsplit_once('.').map_or(TORCH, |(minor, _)| minor);
    [
        ("@VERSION@", VERSION),
        ("@TARGET@", target),
        ("@TORCH@", TORCH),
        ("@MINOR@", minor),
        ("@SYMBOLS@", &symbols.join("\n")),
        ("@LIBRARIES@", &libraries.join(" ")),
    ]
    .iter()
    .fold(template.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// Packs the folder `name` in `out`. The same files at the same commit give the same archive.
fn pack(workspace: &Workspace, out: &Path, name: &str) -> Result<PathBuf> {
    let commit = process::probe(workspace.command("git").args(["log", "-1", "--format=%ct"]));
    let time = commit.filter(|time| !time.is_empty()).unwrap_or_else(|| "0".to_owned());
    let path = out.join(format!("{name}.tar.gz"));
    let mut tar = workspace.command("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+w,go-w,a+rX"]);
    tar.arg(format!("--mtime=@{time}")).args(["--use-compress-program", "gzip -n", "-cf"]);
    process::run(tar.arg(&path).arg("-C").arg(out).arg(name))?;
    let file = path.file_name().unwrap_or_default();
    let mut sum = workspace.command("sha256sum");
    let Some(line) = process::probe(sum.arg(file).current_dir(out)) else {
        return failed(format!("`{}` failed", process::shown(&sum)));
    };
    write(&sum_of(&path), &format!("{line}\n"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_template_is_left() {
        let needs = Needs {
            libraries: vec!["libc.so.6".into(), "libtorch_cpu.so".into()],
            symbols: vec!["GLIBC_2.34".into(), "GLIBCXX_3.4.30".into()],
        };
        let torch = &needs.libraries[1..];
        for template in [LAUNCHER, INSTALL] {
            let text = filled(template, "x86_64-unknown-linux-gnu", &needs, torch);
            let left: Vec<_> = text.lines().filter(|line| line.contains('@')).collect();
            // The only remaining ones are the shell's own.
            assert!(left.iter().all(|line| line.contains("\"$@\"")), "{left:?}");
        }
        let launcher = filled(LAUNCHER, "", &needs, torch);
        assert!(launcher.contains("\n    2.11.*) ;;\n"), "{launcher}");
        assert!(launcher.contains("\nfor name in libtorch_cpu.so; do\n"), "{launcher}");
        let install = filled(INSTALL, "", &needs, torch);
        assert!(install.contains("\n      GLIBC_2.34\n      GLIBCXX_3.4.30\n"), "{install}");
    }
}
