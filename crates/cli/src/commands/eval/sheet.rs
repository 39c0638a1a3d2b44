//! The picture of an evaluation: the images, and below them the rows of each measured network.

use std::path::Path;

use eval::pictures::Row;

use crate::commands::picture::out::save_sheet;
use crate::failure::Result;

/// The rows of the picture so far.
#[derive(Default)]
pub struct Sheet {
    rows: Vec<Row>,
}

impl Sheet {
    /// Adds the rows of a network below those that all networks share, and writes the file, so that
    /// it exists even if a later network fails. `shared` is called for the first network only.
    ///
    /// # Errors
    /// Returns an error if `shared` fails or the file cannot be written.
    pub fn add(
        &mut self,
        file: &Path,
        shared: impl FnOnce() -> Result<Vec<Row>>,
        rows: impl IntoIterator<Item = Row>,
    ) -> Result<()> {
        if self.rows.is_empty() {
            self.rows = shared()?;
        }
        self.rows.extend(rows);
        save_sheet(&self.rows, file)
    }
}
