//! Where a run begins.

/// The step that a run begins or continues from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// Number of steps done.
    pub step: u64,
    /// Whether what the probes measure after that step is missing, because the run was asked to
    /// stop. It is then measured first.
    pub probes_missing: bool,
}
