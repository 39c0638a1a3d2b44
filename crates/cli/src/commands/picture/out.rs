//! The output file of a picture.

use std::path::Path;

use eval::pictures::{Row, lay_out, wrapped};

use crate::failure::{Failure, Result};
use crate::train::pictures::save;

/// Maximum number of cells side by side.
const COLUMNS: usize = 8;

/// Checks that the output file has the extension `.png`.
pub(super) fn png(out: &Path) -> Result<()> {
    if has_extension(out, "png") {
        return Ok(());
    }
    Err(Failure::usage(format!("--out: must end in .png (got {})", out.display())))
}

/// Returns whether a file has this extension, ignoring ASCII case.
pub(super) fn has_extension(out: &Path, wanted: &str) -> bool {
    out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

/// Writes rows as one picture, wrapped into blocks of at most [`COLUMNS`] columns.
pub(in crate::commands) fn save_sheet(rows: &[Row], out: &Path) -> Result<()> {
    save(&lay_out(&wrapped(rows, COLUMNS)), out)
}
