//! The output of `simdino inspect`.

use serde_json::Value;

/// What was found: the same as text and as JSON.
pub(super) struct Findings {
    pub(super) text: String,
    pub(super) json: Value,
}
