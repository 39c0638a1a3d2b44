//! The picture of an evaluation: the images, and below them the rows of each measured network.

use std::path::Path;

use eval::pictures::Row;

use crate::commands::picture::out::save_sheet;
use crate::console::note;
use crate::failure::{Failure, Result};

use super::networks::writable;

/// The rows of the picture so far.
#[derive(Default)]
pub struct Sheet {
    rows: Vec<Row>,
}

impl Sheet {
    /// Creates an empty picture, after checking that `file` can be written if there is one.
    ///
    /// # Errors
    /// Returns an error that names the file if its folder is not writable.
    pub fn new(file: Option<&Path>) -> Result<Self> {
        if let Some(file) = file {
            // Its folder is created if there is none.
            writable(file.parent().unwrap_or(Path::new(""))).map_err(|error| {
                let file = file.display();
                Failure::usage(format!("--picture {file}: cannot be written ({error})"))
            })?;
        }
        Ok(Self::default())
    }

    /// Adds the rows of a network below those that all networks share, and writes the file, so that
    /// it exists even if a later network fails. `shared` is called for the first network only. A
    /// picture that cannot be drawn causes a warning, because results are worth more than it.
    pub fn add(
        &mut self,
        file: &Path,
        shared: impl FnOnce() -> Result<Vec<Row>>,
        rows: impl IntoIterator<Item = Row>,
    ) {
        if let Err(failure) = self.draw(file, shared, rows) {
            note(&format!("warning: there is no picture: {}", failure.lines().join("; ")));
        }
    }

    fn draw(
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
