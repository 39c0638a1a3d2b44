//! Where a run begins.

/// The step that a run begins or continues from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// Number of steps completed.
    pub step: u64,
    /// Whether the measurements of the probes after that step are missing, because the run was
    /// asked to stop. They are then made first.
    pub probes_missing: bool,
}
