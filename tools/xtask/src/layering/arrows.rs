//! The table of allowed dependencies in docs/ARCHITECTURE.md.

use crate::fail::{Result, failed};
use crate::files;
use crate::workspace::Workspace;

/// The document with the table.
const DOCUMENT: &str = "docs/ARCHITECTURE.md";
/// The line before the table.
const HEADING: &str = "**Allowed dependencies.**";

/// The program, which is the only package that prints, parses a command line, and knows YAML.
pub(super) const PROGRAM: &str = "trainer";

/// Each package with the packages of this workspace that it may depend on.
#[derive(Debug)]
pub(super) struct Arrows(Vec<(String, Vec<String>)>);

impl Arrows {
    /// Reads the first fenced block after the heading.
    ///
    /// # Errors
    /// Returns an error if there is no such block or a line of it is invalid.
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let text = files::read(&workspace.path(DOCUMENT))?;
        let table = text.split_once(HEADING).and_then(|(_, rest)| rest.split("```").nth(1));
        match table.and_then(|block| block.split_once('\n')) {
            Some((_, lines)) => Self::parse(lines),
            None => failed(format!("{DOCUMENT} has no code block after '{HEADING}'")),
        }
    }

    /// Parses lines such as `NAME, NAME -> NAME NAME`. `all but NAME` stands for every crate in the
    /// lines above except one.
    ///
    /// # Errors
    /// Returns an error if a line has no arrow or names an unknown crate.
    pub(super) fn parse(table: &str) -> Result<Self> {
        let lines: Option<Vec<_>> = table.lines().map(|line| line.split_once("->")).collect();
        let Some(lines) = lines else {
            return failed(format!("a line of the table of {DOCUMENT} has no '->'"));
        };
        let mut arrows: Vec<(String, Vec<String>)> = Vec::new();
        for (users, used) in lines {
            let used = match used.trim().strip_prefix("all but ") {
                Some(out) => {
                    let names = arrows.iter().map(|(name, _)| name.clone());
                    names.filter(|name| *name != package(out)).collect()
                }
                None => used.split_whitespace().map(package).collect::<Vec<_>>(),
            };
            arrows.extend(users.split(',').map(|user| (package(user.trim()), used.clone())));
        }
        let unknown = arrows.iter().flat_map(|(_, used)| used);
        match unknown.into_iter().find(|&name| arrows.iter().all(|(known, _)| known != name)) {
            Some(name) => failed(format!("the table of {DOCUMENT} has no line for {name}")),
            None => Ok(Self(arrows)),
        }
    }

    /// Returns the packages that `package` may depend on; `None` if it is not in the table.
    pub(super) fn of(&self, package: &str) -> Option<&[String]> {
        self.0.iter().find(|(name, _)| name == package).map(|(_, used)| used.as_slice())
    }
}

/// Returns the package of a crate by its name in the document.
fn package(name: &str) -> String {
    match name {
        "the program" => PROGRAM.to_owned(),
        "simdino" | "benches" | "xtask" => name.to_owned(),
        library => format!("simdino-{library}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let arrows = Arrows::parse(
            "base ->\npy -> base\neval -> base\nthe program, benches -> all but py\nxtask ->\n",
        )
        .unwrap();
        assert_eq!(arrows.of("simdino-eval").unwrap(), ["simdino-base"]);
        assert_eq!(arrows.of("trainer").unwrap(), ["simdino-base", "simdino-eval"]);
        assert_eq!(arrows.of("benches"), arrows.of("trainer"));
        assert!(arrows.of("xtask").unwrap().is_empty());
        assert!(arrows.of("simdino-trainer").is_none());
    }

    #[test]
    fn tables_that_are_refused() {
        assert!(Arrows::parse("base: nothing\n").is_err());
        assert!(Arrows::parse("eval -> base\n").is_err());
    }
}
