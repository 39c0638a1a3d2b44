//! Lists the contents of a WebDataset shard by reading the shard itself.
//!
//! The extension of a member, after the first dot of its name, determines its meaning: `.jpg` (or
//! another image extension) is the image, `.cls` is its class as text, and `.json` is an object
//! with a `label`. Everything else is counted.

use std::io::{self, BufReader, Read};
use std::path::Path;

use decode::MAX_IMAGE_BYTES;
use flate2::bufread::MultiGzDecoder;

use super::super::is_image;
use super::super::labels::of_json;
use super::archive::{Entry, Kind};
use super::blocks::{Archive, Leap};
use super::members::{Member, Members};
use super::samples::{Content, LabelText, Place, Samples, split, target};
use crate::error::{Error, Result};
use crate::storage::{Blob, Cursor, Spool, SpoolError, SpoolLimits, failure_in, read_error};

/// Maximum size of a `.cls` or `.json` member, in bytes; larger ones are not read.
const MAX_LABEL_BYTES: u64 = 1 << 20;

/// Returns whether the shard is compressed.
///
/// # Errors
/// Returns an error if the shard cannot be read.
pub(super) fn is_gzip(shard: &dyn Blob) -> Result<bool> {
    let mut magic = [0; 2]; // read directly, because a cursor would fetch a whole block
    if shard.len() >= magic.len() as u64 {
        shard.read_at(0, &mut magic).map_err(|source| read_error(shard.path(), source))?;
    }
    Ok(magic == [0x1F, 0x8B])
}

/// Lists the images of an uncompressed shard.
///
/// # Errors
/// Returns an error if the shard cannot be read, is not a tar file, or is truncated.
pub(super) fn plain(shard: &dyn Blob) -> Result<Members> {
    let mut scan = Scan { path: shard.path(), spool: None, samples: Samples::default() };
    scan.run(&mut Archive::new(Cursor::new(shard)))?;
    Ok(scan.samples.finish())
}

/// Lists the images of a gzip-compressed shard, and decompresses them to a blob with random access.
///
/// # Errors
/// Returns an error if the shard cannot be read, is not a tar file, or is truncated, or if there is
/// no space for its images.
pub(super) fn compressed(
    shard: &dyn Blob,
    limits: &SpoolLimits,
) -> Result<(Members, Box<dyn Blob>)> {
    let mut archive = Archive::new(MultiGzDecoder::new(BufReader::new(Cursor::new(shard))));
    let mut spool = Spool::new(shard.path(), limits);
    let samples = Samples::default();
    let mut scan = Scan { path: shard.path(), spool: Some(&mut spool), samples };
    scan.run(&mut archive)?;
    // Read everything after the last member, because the gzip checksum is verified only at the end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| scan.broken(e))?;
    Ok((scan.samples.finish(), spool.finish()?))
}

/// A scan of a shard, with the members found so far.
struct Scan<'a, 'b> {
    path: &'a Path,
    /// Receives a copy of the images' bytes, if present.
    spool: Option<&'b mut Spool<'a>>,
    samples: Samples,
}

impl Scan<'_, '_> {
    fn broken(&self, source: io::Error) -> Error {
        match failure_in(&source) {
            Some(failure) => failure.into(),
            None => Error::Shard { path: self.path.into(), source },
        }
    }

    fn run<R: Leap>(&mut self, archive: &mut Archive<R>) -> Result<()> {
        while let Some(entry) = archive.next().map_err(|e| self.broken(e))? {
            if entry.kind == Kind::Folder {
                continue;
            }
            let base = entry.name.rsplit('/').next().unwrap_or_default();
            if base.starts_with('.') {
                self.samples.notices.hide(base);
                continue;
            }
            self.samples.meet(&entry.name);
            if is_image(Path::new(&entry.name)) {
                self.image(entry, archive)?;
            } else if is_label(&entry.name) {
                self.label(entry, archive)?;
            } else {
                self.samples.notices.leave_out(&entry.name);
            }
        }
        Ok(())
    }

    fn image<R: Leap>(&mut self, entry: Entry, archive: &mut Archive<R>) -> Result<()> {
        let content = match link(&entry) {
            Some(Ok(link)) => link,
            Some(Err(why)) => {
                self.samples.notices.lost.push(entry.name, why);
                return Ok(());
            }
            None if entry.size > MAX_IMAGE_BYTES => {
                let why = format!("{} MiB, too large for an image", entry.size >> 20);
                self.samples.notices.lost.push(entry.name, why);
                return Ok(());
            }
            None => Content::Own(self.place(&entry, archive)?),
        };
        self.samples.image(entry.name, content);
        Ok(())
    }

