//! Reads the data of a scan from one restart marker to the next.

use crate::error::{Error, Result};
use crate::markers::marker;
use crate::segment::Segments;

/// The data between restart markers.
pub(crate) struct Intervals<'a> {
    segments: Segments<'a>,
    /// Number of MCUs from one marker to the next.
    length: usize,
    /// Number of MCUs until the next marker is due.
    pub(crate) left: usize,
    /// Number of segments so far.
    count: usize,
    /// The marker after the last segment.
    marker: u8,
}

impl<'a> Intervals<'a> {
    /// Creates a reader of the bytes after the header of a scan, with `restart_interval` MCUs
    /// between markers; 0 means that there are no markers.
    pub(crate) fn new(data: &'a [u8], restart_interval: usize) -> Self {
        let length = match restart_interval {
            0 => usize::MAX,
            length => length,
        };
        Self { segments: Segments::new(data), length, left: 0, count: 0, marker: 0 }
    }

    /// Reads the next segment. The restart markers between segments must count from 0 to 7
    /// repeatedly.
    #[cold]
    #[inline(never)]
    pub(crate) fn next(&mut self, segment: &mut Vec<u8>) -> Result<()> {
        let due = |count: usize| marker::FIRST_RESTART + (count - 1) as u8 % 8;
        if self.count > 0 && self.marker != due(self.count) {
            return Err(Error::Restart);
        }
        self.marker = self.segments.next(segment)?;
        self.left = self.length;
        self.count += 1;
        Ok(())
    }

    /// Returns the error for a segment that has too little data. At the end of the image, data is
    /// missing; elsewhere, it may continue after a marker that does not belong there.
    pub(crate) fn ended_early(&self) -> Error {
        if self.marker == marker::END_OF_IMAGE { Error::Truncated } else { Error::Corrupt }
    }

    /// Returns what follows the last segment, from its marker on.
    pub(crate) fn behind(&self) -> &'a [u8] {
        self.segments.behind()
    }
}
