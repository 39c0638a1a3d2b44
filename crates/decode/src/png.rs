//! Checks on which the PNG decoder relies, and the orientation of PNG files.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use crate::orientation::{self, Metadata};

const SIGNATURE_BYTES: usize = 8;
/// Maximum size of a compressed text after decompression, in bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Returns whether each palette before the image data consists of complete colors of three bytes.
/// The standard requires this, and the decoder panics otherwise.
pub(super) fn has_whole_palette(bytes: &[u8]) -> bool {
    let mut position = SIGNATURE_BYTES;
    // A chunk consists of its length, its name, that many bytes, and a checksum.
    while let Some(head) = bytes.get(position..position.saturating_add(8)) {
        let length = head.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        match &head[4..] {
            b"PLTE" if length % 3 != 0 => return false,
            b"IDAT" => return true,
            _ => position = position.saturating_add(length).saturating_add(12),
        }
    }
    true
}

/// Returns the orientation from the Exif chunk, or else from an Exif block in a text chunk, as
/// ImageMagick writes it, or else from the XMP packet. If one of these occurs several times, the
/// last one counts.
pub(super) fn orientation(bytes: &[u8]) -> Orientation {
    let (mut exif, mut profile, mut xmp) = (None, None, None);
    let mut position = SIGNATURE_BYTES;
    while let Some(head) = bytes.get(position..position.saturating_add(8)) {
        let length = head.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        let start = position + 8;
        let Some(content) = bytes.get(start..start.saturating_add(length)) else { break };
        match &head[4..] {
            b"eXIf" => exif = Some(content.to_vec()),
            name @ (b"tEXt" | b"zTXt" | b"iTXt") => match text(name, content) {
                Some((b"Raw profile type exif", text)) => profile = Some(text),
                Some((b"XML:com.adobe.xmp", text)) => xmp = Some(text),
                _ => {}
            },
            b"IEND" => break,
            _ => {}
        }
        position = start.saturating_add(length).saturating_add(4);
    }
    let exif = exif.or_else(|| profile.as_deref().and_then(of_profile));
    orientation::of(&Metadata { exif: exif.as_deref(), xmp: xmp.as_deref() })
}

/// Returns the name and the content of a text chunk, or `None` if it is damaged.
fn text<'a>(chunk: &[u8], content: &'a [u8]) -> Option<(&'a [u8], Vec<u8>)> {
    let until_zero = |bytes: &'a [u8]| {
        let end = memchr::memchr(0, bytes)?;
        Some((&bytes[..end], &bytes[end + 1..]))
    };
    let (name, rest) = until_zero(content)?;
    let (compressed, text) = match (chunk, rest) {
        (b"tEXt", text) => (false, text),
        (b"zTXt", [0, text @ ..]) => (true, text),
        (b"iTXt", [compressed, method, rest @ ..]) if *compressed == 0 || *method == 0 => {
            let (_language, rest) = until_zero(rest)?;
            let (_translated, text) = until_zero(rest)?;
            (*compressed != 0, text)
        }
        _ => return None,
    };
    if !compressed {
        return Some((name, text.to_vec()));
    }
    let mut inflated = Vec::new();
    ZlibDecoder::new(text).take(MAX_TEXT_BYTES).read_to_end(&mut inflated).ok()?;
    Some((name, inflated))
}

/// Decodes a profile that is stored as text: an empty line, its name, its length, and hexadecimal
/// digits.
fn of_profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').skip(3).flatten();
    let digits: Vec<u8> = lines
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|&byte| char::from(byte).to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::{has_whole_palette, of_profile, text};

    #[test]
    fn texts_are_read_in_all_their_forms() {
        let found = |name, content: &[u8]| text(name, content).map(|(_, text)| text);
        assert_eq!(found(b"tEXt", b"key\0value"), Some(b"value".to_vec()));
        assert_eq!(found(b"iTXt", b"key\0\0\0en\0\0value"), Some(b"value".to_vec()));
        assert_eq!(found(b"iTXt", b"key\0\0\0en"), None);
        assert_eq!(found(b"zTXt", b"key\0\0not compressed"), None);
        assert_eq!(found(b"tEXt", b"no key"), None);
        assert_eq!(of_profile(b"\nexif\n  3\n0aF\nf 01\n"), Some(vec![0x0A, 0xFF, 1]));
        assert_eq!(of_profile(b"\nexif\n  3\nno"), None);
    }

    fn file(chunks: &[(&[u8; 4], u32)]) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        for &(name, length) in chunks {
            bytes.extend(length.to_be_bytes());
            bytes.extend(name);
            bytes.extend(vec![7; length as usize + 4]);
        }
        bytes
    }

    #[test]
    fn a_palette_of_parts_of_colors_is_found() {
        assert!(has_whole_palette(&file(&[(b"IHDR", 13), (b"PLTE", 6), (b"IDAT", 4)])));
        assert!(!has_whole_palette(&file(&[(b"IHDR", 13), (b"tEXt", 5), (b"PLTE", 112)])));
        assert!(!has_whole_palette(&file(&[(b"PLTE", 3), (b"PLTE", 4), (b"IDAT", 4)])));
        let behind = file(&[(b"IDAT", 4), (b"PLTE", 4)]);
        assert!(has_whole_palette(&behind), "what is behind the image data is not read");
        let whole = file(&[(b"IHDR", 13), (b"PLTE", 6)]);
        assert!((0..whole.len()).all(|end| has_whole_palette(&whole[..end])));
    }
}
