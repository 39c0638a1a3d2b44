//! The files that a run writes about itself before its first step.

use trainer::files::{write_atomic, write_json};

use super::distributed::DistributedContext;
use super::environment;
use super::run_dir::RunDir;
use crate::config::{Loaded, to_yaml};
use crate::failure::Result;

/// Writes `config.resolved.yaml`, `env.json`, and, last, `config.yaml`, which marks the folder as
/// that of a run.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write(
    dir: &RunDir,
    loaded: &Loaded,
    distributed: &DistributedContext,
    fingerprint: &str,
) -> Result<()> {
    let resolved = to_yaml(&loaded.config)?;
    write_atomic(&dir.file("config.resolved.yaml"), resolved.as_bytes())?;
    let environment = environment::describe(&loaded.config, distributed, fingerprint);
    write_json(&dir.file("env.json"), &environment)?;
    write_atomic(&dir.file("config.yaml"), loaded.text.as_bytes())?;
    Ok(())
}
