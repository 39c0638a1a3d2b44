//! `cargo xtask docs-figures`: draws the figures of the documents with the program itself.

use crate::fail::Result;
use crate::simdino::Simdino;
use crate::workspace::Workspace;
use crate::{process, setup};

/// A figure of docs/OBJECTIVES.md.
const GRADIENT_SCALE: &str = "docs/figures/gradient-scale.svg";

/// Draws all figures.
///
/// # Errors
/// Returns an error if the build or a command fails.
pub fn run(workspace: &Workspace) -> Result<()> {
    setup::run(workspace)?;
    let simdino = Simdino::build(workspace)?;
    process::run(&mut simdino.analyze_gradient_scale(&workspace.path(GRADIENT_SCALE)))
}
