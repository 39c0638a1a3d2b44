//! Lists checkpoints, and removes or sets aside those that a run no longer needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::write_atomic;

/// The file that names the newest checkpoint.
pub(super) const LATEST: &str = "latest";

/// Returns the name of the checkpoint after `step` steps.
pub fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

/// Lists the complete checkpoints in `dir` with their steps, oldest first.
///
/// One that a save was about to replace when the program was killed is listed under its temporary
/// name, unless there is another one of its step.
///
/// # Errors
/// Returns an error if the folder exists and cannot be read.
pub fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let (mut found, mut replaced) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list the folder"))? {
        let path = entry.map_err(Error::io(dir, "list the folder"))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = step_of(name) {
            found.insert(step, path);
        } else if let Some(step) =
            name.strip_prefix('.').and_then(|name| step_of(name.strip_suffix(".replaced")?))
        {
            replaced.push((step, path));
        }
    }
    for (step, path) in replaced {
        found.entry(step).or_insert(path);
    }
    Ok(found.into_iter().collect())
}

/// Returns the step in the name of a checkpoint.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

/// Moves any checkpoints in `dir` after `step` to a new folder in it, which is returned; `latest`
/// then names the checkpoint of `step`, or is removed if that is not in `dir`.
///
/// A run that continues from an older checkpoint repeats the later steps. Without this, the old
/// checkpoints of these steps would count as newer than those that it is about to write.
///
/// # Errors
/// Returns an error if the folder cannot be read or written.
pub fn set_aside_after(dir: &Path, step: u64) -> Result<Option<PathBuf>> {
    let mut later = list(dir)?;
    later.retain(|&(at, _)| at > step);
    if later.is_empty() {
        return Ok(None);
    }
    // This precedes the moves, so that `latest` never names a checkpoint that is not there.
    let latest = dir.join(LATEST);
    if dir.join(name_of(step)).is_dir() {
        write_atomic(&latest, name_of(step).as_bytes())?;
    } else if latest.exists() {
        fs::remove_file(&latest).map_err(Error::io(&latest, "remove the file"))?;
    }
    let name = |number: u32| dir.join(format!("set-aside-{number}"));
    let aside = (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
    fs::create_dir(&aside).map_err(Error::io(&aside, "create the folder"))?;
    for (_, path) in later {
        let to = aside.join(path.file_name().unwrap_or_default());
        fs::rename(&path, &to).map_err(Error::io(&path, "move the checkpoint"))?;
    }
    Ok(Some(aside))
}

/// Removes all but the `keep` newest checkpoints (at least one is kept), the one that a save has
/// replaced, and the remains of an interrupted save.
pub(super) fn keep_newest(dir: &Path, keep: usize) -> Result<()> {
    let checkpoints = list(dir)?;
    let surplus = checkpoints.len().saturating_sub(keep.max(1));
    for (_, path) in &checkpoints[..surplus] {
        fs::remove_dir_all(path).map_err(Error::io(path, "remove the old checkpoint"))?;
    }
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list the folder"))?.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let is_kept = checkpoints[surplus..].iter().any(|(_, kept)| *kept == path);
        let left = [".partial", ".replaced"].iter().any(|end| name.ends_with(end));
        if name.starts_with(".step-") && left && !is_kept {
            fs::remove_dir_all(&path)
                .map_err(Error::io(&path, "remove what a save has left behind"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_checkpoints_are_set_aside_and_never_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let make = |step: u64| {
            let path = dir.path().join(format!("step-{step:08}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join("state.json"), step.to_string()).unwrap();
        };
        [20, 40, 60].into_iter().for_each(make);
        assert_eq!(set_aside_after(dir.path(), 60).unwrap(), None);
        assert_eq!(set_aside_after(dir.path(), 20).unwrap(), Some(dir.path().join("set-aside-1")));
        let latest = dir.path().join(LATEST);
        assert_eq!(fs::read_to_string(&latest).unwrap(), "step-00000020");
        make(40);
        assert_eq!(set_aside_after(dir.path(), 20).unwrap(), Some(dir.path().join("set-aside-2")));
        let steps = |dir: &Path| -> Vec<u64> {
            list(dir).unwrap().into_iter().map(|(step, _)| step).collect()
        };
        assert_eq!(steps(dir.path()), [20]);
        assert_eq!(steps(&dir.path().join("set-aside-1")), [40, 60]);
        assert_eq!(steps(&dir.path().join("set-aside-2")), [40]);
        // The run continues from a checkpoint in another folder.
        set_aside_after(dir.path(), 10).unwrap();
        assert!(!latest.exists());
    }

    #[test]
    fn keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let left = [".step-00000011.partial", ".step-00000010.replaced"];
        for name in ["step-00000001", "step-00000010", "step-00000002", "x"].iter().chain(&left) {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        keep_newest(dir.path(), 2).unwrap();
        let steps: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(s, _)| s).collect();
        assert_eq!(steps, [2, 10]);
        assert!(left.iter().all(|name| !dir.path().join(name).exists()));
        assert!(dir.path().join("x").exists(), "foreign files stay");
    }

    #[test]
    fn a_checkpoint_that_was_moved_away_when_the_program_was_killed_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [".step-00000010.replaced", ".step-00000010.partial", "step-00000005"] {
            fs::create_dir(at(name)).unwrap();
        }
        let moved = (10, at(".step-00000010.replaced"));
        assert_eq!(list(dir.path()).unwrap().last(), Some(&moved));
        keep_newest(dir.path(), 1).unwrap();
        assert_eq!(list(dir.path()).unwrap(), [moved]);
        // The run writes the checkpoint again.
        fs::create_dir(at("step-00000010")).unwrap();
        keep_newest(dir.path(), 1).unwrap();
        assert_eq!(list(dir.path()).unwrap(), [(10, at("step-00000010"))]);
        assert!(!at(".step-00000010.replaced").exists());
    }
}
