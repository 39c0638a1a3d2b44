//! What the WebP decoder takes for granted.

/// "RIFF", the size of the rest, "WEBP".
const HEADER_BYTES: usize = 12;

/// Whether every chunk ends inside the file. The decoder makes room for a chunk of metadata, of up to
/// 4 GB by what its head says, before it looks whether there is so much. What comes behind the chunks
/// is left alone.
pub(super) fn has_whole_chunks(bytes: &[u8]) -> bool {
    let length_at = |position: usize| {
        let length = bytes.get(position..)?.first_chunk()?;
        Some(u32::from_le_bytes(*length) as usize)
    };
    let last = length_at(4).unwrap_or(0).saturating_add(8);
    let mut position = HEADER_BYTES;
    // A chunk: its name, its length, and so many bytes and one more if that is odd.
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

#[cfg(test)]
mod tests {
    use super::has_whole_chunks;

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
