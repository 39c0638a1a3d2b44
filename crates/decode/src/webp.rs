//! Checks on which the WebP decoder relies, and the metadata of all WebP files, including animated
//! ones.

use std::borrow::Cow;

use crate::orientation::Metadata;

/// Size of the file header: "RIFF", the size of the rest, and "WEBP".
const HEADER_BYTES: usize = 12;

/// Returns whether every chunk ends inside the file. Before the decoder checks whether the data of
/// a metadata chunk exists, it allocates as much memory as the header states, up to 4 GB. Data
/// after the chunks is ignored.
pub(super) fn has_whole_chunks(bytes: &[u8]) -> bool {
    let length_at = |position: usize| {
        let length = bytes.get(position..)?.first_chunk()?;
        Some(u32::from_le_bytes(*length) as usize)
    };
    let last = length_at(4).unwrap_or(0).saturating_add(8);
    let mut position = HEADER_BYTES;
    // A chunk consists of its name, its length, and that many bytes, plus one if the length is odd.
    while position < last
        && let Some(length) = length_at(position + 4)
    {
        let end = (position + 8).saturating_add(length);
        if end > bytes.len() {
            return false;
        }
        position = end.next_multiple_of(2);
    }
    true
}

/// Returns the first Exif and XMP chunks. Each of these is ignored unless the header announces it.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    const EXIF: u8 = 0x08;
    const XMP: u8 = 0x04;
    let header = bytes.get(HEADER_BYTES..).and_then(<[u8]>::first_chunk::<9>);
    let Some([b'V', b'P', b'8', b'X', .., flags]) = header else { return Metadata::default() };
    let (mut metadata, mut position) = (Metadata::default(), HEADER_BYTES);
    while let Some(head) = bytes.get(position..).and_then(<[u8]>::first_chunk::<8>) {
        let [name @ .., a, b, c, d] = *head;
        let start = position + 8;
        let end = start.saturating_add(u32::from_le_bytes([a, b, c, d]) as usize);
        let Some(content) = bytes.get(start..end) else { break };
        match &name {
            b"EXIF" if flags & EXIF != 0 => metadata.exif = metadata.exif.or(Some(content)),
            b"XMP " if flags & XMP != 0 => metadata.xmp = metadata.xmp.or(Some(content)),
            _ => {}
        }
        position = end.next_multiple_of(2);
    }
    metadata
}

/// Returns the file with a first frame that is not blended with its background. There is no
/// background, so Pillow shows the colors of the frame unchanged, whereas the decoder blends them
/// with black.
pub(super) fn with_first_frame_as_it_is(bytes: &[u8]) -> Cow<'_, [u8]> {
    /// Offset of the flags in the header of a frame, one of which means "do not blend".
    const FLAGS: usize = 15;
    const NO_BLEND: u8 = 2;
    let extended = bytes.get(HEADER_BYTES..).is_some_and(|rest| rest.starts_with(b"VP8X"));
    let mut position = HEADER_BYTES;
    while extended && let Some(head) = bytes.get(position..).and_then(<[u8]>::first_chunk::<8>) {
        let [name @ .., a, b, c, d] = *head;
        let flags = position + 8 + FLAGS;
        if &name == b"ANMF" && bytes.get(flags).is_some_and(|flags| flags & NO_BLEND == 0) {
            let mut copy = bytes.to_vec();
            copy[flags] |= NO_BLEND;
            return copy.into();
        }
        if &name == b"ANMF" {
            break;
        }
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        position = (position + 8).saturating_add(length).next_multiple_of(2);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::{has_whole_chunks, metadata};

    #[test]
    fn metadata_count_where_the_header_says_so() {
        let mut bytes = b"RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0\x08\0\0\0\0\0\0\0\0\0".to_vec();
        for content in [&b"EXIF\x03\0\0\0abc\0"[..], b"XMP \x01\0\0\0x\0", b"EXIF\x01\0\0\0d\0"] {
            bytes.extend(content);
        }
        let found = metadata(&bytes);
        assert_eq!((found.exif, found.xmp), (Some(&b"abc"[..]), None));
        bytes[20] = 0x04;
        let found = metadata(&bytes);
        assert_eq!((found.exif, found.xmp), (None, Some(&b"x"[..])));
        bytes[12..16].copy_from_slice(b"VP8L");
        assert_eq!(metadata(&bytes).xmp, None);
    }

    #[test]
    fn a_chunk_that_ends_behind_the_file_is_found() {
        let mut bytes = b"RIFF\0\0\0\0WEBP".to_vec();
        for length in [5_u32, 0, 2] {
            bytes.extend(b"EXIF");
            bytes.extend(length.to_le_bytes());
            bytes.extend(vec![7; length.next_multiple_of(2) as usize]);
        }
        assert_eq!(bytes.len(), 8 + 36);
        bytes[4] = 36;
        assert!(has_whole_chunks(&bytes));
        assert!(has_whole_chunks(&[&bytes[..], &[0xFF; 20]].concat()), "not a chunk");
        assert!(!has_whole_chunks(&bytes[..bytes.len() - 1]));
        assert!(has_whole_chunks(&bytes[..25]), "the byte that fills up may be missing");
        assert!(!has_whole_chunks(&bytes[..24]));
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(!has_whole_chunks(&bytes));
        assert!(has_whole_chunks(&[]));
    }
}
