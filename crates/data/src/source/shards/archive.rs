//! Reads the members of a tar archive in order. Supports old, POSIX, and GNU headers, long names,
//! sparse files in all four forms, and archives that were concatenated with `cat`.
//!
//! This is a reader of our own because we need details that others do not expose: the position of a
//! member's bytes, the block right before them, and whether an archive was truncated.

use std::io;

use tar::Header;

use super::blocks::{Archive, Before, Leap, number};
use super::sparse::Sparse;

/// The kind of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A hard link to the member with this name.
    HardLink(String),
    /// A symbolic link to this path.
    SymLink(String),
    /// A member whose content is not available, with a description.
    Other(&'static str),
}

/// A member, whose bytes are read from the [`Archive`].
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Offset of the member's bytes in the archive, and their number as stored (`size`).
    pub(super) offset: u64,
    pub(super) size: u64,
    /// CRC-32 of the block right before the member's bytes.
    pub(super) header: u32,
    pub(super) sparse: Option<Sparse>,
}

impl<R: Leap> Archive<R> {
    /// Returns the next member, or `None` after the last one.
    ///
    /// # Errors
    /// Returns an error if the stream cannot be read, ends before the archive does, or is not an
    /// archive.
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
                        // A global name would apply to all members, so it is ignored.
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

    /// Creates the member that `header` and the extension headers `before` it describe.
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
}

fn kind(header: &Header, name: &str, before: &Before) -> Kind {
    let link = before.fields.get("linkpath").cloned().or_else(|| before.link.clone());
    let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let link = link.map(|link| String::from_utf8_lossy(&link).into_owned()).unwrap_or_default();
    match header.entry_type().as_byte() {
        0 if name.ends_with('/') => Kind::Folder, // in old archives, which have no type for folders
        b'1' => Kind::HardLink(link),
        b'2' => Kind::SymLink(link),
        b'3' | b'4' => Kind::Other("a device"),
        b'6' => Kind::Other("a pipe"),
        b'5' | b'D' => Kind::Folder,
        b'M' => Kind::Other("the continuation of a file from another volume"),
        b'V' => Kind::Folder, // a volume label, which is skipped like a folder
        b'S' if header.as_gnu().is_none() => Kind::Other("a sparse file of an unknown type"),
        byte if byte.is_ascii_uppercase() && byte != b'S' => Kind::Other("an unknown entry"),
        _ => Kind::File,
    }
}

/// Returns the size in a header. An empty field counts as 0.
fn size_of(header: &Header) -> io::Result<u64> {
    let empty = header.as_old().size.iter().all(|&byte| byte == 0 || byte == b' ');
    if empty { Ok(0) } else { header.entry_size() }
}

/// Truncates the text at its terminating NUL byte, if there is one.
fn c_text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// Returns the key and the value of the first record of an extended header, `LENGTH KEY=VALUE\n`,
/// and the remaining bytes. A value may contain anything, so only the length determines its end.
fn record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space])?).ok()?;
    let text = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let key = std::str::from_utf8(&text[..equals]).ok()?;
    Some((key, &text[equals + 1..], &bytes[length..]))
}
