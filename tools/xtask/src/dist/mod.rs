//! `cargo xtask dist`: one archive with the program, which runs on another machine on the torch of its
//! Python.

mod elf;
mod licenses;
mod unpacked;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use self::elf::Needs;
use crate::fail::{Context, Result, failed, usage};
use crate::setup::{self, TORCH};
use crate::simdino::Simdino;
use crate::workspace::{LIBTORCH_LINK, Workspace};
use crate::{gpu_bundle, process};

const OUT: &str = "dist";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LAUNCHER: &str = include_str!("simdino.sh");
const INSTALL: &str = include_str!("INSTALL.txt");
/// Files that are copied as they are.
const FILES: [&str; 4] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md"];
/// Shells, and what their files of completions are called.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "simdino.bash"), ("zsh", "_simdino"), ("fish", "simdino.fish")];

/// Makes the archive in the folder that is named, or in `dist`, and says what it needs.
///
/// # Errors
/// A wrong option, a build that fails, a tool that is missing, or no room.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let out = match arguments {
        [] => OUT,
        [out] if !out.starts_with('-') => out,
        _ => return usage(format!("dist takes one folder, not '{}'", arguments.join(" "))),
    };
    setup::run(workspace)?;
    let archive = make(workspace, &workspace.path(out))?;
    println!("dist: {} with its .sha256", archive.path.display());
    println!("dist: it needs {}", archive.needs.symbols.join(", "));
    println!("dist: of torch it needs {}", of_torch(workspace, &archive.needs).join(", "));
    Ok(())
}

/// Makes an archive in a temporary folder, unpacks it, and uses what is inside.
///
/// # Errors
/// What does not work there.
pub fn test(workspace: &Workspace) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("simdino-dist-{}", std::process::id()));
    let tested = make(workspace, &folder)
        .and_then(|archive| unpacked::check(workspace, &archive.path, &folder.join("un packed")));
    fs::remove_dir_all(&folder).context(|| format!("cannot remove {}", folder.display()))?;
    tested
}

/// An archive that was made.
#[derive(Debug)]
struct Archive {
    path: PathBuf,
    needs: Needs,
}

/// Name of the archive, and of the one folder in it.
fn name(target: &str) -> String {
    format!("simdino-{VERSION}-{target}")
}

fn make(workspace: &Workspace, out: &Path) -> Result<Archive> {
    let simdino = Simdino::build(workspace)?;
    let target = target(workspace)?;
    let name = name(&target);
    let folder = out.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).context(|| format!("cannot empty {}", folder.display()))?;
    }
    for part in ["bin", "libexec", "completions", "recipes"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).context(|| format!("cannot make {}", part.display()))?;
    }
    let program = folder.join("libexec/simdino");
    gpu_bundle::strip(workspace, simdino.path(), &program)?;
    let needs = elf::needs(workspace, &program)?;
    fill(workspace, &simdino, &folder)?;
    let libraries = of_torch(workspace, &needs);
    let text = |template: &str| filled(template, &target, &needs, &libraries);
    write(&folder.join("bin/simdino"), &text(LAUNCHER))?;
    write(&folder.join("INSTALL.txt"), &text(INSTALL))?;
    executable(&folder.join("bin/simdino"))?;
    let path = pack(workspace, out, &name)?;
    fs::remove_dir_all(&folder).context(|| format!("cannot remove {}", folder.display()))?;
    Ok(Archive { path, needs })
}

/// The platform that cargo builds for, such as `x86_64-unknown-linux-gnu`.
fn target(workspace: &Workspace) -> Result<String> {
    let said = process::probe(workspace.command("rustc").arg("-vV")).unwrap_or_default();
    match said.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(target) => Ok(target.to_owned()),
        None => failed("`rustc -vV` does not say which platform it builds for"),
    }
}

/// What a program needs that is among the libraries of torch.
fn of_torch(workspace: &Workspace, needs: &Needs) -> Vec<String> {
    let lib = workspace.path(LIBTORCH_LINK).join("lib");
    needs.libraries.iter().filter(|name| lib.join(name).exists()).cloned().collect()
}

/// All files but those that are made of what the program needs.
fn fill(workspace: &Workspace, simdino: &Simdino, folder: &Path) -> Result<()> {
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
    write(&folder.join("THIRD-PARTY.txt"), &licenses::third_party(workspace)?)
}

/// A template with its words.
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

/// Packs the folder `name` in `out`: the same files at the same commit give the same archive.
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
    write(&out.join(format!("{name}.tar.gz.sha256")), &format!("{line}\n"))?;
    Ok(path)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .context(|| format!("cannot copy {} to {}", from.display(), to.display()))
        .map(drop)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}

fn executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .context(|| format!("cannot make {} executable", path.display()))
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
            // The shell's own.
            assert!(left.iter().all(|line| line.contains("\"$@\"")), "{left:?}");
        }
        let launcher = filled(LAUNCHER, "", &needs, torch);
        assert!(launcher.contains("\n    2.11.*) ;;\n"), "{launcher}");
        assert!(launcher.contains("\nfor name in libtorch_cpu.so; do\n"), "{launcher}");
        let install = filled(INSTALL, "", &needs, torch);
        assert!(install.contains("\n      GLIBC_2.34\n      GLIBCXX_3.4.30\n"), "{install}");
    }
}
