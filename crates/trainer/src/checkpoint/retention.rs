//! Decides which checkpoints to keep.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Lists the complete checkpoints in `dir` with their steps, oldest first.
pub fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list the folder"))? {
        let path = entry.map_err(Error::io(dir, "list the folder"))?.path();
        let step = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("step-"))
            .and_then(|digits| digits.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes all but the `keep` newest checkpoints (at least one is kept), and the remains of an
/// interrupted save.
pub(super) fn keep_newest(dir: &Path, keep: usize) -> Result<()> {
    let checkpoints = list(dir)?;
    let surplus = checkpoints.len().saturating_sub(keep.max(1));
    for (_, path) in &checkpoints[..surplus] {
        fs::remove_dir_all(path).map_err(Error::io(path, "remove the old checkpoint"))?;
    }
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list the folder"))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(".step-") && name.ends_with(".partial") {
            let path = entry.path();
            fs::remove_dir_all(&path)
                .map_err(Error::io(&path, "remove the unfinished checkpoint"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["step-00000001", "step-00000010", "step-00000002", ".step-00000011.partial", "x"]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        keep_newest(dir.path(), 2).unwrap();
        let steps: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(s, _)| s).collect();
        assert_eq!(steps, [2, 10]);
        assert!(!dir.path().join(".step-00000011.partial").exists());
        assert!(dir.path().join("x").exists(), "foreign files stay");
    }
}
