//! The members of a tar archive, one after the other: old, POSIX and GNU headers, long names, sparse
//! files in all four forms, archives that were joined by `cat`.
//!
//! A reader of our own, because what is between the lines matters here: where the bytes of a member
//! lie, what stands right before them, and whether an archive that ends was cut off.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use tar::Header;

use super::members::HEADER_BYTES;
use super::sparse::Sparse;

/// Bytes of a block; everything in an archive is a number of them.
pub(super) const BLOCK: u64 = HEADER_BYTES as u64;
/// Longest extended header or long name.
pub(super) const MAX_EXTENDED: u64 = 8 << 20;

/// A stream that can leap.
pub(super) trait Leap: Read {
    /// Leaves out `count` bytes; fewer where the stream ends before.
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

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// To the member of this name.
    HardLink(String),
    /// To this path.
    SymLink(String),
    /// Something whose content cannot be had, in words.
    Other(&'static str),
}

/// A member; its bytes are read from the [`Archive`].
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Where its bytes begin, and how many are stored.
    pub(super) offset: u64,
    pub(super) size: u64,
    /// CRC-32 of the block right before its bytes.
    pub(super) header: u32,
    pub(super) sparse: Option<Sparse>,
}

type Block = [u8; HEADER_BYTES];

/// An archive that is walked through.
pub(super) struct Archive<R> {
    reader: R,
    /// Bytes passed.
    position: u64,
    /// Bytes of the member that were not read, and behind it up to the next block.
    pub(super) left: u64,
    pub(super) padding: u64,
    /// CRC-32 of the block read last.
    last: u32,
    /// A header that was read already.
    ahead: Option<Block>,
    /// Fields of global headers.
    global: Fields,
}

/// Fields of extended headers, by their keys.
pub(super) type Fields = BTreeMap<String, Vec<u8>>;

/// What stands before a header and is about its member.
#[derive(Default)]
pub(super) struct Before {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pub(super) fields: Fields,
    /// Pieces of a sparse file, from fields that may come many times.
    pub(super) pieces: Vec<u64>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} that cannot be"))
}

