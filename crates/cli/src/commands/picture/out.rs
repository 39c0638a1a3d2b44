//! The destination of a picture.

use std::path::Path;

use eval::pictures::{Row, lay_out, wrapped};

use crate::failure::{Failure, Result};
use crate::train::pictures::save;

/// Most cells side by side.
const COLUMNS: usize = 8;

/// Fails unless the file is to be a PNG.
pub(super) fn png(out: &Path) -> Result<()> {
    if has_extension(out, "png") {
        return Ok(());
    }
    Err(Failure::usage(format!("--out: must end in .png (got {})", out.display())))
}

/// Whether a file has this extension, in any case.
pub(super) fn has_extension(out: &Path, wanted: &str) -> bool {
    out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

/// Writes rows as one picture, in blocks of a few columns.
pub(in crate::commands) fn save_sheet(rows: &[Row], out: &Path) -> Result<()> {
    save(&lay_out(&wrapped(rows, COLUMNS)), out)
}
