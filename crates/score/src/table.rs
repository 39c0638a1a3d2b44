//! CSV files.

use std::path::Path;

use crate::{Error, Result};

/// Writes a header and rows to a CSV file atomically.
pub(crate) fn write(
    path: &Path,
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Result<()> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    base::write_atomic_with(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(header)?;
        for row in rows {
            writer.write_record(row)?;
        }
        writer.flush()
    })
    .map_err(failed)
}
