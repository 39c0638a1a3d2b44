//! What a caller may learn while a protocol runs.

use data::loader::BrokenImage;
use eval::pictures::Row;

use crate::error::Result;

/// Receives notes, progress, and pictures of a measurement. By default, all of them are ignored: a
/// [`Record`](eval::record::Record) contains everything that the numbers depend on.
pub trait Observer {
    /// Receives a sentence for the user, such as a warning.
    fn note(&self, _sentence: &str) {}

    /// Receives the images of a set that could not be read and are left out. `set` is empty if the
    /// names are full paths.
    fn skipped(&self, _set: &str, _images: &[BrokenImage]) {}

    /// Receives the progress of a task of `total` parts. `task` names the parts and what is done
    /// with them, such as `test images embedded`. A task starts with 0 parts and ends with all of
    /// them, even if an error ends it.
    fn progress(&self, _task: &'static str, _done: usize, _total: usize) {}

    /// Receives a row of a picture. `shared` creates the rows above those of all networks: the
    /// images, and what is true. Only protocols that were asked for a picture call this.
    fn draw(&self, _shared: &dyn Fn() -> Result<Vec<Row>>, _row: Row) {}
}

/// An [`Observer`] that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Counts the parts of a task.
pub(crate) struct Counter<'a> {
    observer: &'a dyn Observer,
    task: &'static str,
    done: usize,
    total: usize,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(observer: &'a dyn Observer, task: &'static str, total: usize) -> Self {
        observer.progress(task, 0, total);
        Self { observer, task, done: 0, total }
    }

    /// Adds a part that is done.
    pub(crate) fn add(&mut self) {
        self.set(self.done + 1);
    }

    /// Sets the number of parts that are done.
    pub(crate) fn set(&mut self, done: usize) {
        self.done = done;
        self.observer.progress(self.task, done, self.total.max(done));
    }

    /// Sets the number of parts that are done, and that of all parts.
    pub(crate) fn set_of(&mut self, done: usize, total: usize) {
        self.total = total;
        self.set(done);
    }

    /// Ends the task, even if fewer parts were done than expected.
    pub(crate) fn finish(self) {}
}

impl Drop for Counter<'_> {
    fn drop(&mut self) {
        self.observer.progress(self.task, self.total, self.total);
    }
}
