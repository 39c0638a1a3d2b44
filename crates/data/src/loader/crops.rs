//! The pixels of a batch, in memory that the caller of the loader provides.

/// N crops of one size, stored consecutively, with C values per pixel. `P` is the type of the
/// memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crops<P = Vec<u8>> {
    /// Bytes in `[N, S, S, C]` order.
    pub pixels: P,
    /// `[N, S, S, C]`.
    pub shape: [usize; 4],
}

impl<P: AsRef<[u8]>> Crops<P> {
    /// Returns the bytes of one crop, `[S, S, C]`; empty if `number` is out of range.
    pub fn crop(&self, number: usize) -> &[u8] {
        let bytes = self.shape[1..].iter().product::<usize>().max(1);
        self.pixels.as_ref().chunks_exact(bytes).nth(number).unwrap_or_default()
    }
}

impl<P: AsMut<[u8]>> Crops<P> {
    /// Splits the memory into the crops of each of `rows` images. Crops are stored view by view:
    /// image i owns crops i, rows + i, 2 * rows + i, ...
    pub(super) fn by_row(&mut self, rows: usize) -> Vec<Vec<&mut [u8]>> {
        let bytes = self.shape[1..].iter().product::<usize>().max(1);
        let mut split: Vec<Vec<&mut [u8]>> = (0..rows).map(|_| Vec::new()).collect();
        for (number, crop) in self.pixels.as_mut().chunks_exact_mut(bytes).enumerate() {
            split[number % rows].push(crop);
        }
        split
    }
}
