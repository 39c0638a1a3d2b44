//! Scans of rows in libtorch's threads.

use std::sync::{Mutex, PoisonError};

use torch_ext::in_parallel;

use crate::error::Result;

/// Number of rows that a thread takes at once.
const PIECE: usize = 32;

/// Calls `work` for each of `rows` and its `width` values of `[rows, width]`.
///
/// # Errors
/// Returns an error if libtorch cannot begin.
pub(super) fn each_row<R: Send, T: Sync>(
    rows: &mut [R],
    values: &[T],
    width: usize,
    work: impl Fn(&mut R, &[T]) + Sync,
) -> Result<()> {
    if width == 0 {
        return Ok(());
    }
    // A thread locks the pieces that are its own, so it never waits.
    let pieces = rows.chunks_mut(PIECE).zip(values.chunks(PIECE * width));
    let pieces: Vec<_> = pieces.map(Mutex::new).collect();
    in_parallel(pieces.len(), |i| {
        let mut piece = pieces[i].lock().unwrap_or_else(PoisonError::into_inner);
        let (rows, values) = &mut *piece;
        rows.iter_mut().zip(values.chunks_exact(width)).for_each(|(row, values)| work(row, values));
    })?;
    Ok(())
}
