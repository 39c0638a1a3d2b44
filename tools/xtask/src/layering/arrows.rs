//! The table of allowed dependencies, as docs/ARCHITECTURE.md states it.

use crate::fail::{Result, failed};
use crate::files;
use crate::workspace::Workspace;

/// The document, and the line before the table.
const DOCUMENT: &str = "docs/ARCHITECTURE.md";
const HEADING: &str = "**Allowed dependencies.**";

/// The program: the one package that prints, parses a command line, and knows YAML.
pub(super) const PROGRAM: &str = "trainer";

/// Each package with the packages of ours that it may depend on.
#[derive(Debug)]
pub(super) struct Arrows(Vec<(String, Vec<String>)>);

impl Arrows {
    /// Reads the first fenced block after the heading.
    ///
    /// # Errors
    /// When the block is not there or a line of it is not understood.
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let text = files::read(&workspace.path(DOCUMENT))?;
        let table = text.split_once(HEADING).and_then(|(_, rest)| rest.split("```").nth(1));
        match table.and_then(|block| block.split_once('\n')) {
            Some((_, lines)) => Self::parse(lines),
            None => failed(format!("{DOCUMENT} has no block of code after '{HEADING}'")),
        }
    }

    /// Parses lines of `NAME, NAME -> NAME NAME`; `all but NAME` is every crate in a line above
    /// except one.
    ///
    /// # Errors
    /// When a line has no arrow or names an unknown crate.
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

    /// What `package` may depend on; `None` if the table does not know it.
    pub(super) fn of(&self, package: &str) -> Option<&[String]> {
        self.0.iter().find(|(name, _)| name == package).map(|(_, used)| used.as_slice())
    }
}

/// The package of a crate as the document names it.
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
