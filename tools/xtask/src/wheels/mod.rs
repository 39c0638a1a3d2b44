//! `cargo xtask wheels`: builds the Python packages. `simdino` contains the loader and the losses,
//! for any torch; `simdino-cli` contains the program, which runs with the torch in its environment.

mod environments;
mod found;
pub mod library;
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use self::library::Glibc;
use crate::fail::{Context, Result, failed, usage};
use crate::files::make_folder;
use crate::simdino::Simdino;
use crate::workspace::Workspace;
use crate::{process, setup, simdino};

const OUT: &str = "dist";
/// Maximum size of the wheel `simdino`, in bytes.
const MOST_BYTES: u64 = 3 << 20;

/// The parsed arguments.
#[derive(Debug, PartialEq)]
struct Request {
    /// A program that is already built.
    program: Option<PathBuf>,
    glibc: Glibc,
    out: String,
}

/// Builds both wheels in the given folder, by default `dist`, and prints their sizes.
///
/// # Errors
/// Returns an error if an option is invalid, a build fails, or a tool is missing.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let request = parse(arguments)?;
    let out = workspace.path(request.out);
    let library = library::make(workspace, &out, request.glibc)?;
    let program = match request.program {
        Some(program) => program,
        None => {
            setup::run(workspace)?;
            Simdino::build(workspace)?.path().to_owned()
        }
    };
    for wheel in [library, program::make(workspace, &program, &out)?] {
        println!("wheels: {} ({} bytes)", wheel.display(), size(&wheel)?);
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Request> {
    let mut request = Request { program: None, glibc: Glibc::Here, out: OUT.to_owned() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--program" => match words.next() {
                Some(program) => request.program = Some(program.into()),
                None => return usage("--program needs a file"),
            },
            "--old-glibc" => request.glibc = Glibc::Old,
            folder if !folder.starts_with('-') => request.out = folder.to_owned(),
            other => {
                return usage(format!(
                    "wheels: expected --program FILE, --old-glibc, or one folder, got '{other}'"
                ));
            }
        }
    }
    Ok(request)
}

/// Builds the wheels in a temporary folder, installs them into new environments of every installed
/// Python, and runs the tests of the package there.
///
/// # Errors
/// Returns an error that describes what does not work.
pub fn test(workspace: &Workspace) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("simdino-wheels-{}", std::process::id()));
    make_folder(&folder)?;
    let tested = check(workspace, &folder);
    let removed =
        fs::remove_dir_all(&folder).context(|| format!("cannot remove {}", folder.display()));
    tested.and(removed)
}

fn check(workspace: &Workspace, folder: &Path) -> Result<()> {
    if let Err(fail) = library::maturin(workspace) {
        println!("wheels: skipped, because maturin cannot be installed: {fail}");
        return Ok(());
    }
    let wheel = library::make(workspace, &folder.join("dist"), Glibc::Here)?;
    let bytes = size(&wheel)?;
    if bytes > MOST_BYTES {
        return failed(format!(
            "{} has {bytes} bytes, more than the limit of {MOST_BYTES}",
            wheel.display()
        ));
    }
    let reference = folder.join("reference");
    process::run(workspace.command(reference_writer(workspace)?).arg(&reference))?;
    environments::check_library(workspace, &wheel, &reference, folder)?;
    let simdino = Simdino::build(workspace)?;
    let wheel = program::make(workspace, simdino.path(), &folder.join("dist"))?;
    environments::check_program(workspace, &wheel, folder)
}

/// Builds the program that writes the batches that the loader must produce, and returns its path.
/// It is built from the same crates as the wheel.
fn reference_writer(workspace: &Workspace) -> Result<PathBuf> {
    const NAME: &str = "reference_batches";
    let mut program = None;
    let mut cargo = workspace.cargo(&["build", "--package", "simdino-py", "--example", NAME]);
    process::each_line(cargo.arg("--message-format=json-render-diagnostics"), |line| {
        program = program.take().or_else(|| simdino::executable(line, NAME));
    })?;
    match program {
        Some(program) => Ok(program),
        None => failed(format!("cargo built {NAME} but did not report its path")),
    }
}

fn size(wheel: &Path) -> Result<u64> {
    let metadata = fs::metadata(wheel).context(|| format!("cannot read {}", wheel.display()))?;
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            parse(&words)
        };
        let request = |program: Option<&str>, glibc, out: &str| Request {
            program: program.map(PathBuf::from),
            glibc,
            out: out.to_owned(),
        };
        assert_eq!(parse("").unwrap(), request(None, Glibc::Here, "dist"));
        let all = parse("--old-glibc --program simdino there").unwrap();
        assert_eq!(all, request(Some("simdino"), Glibc::Old, "there"));
        for wrong in ["--program", "--zig", "--old-glibc=2.17"] {
            assert_eq!(parse(wrong).unwrap_err().code(), 2, "{wrong}");
        }
    }
}
