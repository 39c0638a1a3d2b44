//! What the PNG decoder takes for granted.

const SIGNATURE_BYTES: usize = 8;

/// Whether each palette before the image data holds whole colours, of three bytes. The standard
/// asks for it, and the decoder panics where it is not so.
pub(super) fn has_whole_palette(bytes: &[u8]) -> bool {
    let mut position = SIGNATURE_BYTES;
    // A chunk: its length, its name, so many bytes, and a checksum.
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

#[cfg(test)]
mod tests {
    use super::has_whole_palette;

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
    fn a_palette_of_parts_of_colours_is_found() {
        assert!(has_whole_palette(&file(&[(b"IHDR", 13), (b"PLTE", 6), (b"IDAT", 4)])));
        assert!(!has_whole_palette(&file(&[(b"IHDR", 13), (b"tEXt", 5), (b"PLTE", 112)])));
        assert!(!has_whole_palette(&file(&[(b"PLTE", 3), (b"PLTE", 4), (b"IDAT", 4)])));
        let behind = file(&[(b"IDAT", 4), (b"PLTE", 4)]);
        assert!(has_whole_palette(&behind), "what is behind the image data is not read");
        let whole = file(&[(b"IHDR", 13), (b"PLTE", 6)]);
        assert!((0..whole.len()).all(|end| has_whole_palette(&whole[..end])));
    }
}
