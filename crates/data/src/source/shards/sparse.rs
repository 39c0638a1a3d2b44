//! Sparse files in archives: GNU tar's old format, and the three formats that use extended headers.

use std::io;

use decode::MAX_IMAGE_BYTES;
use tar::Header;

use super::blocks::{Archive, BLOCK, Before, Leap, MAX_EXTENDED, number};

/// A file of which only some pieces are stored; the bytes between these are zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Size of the file in bytes.
    pub(super) len: u64,
    /// Offset and length of each piece in the file. The pieces are stored consecutively.
    pub(super) pieces: Vec<(u64, u64)>,
}

impl Sparse {
    /// Returns whether the pieces are in order, inside the file, and contained in `stored` bytes,
    /// and whether the file is not larger than images may be.
    pub(super) fn fits(&self, stored: u64) -> bool {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for &(offset, length) in &self.pieces {
            if offset < end {
                return false;
            }
            (end, sum) = (offset.saturating_add(length), sum.saturating_add(length));
        }
        end <= self.len && sum <= stored && self.len <= MAX_IMAGE_BYTES
    }

    /// Assembles the whole file from its stored bytes. Returns `None` if these are too few.
    pub(super) fn expand(&self, stored: &[u8]) -> Option<Vec<u8>> {
        let mut whole = vec![0; usize::try_from(self.len).ok()?];
        let mut rest = stored;
        for &(offset, length) in &self.pieces {
            let (piece, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            let offset = usize::try_from(offset).ok()?;
            whole.get_mut(offset..offset.checked_add(piece.len())?)?.copy_from_slice(piece);
            rest = behind;
        }
        Some(whole)
    }
}

/// The number of stored bytes, and their places in the file.
type Stored = (u64, Sparse);

impl<R: Leap> Archive<R> {
    /// Returns how a sparse file is stored. The outer value is `None` for other files, and the
    /// inner one if the map is invalid. If the map precedes the content, it is read; the content
    /// itself remains to be read or skipped.
    pub(super) fn sparse(
        &mut self,
        header: &Header,
        size: u64,
        before: &Before,
    ) -> io::Result<Option<Option<Stored>>> {
        let field = |key: &str| before.fields.get(key).and_then(|value| number(value));
        let len = field("GNU.sparse.realsize").or_else(|| field("GNU.sparse.size"));
        if let (b'S', Some(gnu)) = (header.entry_type().as_byte(), header.as_gnu()) {
            let (numbers, real) = (self.old_map(gnu)?, gnu.real_size());
            return Ok(Some(numbers.zip(real.ok()).and_then(|(n, len)| whole(size, len, &n))));
        }
        if field("GNU.sparse.major") == Some(1) {
            (self.left, self.padding) = (0, 0);
            let (numbers, bytes) = self.map_before(size)?;
            let stored = size.saturating_sub(bytes);
            self.begin(stored);
            return Ok(Some(len.and_then(|len| whole(stored, len, &numbers?))));
        }
        let numbers: Option<Vec<u64>> = match before.fields.get("GNU.sparse.map") {
            Some(map) => map.split(|&byte| byte == b',').map(number).collect(),
            None if before.pieces.is_empty() => return Ok(None),
            None => Some(before.pieces.clone()),
        };
        Ok(Some(numbers.zip(len).and_then(|(numbers, len)| whole(size, len, &numbers))))
    }

    /// Reads the map in a header of GNU tar's old format and in the blocks after it.
    fn old_map(&mut self, gnu: &tar::GnuHeader) -> io::Result<Option<Vec<u64>>> {
        let mut numbers = Vec::new();
        let mut good = true;
        let mut take = |pieces: &[tar::GnuSparseHeader]| {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                match (piece.offset(), piece.length()) {
                    (Ok(offset), Ok(length)) => numbers.extend([offset, length]),
                    _ => good = false,
                }
            }
        };
        take(&gnu.sparse);
        let mut goes_on = gnu.is_extended();
        let mut extension = tar::GnuExtSparseHeader::new();
        while goes_on {
            let block = self.block()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            extension.as_mut_bytes().copy_from_slice(&block);
            take(extension.sparse());
            goes_on = extension.is_extended();
        }
        Ok(good.then_some(numbers))
    }

    /// Reads the map before the content, which has one decimal number per line. Also returns the
    /// size of the map in bytes.
    fn map_before(&mut self, size: u64) -> io::Result<(Option<Vec<u64>>, u64)> {
        let (mut text, mut bytes) = (Vec::new(), 0);
        while bytes < size.min(MAX_EXTENDED) {
            let block = self.block()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes += BLOCK;
            text.extend_from_slice(&block);
            let lines = text.split(|&byte| byte == b'\n');
            let complete = text.iter().filter(|&&byte| byte == b'\n').count();
            let numbers: Option<Vec<u64>> = lines.clone().take(1).map(number).collect();
            let count = numbers.and_then(|n| n.first().copied()).and_then(|n| n.checked_mul(2));
            let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
                return Ok((None, bytes));
            };
            if complete > count {
                return Ok((lines.skip(1).take(count).map(number).collect(), bytes));
            }
        }
        Ok((None, bytes))
    }
}

/// Converts alternating offsets and lengths to the pieces of a file of `len` bytes, of which
/// `stored` are present. Returns `None` if these do not fit.
fn whole(stored: u64, len: u64, numbers: &[u64]) -> Option<Stored> {
    let pieces: Vec<(u64, u64)> =
        numbers.as_chunks::<2>().0.iter().map(|&[offset, length]| (offset, length)).collect();
    let sparse = Sparse { len, pieces };
    (numbers.len().is_multiple_of(2) && sparse.fits(stored)).then_some((stored, sparse))
}

#[cfg(test)]
mod tests {
    use super::Sparse;

    #[test]
    fn pieces_are_put_in_their_places() {
        let sparse = |len, pieces: &[(u64, u64)]| Sparse { len, pieces: pieces.to_vec() };
        let file = sparse(7, &[(1, 2), (4, 1), (7, 0)]);
        assert!(file.fits(3) && !file.fits(2));
        assert_eq!(file.expand(b"abc"), Some(b"\0ab\0c\0\0".to_vec()));
        assert_eq!(file.expand(b"ab"), None);
        for bad in [sparse(2, &[(1, 2)]), sparse(9, &[(4, 1), (4, 1)]), sparse(u64::MAX, &[])] {
            assert!(!bad.fits(9), "{bad:?}");
        }
        assert!(!sparse(9, &[(u64::MAX, 2)]).fits(9));
    }
}
