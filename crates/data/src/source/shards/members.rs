//! The contents of one shard.

use std::collections::BTreeMap;

use super::super::names::Names;
use super::super::notices::Notices;
use super::sparse::Sparse;

/// One image of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Offset of its bytes in the shard.
    pub(super) offset: u64,
    /// Number of stored bytes.
    pub(super) size: u64,
    /// CRC-32 of the block before it, which is its header; `None` if that is not kept.
    pub(super) header: Option<u32>,
    /// CRC-32 of its bytes, if an index states it.
    pub(super) content: Option<u32>,
}

/// The images of one shard, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    names: Names,
    members: Vec<Member>,
    /// Label of each image as text, if it has one.
    pub(super) labels: Vec<Option<String>>,
    /// Pieces of the images that are stored as sparse files, by index.
    sparse: BTreeMap<usize, Sparse>,
    /// What was found besides images.
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

    /// Frees excess capacity.
    pub(super) fn shrink(&mut self) {
        self.names.shrink();
        self.members.shrink_to_fit();
    }
}
