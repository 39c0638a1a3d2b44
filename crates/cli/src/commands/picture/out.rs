//! The destination of a picture.

use std::path::Path;

use crate::failure::{Failure, Result};

/// Fails unless the file is to be a PNG.
pub(super) fn png(out: &Path) -> Result<()> {
    if out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return Ok(());
    }
    Err(Failure::usage(format!("--out: must end in .png (got {})", out.display())))
}
