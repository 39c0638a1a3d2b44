//! The table of contents of one shard.

use std::collections::BTreeMap;

use decode::MAX_IMAGE_BYTES;

use super::super::names::Names;
use super::super::notices::Notices;

/// Bytes of the header that stands before each member of a tar file.
pub(super) const HEADER_BYTES: usize = 512;

/// One image of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Where its bytes begin.
    pub(super) offset: u64,
    /// Number of bytes.
    pub(super) size: u64,
    /// CRC-32 of the block before it, its header; none where that is not kept.
    pub(super) header: Option<u32>,
    /// CRC-32 of its bytes, where an index tells it.
    pub(super) content: Option<u32>,
}

/// A file of which not all bytes are stored: what is between the pieces is zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Number of bytes of the file.
    pub(super) len: u64,
    /// Where each piece begins and how long it is; they are stored one after the other.
    pub(super) pieces: Vec<(u64, u64)>,
}

impl Sparse {
    /// Whether the pieces are in order, lie within the file and are there, of `stored` bytes; and
    /// whether the file is of a size that is read.
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

    /// The whole file, from what is stored of it.
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

/// The images of one shard, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    names: Names,
    members: Vec<Member>,
    /// Label of each image as text, where there is one.
    pub(super) labels: Vec<Option<String>>,
    /// Those that are stored in pieces, by their place.
    sparse: BTreeMap<usize, Sparse>,
    /// What else there is.
    pub(super) notices: Notices,
}

impl Members {
    pub(super) fn push(
        &mut self,
        name: &str,
        member: Member,
        label: Option<String>,
        sparse: Option<Sparse>,
    ) {
        self.sparse.extend(sparse.map(|sparse| (self.members.len(), sparse)));
        self.names.push(name);
        self.members.push(member);
        self.labels.push(label);
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Member> {
        self.members.get(index)
    }

    pub(super) fn sparse(&self, index: usize) -> Option<&Sparse> {
        self.sparse.get(&index)
    }

    pub(super) fn name(&self, index: usize) -> &str {
        self.names.get(index).unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().enumerate().map(|(index, member)| (self.name(index), member))
    }

    pub(super) fn set_content(&mut self, index: usize, crc: u32) {
        self.members[index].content = Some(crc);
    }

    /// Gives back memory that growing took too much.
    pub(super) fn shrink(&mut self) {
        self.names.shrink();
        self.members.shrink_to_fit();
    }
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
