//! WebDataset shards: images and labels in tar or tar.gz files.

mod archive;
mod blocks;
mod index;
mod members;
mod pack;
mod samples;
mod scan;
mod sparse;

use std::path::Path;

use rayon::prelude::*;

use self::blocks::HEADER_BYTES;
pub use self::index::write_index;
use self::members::{Member, Members};
pub use self::pack::{PackOptions, PackReport, pack};
use super::find::{SHARDS, together};
use super::labels::Labels;
use super::notices::Notices;
use super::{Payload, Source, digest};
use crate::config::DataConfig;
use crate::error::{Error, Result};
use crate::storage::{Blob, SpoolLimits, read_error};

/// The images of one or more shards, in the order of shard names and members.
///
/// A plain tar file is read in place with random access. With an index next to it ([`pack`],
/// [`write_index`]), it opens immediately, and every image is compared with its entry. A compressed
/// file allows no random access, so its images are decompressed when it is opened, and kept in
/// memory or, beyond a limit, in a temporary file.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    /// Index of each shard's first image.
    starts: Vec<usize>,
    len: usize,
    labels: Labels,
    notices: Notices,
}

#[derive(Debug)]
struct Shard {
    /// File name, for messages.
    name: String,
    members: Members,
    /// Where the images' bytes are: the shard itself, or its decompressed contents.
    body: Box<dyn Blob>,
}

impl Shards {
    /// Opens one shard, all shards directly in a folder, or those that match a pattern with `*` in
    /// the last part of the path or with braces (`{00..99}`). Shards may be on this machine or,
    /// with the feature `remote`, behind a URL (`https://`, `s3://`, `gs://`, `az://`). The members
    /// of all shards are listed in parallel.
    ///
    /// # Errors
    /// Returns an error if nothing matches; if a shard cannot be read, is truncated, or has
    /// changed since it was indexed; if there is no space to decompress it; or if there are no
    /// images.
    pub fn open(config: &DataConfig) -> Result<Self> {
        let path = Path::new(config.path_text());
        let (files, notices) = SHARDS.open(config)?;
        let count = files.len();
        let limits =
            SpoolLimits::new(config.shard_cache_gb, config.spill_dir.as_deref().map(Path::new));
        let open = |file| open_shard(file, &limits);
        let opened: Vec<Result<Shard>> =
            together(config, || files.into_par_iter().map(open).collect())?;
        let shards = opened.into_iter().collect::<Result<_>>()?;
        let joined = Self::join(shards, notices);
        if joined.len == 0 {
            let also = joined.notices.sentences().into_iter().next();
            let also = also.map(|also| format!(": {also}")).unwrap_or_default();
            let problem = format!("no image files in its {count} shard(s){also}");
            return Err(Error::Path { path: path.into(), problem });
        }
        Ok(joined)
    }

    /// Combines the images of all shards into one sequence.
    fn join(mut shards: Vec<Shard>, mut notices: Notices) -> Self {
        let (mut starts, mut len, mut texts) = (Vec::new(), 0, Vec::new());
        for shard in &mut shards {
            texts.append(&mut std::mem::take(&mut shard.members.labels));
            let met = std::mem::take(&mut shard.members.notices);
            notices.append(&format!("{}/", shard.name), met);
            starts.push(len);
            len += shard.members.len();
        }
        Self { shards, starts, len, labels: Labels::from_texts(&texts), notices }
    }

    /// Returns the shard of image `index`, its position in that shard, and its member.
    fn find(&self, index: usize) -> Option<(&Shard, usize, &Member)> {
        // An empty shard starts at the same index as the next one, so the last of several equal
        // starts is the right one.
        let shard = self.starts.partition_point(|&start| start <= index).checked_sub(1)?;
        let place = index - self.starts[shard];
        let member = self.shards[shard].members.get(place)?;
        Some((&self.shards[shard], place, member))
    }
}

/// Lists the members of a shard, from the index next to it or from the shard itself.
fn open_shard(body: Box<dyn Blob>, limits: &SpoolLimits) -> Result<Shard> {
    let name = body.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    if scan::is_gzip(body.as_ref())? {
        let (members, body) = scan::compressed(body.as_ref(), limits)?;
        return Ok(Shard { name, members, body });
    }
    let members = match index::load(body.as_ref())? {
        Some(members) => members,
        None => scan::plain(body.as_ref())?,
    };
    Ok(Shard { name, members, body })
}

impl Shard {
    /// Returns the bytes of a member, or an error if they no longer match what was listed.
    fn load(&self, place: usize, member: &Member) -> Result<Vec<u8>> {
        let path = self.body.path();
        let io = |source| read_error(path, source);
        let Some(header) = member.header else {
            let mut bytes = vec![0; member.size as usize];
            self.body.read_at(member.offset, &mut bytes).map_err(io)?;
            return self.whole(place, bytes);
        };
        // Header and content are read together, because a remote shard then needs a single request.
        let mut bytes = vec![0; HEADER_BYTES + member.size as usize];
        self.body.read_at(member.offset - HEADER_BYTES as u64, &mut bytes).map_err(io)?;
        let same = crc32fast::hash(&bytes[..HEADER_BYTES]) == header
            && member.content.is_none_or(|crc| crc == crc32fast::hash(&bytes[HEADER_BYTES..]));
        if !same {
            let problem = format!("the content of {} differs", self.members.name(place));
            return Err(Error::ShardChanged { path: path.into(), problem });
        }
        bytes.drain(..HEADER_BYTES);
        self.whole(place, bytes)
    }

    /// Assembles a member from its stored bytes.
    fn whole(&self, place: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let Some(sparse) = self.members.sparse(place) else { return Ok(bytes) };
        let problem = || "a sparse file with missing pieces".to_owned();
        let path = self.body.path();
        sparse.expand(&bytes).ok_or_else(|| Error::Path { path: path.into(), problem: problem() })
    }
}

impl Source for Shards {
    fn kind(&self) -> &'static str {
        "shards"
    }

    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, index: usize) -> String {
        let Some((shard, place, _)) = self.find(index) else { return String::new() };
        format!("{}/{}", shard.name, shard.members.name(place))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.labels.get(index).copied().flatten()
    }

    fn class_names(&self) -> &[String] {
        &self.labels.names
    }

    fn load(&self, index: usize) -> Result<Payload> {
        let (shard, place, member) =
            self.find(index).ok_or(Error::Index { index, len: self.len })?;
        shard.load(place, member).map(Payload::Encoded)
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    fn fingerprint(&self) -> String {
        let members = self.shards.iter().flat_map(|shard| shard.members.iter());
        let sizes = members.map(|(_, member)| member.size).enumerate();
        digest(sizes.map(|(i, size)| (self.name(i), self.label(i), size)))
    }
}
