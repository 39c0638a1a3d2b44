//! Whether a JPEG file is whole.
//!
//! The decoder fills what is missing with grey and says nothing, so the file's structure is
//! walked here: every segment must lie inside the file and the last one must be the end marker.
//! The format is that of ITU-T T.81, annex B.

const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Whether the file reaches its end-of-image marker, with at least one scan before it.
///
/// Bytes after that marker are ignored, as in viewers. Damage inside the pixel data that keeps
/// this structure cannot be seen here.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let mut scans = 0;
    let mut position = 2; // behind the start-of-image marker
    loop {
        let Some((marker, after)) = next_marker(bytes, position) else { return false };
        match marker {
            END_OF_IMAGE => return scans > 0,
            0x01 | 0xD0..=0xD8 => position = after, // markers without a segment
            _ => {
                let Some(length) = bytes.get(after..after + 2) else { return false };
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                position = after + length.max(2);
                scans += usize::from(marker == START_OF_SCAN);
            }
        }
    }
}

/// The next marker at or behind `position` and the place behind it. Entropy-coded data is passed
/// over: in it, 0xFF is followed by 0 (a stuffed byte) or by a restart marker.
fn next_marker(bytes: &[u8], mut position: usize) -> Option<(u8, usize)> {
    loop {
        let rest = bytes.get(position..)?;
        position += memchr::memchr(0xFF, rest)? + 1;
        match *bytes.get(position)? {
            0xFF => {} // fill bytes before a marker
            0x00 | 0xD0..=0xD7 => position += 1,
            marker => return Some((marker, position + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn the_end_marker_counts_only_outside_of_segments() {
        let whole = [
            &[0xFF, 0xD8][..],
            &[0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 1, 2], // a thumbnail's end inside a segment
            &[0xFF, 0xDA, 0, 2, 7, 0xFF, 0x00, 0xFF, 0xD0, 9], // a scan with stuffing and restart
            &[0xFF, 0xFF, 0xD9],
        ]
        .concat();
        assert!(is_complete(&whole));
        assert!(is_complete(&[&whole[..], b"trailing"].concat()));
        for end in 0..whole.len() {
            assert!(!is_complete(&whole[..end]), "cut at {end}");
        }
        assert!(!is_complete(&[0xFF, 0xD8, 0xFF, 0xD9]), "no scan");
    }
}
