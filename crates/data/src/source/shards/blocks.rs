//! Reads the blocks of a tar archive in order, and the extension headers before a member.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use tar::Header;

/// Size of the header of each member of a tar file, in bytes.
pub(super) const HEADER_BYTES: usize = 512;
/// Size of a block, in bytes. Everything in an archive consists of whole blocks.
pub(super) const BLOCK: u64 = HEADER_BYTES as u64;
/// Maximum size of an extended header or a long name, in bytes.
pub(super) const MAX_EXTENDED: u64 = 8 << 20;

/// A stream that can skip bytes.
pub(super) trait Leap: Read {
    /// Skips `count` bytes, or fewer if the stream ends earlier.
    fn leap(&mut self, count: u64) -> io::Result<()>;
}

impl Leap for crate::storage::Cursor<'_> {
    fn leap(&mut self, count: u64) -> io::Result<()> {
        let to = i64::try_from(count).map_err(|_| invalid("a size"))?;
        self.seek(SeekFrom::Current(to)).map(|_| ())
    }
}

impl<R: io::BufRead> Leap for flate2::bufread::MultiGzDecoder<R> {
    fn leap(&mut self, count: u64) -> io::Result<()> {
        io::copy(&mut self.take(count), &mut io::sink()).map(|_| ())
    }
}

type Block = [u8; HEADER_BYTES];

/// An archive that is read from front to back.
pub(super) struct Archive<R> {
    reader: R,
    /// Number of bytes read or skipped.
    pub(super) position: u64,
    /// Number of bytes of the current member that have not been read, and of the `padding` after
    /// them.
    pub(super) left: u64,
    pub(super) padding: u64,
    /// CRC-32 of the most recently read block.
    pub(super) last: u32,
    /// A header that was read ahead.
    ahead: Option<Block>,
    /// Fields of global headers.
    pub(super) global: Fields,
}

/// Fields of extended headers, by their keys.
pub(super) type Fields = BTreeMap<String, Vec<u8>>;

/// The contents of the extension headers before a header, which describe the same member.
#[derive(Default)]
pub(super) struct Before {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) fields: Fields,
    /// Offsets and lengths of the pieces of a sparse file, from fields that may occur many times.
    pub(super) pieces: Vec<u64>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} that is not valid"))
}

impl<R: Leap> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        let (left, padding, last) = (0, 0, 0);
        Self { reader, position: 0, left, padding, last, ahead: None, global: Fields::new() }
    }

    /// Returns the underlying stream.
    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// Skips the rest of the current member.
    pub(super) fn pass(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        if rest > 0 {
            self.reader.leap(rest)?;
            self.position = self.position.saturating_add(rest);
        }
        Ok(())
    }

    /// Reads the next block. Returns `None` at the end of the stream, even if that is within a
    /// block.
    pub(super) fn block(&mut self) -> io::Result<Option<Block>> {
        let (mut block, mut filled) = ([0; HEADER_BYTES], 0);
        while filled < block.len() {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) => return Ok(None),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK;
        self.last = crc32fast::hash(&block);
        Ok(Some(block))
    }

    /// Reads the next header. A block of zeros ends an archive. What follows it may be another
    /// archive, or something that is not a header, which is ignored.
    pub(super) fn next_header(&mut self) -> io::Result<Option<Block>> {
        let mut ended = false;
        loop {
            let block = match self.ahead.take() {
                Some(block) => Some(block),
                None => self.block()?,
            };
            match block {
                None if ended => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(block) if is_zero(&block) => ended = true,
                Some(block) if is_header(&block) => return Ok(Some(block)),
                Some(_) if ended => return Ok(None),
                Some(_) => return Err(invalid("a header")),
            }
        }
    }

    /// Reads the whole content of a member that describes another member.
    pub(super) fn content(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENDED {
            return Err(invalid("an extended header"));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Starts a member whose content is the next `size` bytes.
    pub(super) fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK).saturating_sub(size);
    }

    /// Skips the content of a member that may have none. For links, some programs write the size of
    /// the target into the header, but no content.
    pub(super) fn pass_content(&mut self, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        match self.block()? {
            None => {}
            Some(block) if is_zero(&block) || is_header(&block) => self.ahead = Some(block),
            Some(_) => self.left = size.next_multiple_of(BLOCK).saturating_sub(BLOCK),
        }
        Ok(())
    }
}

impl<R: Read> Read for Archive<R> {
    /// Reads bytes of the current member.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.left.min(buffer.len() as u64) as usize;
        let count = self.reader.read(&mut buffer[..most])?;
        self.left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Returns whether the checksum of a header is correct. Some old programs add up signed bytes.
fn is_header(block: &Block) -> bool {
    let Ok(expected) = Header::from_byte_slice(block).cksum() else { return false };
    let bytes = block.iter().enumerate();
    let bytes = bytes.map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    let (unsigned, signed) = bytes.fold((0_u32, 0_i64), |(unsigned, signed), byte| {
        (unsigned + u32::from(byte), signed + i64::from(byte as i8))
    });
    expected == unsigned || i64::from(expected) == signed
}

pub(super) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
