//! The version that setup installs, and the location.

/// Version of libtorch that tch is pinned to.
pub const TORCH: &str = "2.11.0";

/// Folder of the Python environment, relative to the root.
pub const VENV: &str = ".venv";

/// Python of that environment.
pub const VENV_PYTHON: &str = ".venv/bin/python";
