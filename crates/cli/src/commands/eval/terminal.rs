//! Shows on the terminal what happens during a measurement, and collects its picture.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use data::loader::BrokenImage;
use eval::pictures::Row;
use protocols::Observer;

use crate::console::{name_skipped, note};
use crate::failure::Result;
use crate::progress::{Progress, progress};

use super::sheet::Sheet;

/// Number of images in a picture of predictions.
pub const SHOWN: usize = 4;

/// Shows notes and progress, and writes a picture if a file for it was given.
#[derive(Default)]
pub struct Terminal {
    bar: RefCell<Option<(&'static str, Progress)>>,
    said: RefCell<BTreeSet<String>>,
    picture: Option<PathBuf>,
    sheet: RefCell<Sheet>,
}

impl Terminal {
    /// Creates a terminal, after checking that the picture can be written if there is one.
    ///
    /// # Errors
    /// Returns an error that names the file if its folder is not writable.
    pub fn new(picture: Option<&Path>) -> Result<Self> {
        let sheet = RefCell::new(Sheet::new(picture)?);
        Ok(Self { picture: picture.map(Path::to_owned), sheet, ..Self::default() })
    }
}

impl Observer for Terminal {
    fn note(&self, sentence: &str) {
        // What is said of the images is the same for each network.
        if self.said.borrow_mut().insert(sentence.to_owned()) {
            note(sentence);
        }
    }

    fn skipped(&self, set: &str, images: &[BrokenImage]) {
        name_skipped(set, images);
    }

    fn progress(&self, task: &'static str, done: usize, total: usize) {
        let mut current = self.bar.borrow_mut();
        let bar = current.take().filter(|(other, _)| *other == task);
        if done >= total {
            bar.iter().for_each(|(_, bar)| bar.finish_and_clear());
            return;
        }
        let (_, bar) = current.insert(bar.unwrap_or_else(|| (task, progress(total, task))));
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }

    fn draw(&self, shared: &dyn Fn() -> protocols::Result<Vec<Row>>, row: Row) {
        let Some(file) = &self.picture else { return };
        self.sheet.borrow_mut().add(file, || Ok(shared()?), [row]);
    }
}
