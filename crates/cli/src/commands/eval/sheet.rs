//! The picture of an evaluation: images, and then rows of each network that was measured.

use std::path::Path;

use eval::pictures::Row;

use crate::commands::picture::out::save_sheet;
use crate::failure::Result;

/// Rows that grow with each network.
#[derive(Default)]
pub struct Sheet {
    rows: Vec<Row>,
}

impl Sheet {
    /// Adds the rows of a network, below those that all networks share, and writes the file, so that it is there even
    /// if a later network fails.
    ///
    /// # Errors
    /// `shared` fails, or the file cannot be written.
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
