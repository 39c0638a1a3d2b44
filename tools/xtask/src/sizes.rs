//! Checks that source files have at most 400 lines, or are listed in [`LONGER`] with a reason. The
//! limit for functions is in `clippy.toml`.

use std::path::Path;

use crate::fail::{Result, failed};
use crate::files;
use crate::workspace::Workspace;

/// Maximum number of lines of a file.
const MOST: usize = 400;

/// Extensions of the files that are checked.
const EXTENSIONS: [&str; 7] = ["rs", "py", "sh", "cpp", "h", "cu", "cuh"];

/// Files that may be longer, and why.
const LONGER: [(&str, &str); 1] =
    [("tools/parity/foreign.py", "one list of the cases of one table of fixtures")];

/// Checks all files.
///
/// # Errors
/// Returns an error that lists every file that is too long, and every exception that is no longer
/// needed.
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut lengths = Vec::new();
    for path in files::ours(workspace.root())?.iter().filter(|path| is_source(path)) {
        let name = path.strip_prefix(workspace.root()).unwrap_or(path);
        lengths.push((name.display().to_string(), files::read(path)?.lines().count()));
    }
    let found = problems(&lengths);
    if found.is_empty() {
        return Ok(());
    }
    failed(format!(
        "source files may have at most {MOST} lines, unless tools/xtask/src/sizes.rs gives a \
         reason:\n  {}",
        found.join("\n  ")
    ))
}

fn is_source(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| EXTENSIONS.contains(&ending))
}

/// Returns a sentence for each file that is too long, and for each exception without a long file.
fn problems(lengths: &[(String, usize)]) -> Vec<String> {
    let excepted = |name: &str| LONGER.iter().any(|(longer, _)| *longer == name);
    let long = |name: &str| lengths.iter().any(|(other, lines)| other == name && *lines > MOST);
    let too_long = lengths.iter().filter(|(name, lines)| *lines > MOST && !excepted(name));
    let needless = LONGER.iter().filter(|(name, _)| !long(name));
    too_long
        .map(|(name, lines)| format!("{name} has {lines} lines: split it by concept"))
        .chain(needless.map(|(name, _)| format!("{name} needs no exception")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_need_a_reason_and_reasons_a_long_file() {
        let mut lengths: Vec<_> = LONGER.map(|(name, _)| (name.to_owned(), MOST + 1)).into();
        lengths.push(("crates/a/src/lib.rs".to_owned(), MOST));
        assert_eq!(problems(&lengths), Vec::<String>::new());
        lengths[0].1 = MOST;
        lengths.push(("crates/a/src/b.rs".to_owned(), MOST + 1));
        let found = problems(&lengths);
        assert!(found[0].starts_with("crates/a/src/b.rs has 401 lines"), "{found:?}");
        assert!(found[1].starts_with(LONGER[0].0) && found.len() == 2, "{found:?}");
    }
}