impl<R: Leap> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        let (left, padding, last) = (0, 0, 0);
        Self { reader, position: 0, left, padding, last, ahead: None, global: Fields::new() }
    }

    /// What the archive was read from.
    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// The next member; none behind the last.
    ///
    /// # Errors
    /// The stream cannot be read, ends before the archive does, or is none.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut before = Before::default();
        loop {
            self.pass()?;
            let Some(block) = self.next_header()? else { return Ok(None) };
            let header = Header::from_byte_slice(&block);
            let size = size_of(header)?;
            match header.entry_type().as_byte() {
                b'L' => before.name = Some(c_text(self.content(size)?)),
                b'K' => before.link = Some(c_text(self.content(size)?)),
                b'x' | b'X' => self.extended(size, &mut before)?,
                b'g' => {
                    let mut global = Before::default();
                    self.extended(size, &mut global)?;
                    self.global.extend(global.fields);
                }
                _ => {
                    let fields = self.global.iter().filter(|(key, _)| {
                        // A global name would be that of all members.
                        key.as_str() != "path" && key.as_str() != "linkpath"
                    });
                    for (key, value) in fields {
                        before.fields.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                    return self.member(header, size, before).map(Some);
                }
            }
        }
    }

    /// Leaves what is left of a member.
    fn pass(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        if rest > 0 {
            self.reader.leap(rest)?;
            self.position = self.position.saturating_add(rest);
        }
        Ok(())
    }

    /// The next block; none at the end of the stream, even within a block.
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

    /// The next header. A block of zeros ends an archive; another one may stand behind it, or
    /// something that is no header and of no account.
    fn next_header(&mut self) -> io::Result<Option<Block>> {
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

    /// The whole content of a member that is about another one.
    fn content(&mut self, size: u64) -> io::Result<Vec<u8>> {
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

    /// The next `size` bytes are a member's.
    pub(super) fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK).saturating_sub(size);
    }

    fn extended(&mut self, size: u64, before: &mut Before) -> io::Result<()> {
        let content = self.content(size)?;
        let mut rest = content.as_slice();
        while let Some((key, value, next)) = record(rest) {
            match key {
                "GNU.sparse.offset" | "GNU.sparse.numbytes" => {
                    before.pieces.push(number(value).unwrap_or(u64::MAX));
                }
                _ => {
                    before.fields.insert(key.to_owned(), value.to_vec());
                }
            }
            rest = next;
        }
        Ok(())
    }

    /// The member of a header.
    fn member(&mut self, header: &Header, size: u64, before: Before) -> io::Result<Entry> {
        let field = |key: &str| before.fields.get(key).map(Vec::as_slice);
        let size = field("size").and_then(number).unwrap_or(size);
        let sparse_name = field("GNU.sparse.name").map(<[u8]>::to_vec);
        let long_name = field("path").map(<[u8]>::to_vec).or_else(|| before.name.clone());
        let name = sparse_name.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let name = String::from_utf8_lossy(&name).into_owned();
        let kind = kind(header, &name, &before);
        let mut entry = Entry { name, kind, offset: 0, size: 0, header: 0, sparse: None };
        let is_special = matches!(header.entry_type().as_byte(), b'1'..=b'6');
        if is_special || entry.kind == Kind::Folder {
            self.pass_content(size)?;
            return Ok(entry);
        }
        self.begin(size);
        match self.sparse(header, size, &before)? {
            None => entry.size = size,
            Some(Some((stored, sparse))) => (entry.size, entry.sparse) = (stored, Some(sparse)),
            Some(None) => entry.kind = Kind::Other("a sparse file whose map is damaged"),
        }
        (entry.offset, entry.header) = (self.position, self.last);
        Ok(entry)
    }

    /// Goes past the content of a member that need not have any. Some programs write into the header
    /// how large the file is that a link leads to, and nothing behind it.
    fn pass_content(&mut self, size: u64) -> io::Result<()> {
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
    /// Reads the bytes of the member.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.left.min(buffer.len() as u64) as usize;
        let count = self.reader.read(&mut buffer[..most])?;
        self.left -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

fn kind(header: &Header, name: &str, before: &Before) -> Kind {
    let link = before.fields.get("linkpath").cloned().or_else(|| before.link.clone());
    let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let link = link.map(|link| String::from_utf8_lossy(&link).into_owned()).unwrap_or_default();
    match header.entry_type().as_byte() {
        0 if name.ends_with('/') => Kind::Folder, // as before there were types
        b'1' => Kind::HardLink(link),
        b'2' => Kind::SymLink(link),
        b'3' | b'4' => Kind::Other("a device"),
        b'6' => Kind::Other("a pipe"),
        b'5' | b'D' => Kind::Folder,
        b'M' => Kind::Other("the rest of a file from another volume"),
        b'V' => Kind::Folder, // the name of the volume
        b'S' if header.as_gnu().is_none() => Kind::Other("a sparse file of an unknown kind"),
        byte if byte.is_ascii_uppercase() && byte != b'S' => Kind::Other("of an unknown kind"),
        _ => Kind::File,
    }
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Whether the checksum is right; old programs add up signed bytes.
fn is_header(block: &Block) -> bool {
    let Ok(expected) = Header::from_byte_slice(block).cksum() else { return false };
    let bytes = block.iter().enumerate();
    let bytes = bytes.map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    let (unsigned, signed) = bytes.fold((0_u32, 0_i64), |(unsigned, signed), byte| {
        (unsigned + u32::from(byte), signed + i64::from(byte as i8))
    });
    expected == unsigned || i64::from(expected) == signed
}

/// The size in a header; an empty field is none.
fn size_of(header: &Header) -> io::Result<u64> {
    let empty = header.as_old().size.iter().all(|&byte| byte == 0 || byte == b' ');
    if empty { Ok(0) } else { header.entry_size() }
}

/// A text without the zero that ends it.
fn c_text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

pub(super) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Key and value of the first record of an extended header, `LENGTH KEY=VALUE\n`, and what is behind
/// it. A value may hold anything, so only the length tells its end.
fn record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space])?).ok()?;
    let text = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let key = std::str::from_utf8(&text[..equals]).ok()?;
    Some((key, &text[equals + 1..], &bytes[length..]))
}
