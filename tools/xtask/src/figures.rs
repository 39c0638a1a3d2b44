//! `cargo xtask docs-figures`: the figures of the documents, drawn by our own commands.

use crate::fail::Result;
use crate::simdino::Simdino;
use crate::workspace::Workspace;
use crate::{process, setup};

/// Figure of docs/OBJECTIVES.md.
const GRADIENT_SCALE: &str = "docs/figures/gradient-scale.svg";

/// Draws all of them.
///
/// # Errors
/// The build or a command failed.
pub fn run(workspace: &Workspace) -> Result<()> {
    setup::run(workspace)?;
    let simdino = Simdino::build(workspace)?;
    process::run(&mut simdino.analyze_gradient_scale(&workspace.path(GRADIENT_SCALE)))
}
