//! What set-up installs, and where.

/// The libtorch that tch is pinned to.
pub const TORCH: &str = "2.11.0";

/// The folder of the Python environment, in the root.
pub const VENV: &str = ".venv";

/// Its Python.
pub const VENV_PYTHON: &str = ".venv/bin/python";