    fn label<R: Leap>(&mut self, entry: Entry, archive: &mut Archive<R>) -> Result<()> {
        let content = match link(&entry) {
            Some(Ok(link)) => link,
            Some(Err(why)) => Content::Own(Err(why)),
            None if entry.size > MAX_LABEL_BYTES || entry.sparse.is_some() => {
                Content::Own(Err(format!("{} bytes, too large for a label", entry.size)))
            }
            None => {
                let mut text = Vec::new();
                archive.read_to_end(&mut text).map_err(|e| self.broken(e))?;
                if text.len() as u64 != entry.size {
                    return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
                }
                Content::Own(label_of(&text, split(&entry.name).1))
            }
        };
        self.samples.label(entry.name, content);
        Ok(())
    }

    /// Returns where an image's bytes are in the shard, or in the spool to which they were copied.
    fn place<R: Leap>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<Place> {
        let (offset, size) = (entry.offset, entry.size);
        let sparse = entry.sparse.clone();
        let Some(spool) = &mut self.spool else {
            let member = Member { offset, size, header: Some(entry.header), content: None };
            return Ok((member, sparse));
        };
        let offset = spool.add(archive, size).map_err(|error| match error {
            SpoolError::Read(source) => self.broken(source),
            SpoolError::Write(error) => error,
        })?;
        Ok((Member { offset, size, header: None, content: None }, sparse))
    }
}

/// Returns the target of a member that has no content of its own, or the reason why it has no
/// target; `None` for other members.
fn link<T>(entry: &Entry) -> Option<std::result::Result<Content<T>, String>> {
    match &entry.kind {
        Kind::File | Kind::Folder => None,
        Kind::HardLink(to) => Some(Ok(Content::Before(to.clone()))),
        Kind::SymLink(to) => Some(match target(&entry.name, to) {
            Some(target) => Ok(Content::Anywhere(target)),
            None => Err(format!("a link to {to}, outside of this shard")),
        }),
        Kind::Other(what) => Some(Err((*what).to_owned())),
    }
}

/// Returns whether a member with this name contains a label.
fn is_label(name: &str) -> bool {
    let extension = split(name).1;
    ["cls", "json"].iter().any(|label| extension.eq_ignore_ascii_case(label))
}

/// Returns the label in a `.cls` or `.json` member, or `None` for a JSON document without a
/// `label`.
fn label_of(text: &[u8], extension: &str) -> LabelText {
    let Ok(text) = std::str::from_utf8(text) else { return Err("not valid UTF-8".into()) };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("empty".into());
    }
    if trimmed.starts_with('\u{feff}') {
        return Err("it begins with a byte order mark".into());
    }
    if extension.eq_ignore_ascii_case("cls") {
        return match trimmed.contains(char::is_control) {
            true => Err("more than one line of text".into()),
            false => Ok(Some(trimmed.to_owned())),
        };
    }
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not a JSON document: {error}"))?;
    value.get("label").map_or(Ok(None), of_json)
}

#[cfg(test)]
mod tests {
    use super::label_of;

    #[test]
    fn a_label_is_read_or_says_why_not() {
        let json = |text: &str| label_of(text.as_bytes(), "json");
        let some = |label: &str| Ok(Some(label.to_owned()));
        assert_eq!(label_of(b" 3\n", "cls"), some("3"));
        assert_eq!(label_of("chaud-froid \u{e9}".as_bytes(), "cls"), some("chaud-froid \u{e9}"));
        assert_eq!(json(r#"{"label": 3.0}"#), some("3"));
        assert_eq!(json(r#"{"label": "3"}"#), some("3"));
        assert_eq!(json(r#"{"label": null}"#), Ok(None));
        for text in ["{}", "[1]", "7", r#"{"Label": 1}"#] {
            assert_eq!(json(text), Ok(None), "{text}");
        }
        for bad in
            [&b""[..], b" \n", b"\xe9t\xe9", b"\xef\xbb\xbf3", b"3\n4", b"3\0", b"\xff\xfe3\0"]
        {
            assert!(label_of(bad, "cls").is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "{",
            r#"{"label": 1, "s": NaN}"#,
            r#"{"label": Infinity}"#,
            "\u{feff}{\"label\": 1}",
            r#"{"label": "\ud800"}"#,
            r#"{"label": 1} x"#,
            r#"{"label": 1.5}"#,
            r#"{"label": [1]}"#,
        ] {
            assert!(json(bad).is_err(), "{bad:?}");
        }
    }
}
