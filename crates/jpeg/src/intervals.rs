//! The data of a scan, from one restart marker to the next.

use crate::error::{Error, Result};
use crate::markers::marker;
use crate::segment::Segments;

/// The data between restart markers.
pub(crate) struct Intervals<'a> {
    segments: Segments<'a>,
    /// MCUs from one marker to the next.
    length: usize,
    /// MCUs until the next marker is due.
    pub(crate) left: usize,
    /// Segments so far.
    count: usize,
    /// The marker behind the last segment.
    marker: u8,
}

impl<'a> Intervals<'a> {
    /// Of the bytes behind the header of a scan, with so many MCUs between markers; 0: there are no
    /// markers.
    pub(crate) fn new(data: &'a [u8], restart_interval: usize) -> Self {
        let length = match restart_interval {
            0 => usize::MAX,
            length => length,
        };
        Self { segments: Segments::new(data), length, left: 0, count: 0, marker: 0 }
    }

    /// Reads the next segment; before it, the markers count up to seven and begin again.
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

    /// What it means that the data of a segment is not enough: at the end of the image, that some is
    /// missing; elsewhere it may go on behind a marker that does not belong there.
    pub(crate) fn ended_early(&self) -> Error {
        if self.marker == marker::END_OF_IMAGE { Error::Truncated } else { Error::Corrupt }
    }

    /// What follows the last segment, from its marker on.
    pub(crate) fn behind(&self) -> &'a [u8] {
        self.segments.behind()
    }
}
