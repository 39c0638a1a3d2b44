//! Blocks of rows.

use tch::Tensor;

/// Splits rows into blocks of at most `size`, each with the index of its first row.
pub(crate) fn blocks(rows: &Tensor, size: i64) -> impl Iterator<Item = (i64, Tensor)> {
    let total = rows.size()[0];
    let starts = (0..total).step_by(size.max(1) as usize);
    starts.map(move |start| (start, rows.narrow(0, start, size.min(total - start))))
}
