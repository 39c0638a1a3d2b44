//! The orientation of images, by one rule for all formats: that of Pillow's `exif_transpose`.
//!
//! The Exif block determines it, and may store it as a number of any type. If the block has no
//! orientation at all, the XMP packet determines it (`tiff:Orientation`). Each format only provides
//! its blocks.

use image::metadata::Orientation;

use crate::ifd::{Entry, size_of_kind};

const TAG: u16 = 0x0112;

/// Metadata of an image file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Metadata<'a> {
    /// An Exif block, which is a TIFF file without pixels; or a whole TIFF file.
    pub(crate) exif: Option<&'a [u8]>,
    /// An XMP packet.
    pub(crate) xmp: Option<&'a [u8]>,
}

/// Returns the orientation. An invalid value counts as no transformation.
pub(crate) fn of(metadata: &Metadata<'_>) -> Orientation {
    let exif = metadata.exif.and_then(of_exif);
    let value = exif.or_else(|| metadata.xmp.and_then(of_xmp)).unwrap_or(1);
    Orientation::from_exif(value).unwrap_or(Orientation::NoTransforms)
}

/// Returns the orientation stated by the first directory, or 0 if that is invalid.
fn of_exif(block: &[u8]) -> Option<u8> {
    // Some writers repeat the prefix of the block.
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let entry = Entry::find(block, TAG)?;
    let place = entry.values(block)?;
    let kind = entry.kind(block)?;
    let number = |place: usize, length: usize| entry.number(block, place, length);
    let first = number(place, size_of_kind(kind)? as usize)?;
    let value = match kind {
        // Bytes and text are not numbers.
        1 | 2 | 7 => 0.0,
        5 | 10 => number(place, 4)? as f64 / number(place + 4, 4)? as f64,
        11 => f64::from(f32::from_bits(first as u32)),
        12 => f64::from_bits(first),
        _ => first as f64,
    };
    Some((1..=8).find(|&whole| f64::from(whole) == value).unwrap_or(0))
}

/// Returns the digit in the first `tiff:Orientation="6"` or `<tiff:Orientation>6`.
fn of_xmp(packet: &[u8]) -> Option<u8> {
    let name = b"tiff:Orientation";
    memchr::memmem::find_iter(packet, name).find_map(|place| {
        let rest = &packet[place + name.len()..];
        let rest = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        rest.first().filter(|digit| digit.is_ascii_digit()).map(|digit| digit - b'0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(kind: u16, count: u32, value: &[u8], big_endian: bool) -> Vec<u8> {
        let short = |v: u16| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let long = |v: u32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut block = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        block.extend(short(42));
        block.extend(long(8));
        block.extend(short(1));
        block.extend(short(0x0112));
        block.extend(short(kind));
        block.extend(long(count));
        match value.len() {
            ..=4 => block.extend(value.iter().chain(&[0; 4]).take(4)),
            _ => block.extend(long(26)),
        }
        block.extend(long(0));
        block.extend(value);
        block
    }

    #[test]
    fn an_orientation_is_any_kind_of_number() {
        let six = 6_f64.to_le_bytes();
        for (kind, count, value, expected) in [
            (3, 1, &[6, 0][..], Some(6)),
            (4, 1, &[6, 0, 0, 0], Some(6)),
            (8, 1, &[6, 0], Some(6)),
            (9, 1, &[6, 0, 0, 0], Some(6)),
            (6, 1, &[6], Some(6)),
            (13, 1, &[6, 0, 0, 0], Some(6)),
            (5, 1, &[6, 0, 0, 0, 1, 0, 0, 0], Some(6)),
            (5, 1, &[13, 0, 0, 0, 2, 0, 0, 0], Some(0)),
            (12, 1, &six, Some(6)),
            (3, 2, &[6, 0, 8, 0], Some(6)),
            (3, 3, &[8, 0, 1, 0, 1, 0], Some(8)),
            (1, 1, &[6], Some(0)),
            (2, 2, b"6\0", Some(0)),
            (3, 1, &[9, 0], Some(0)),
            (3, 0, &[6, 0], None),
            (99, 1, &[6, 0], None),
        ] {
            assert_eq!(of_exif(&exif(kind, count, value, false)), expected, "{kind} {value:?}");
        }
        assert_eq!(of_exif(&exif(3, 1, &[0, 8], true)), Some(8));
        assert_eq!(of_exif(&exif(4, 1, &[0, 0, 0, 5], true)), Some(5));
        let block = exif(3, 3, &[8, 0, 1, 0, 1, 0], false);
        let twice = [b"Exif\0\0Exif\0\0", &block[..]].concat();
        assert_eq!(of_exif(&twice), Some(8));
        for end in 0..block.len() {
            assert_eq!(of_exif(&block[..end]), None, "{end}");
        }
    }

    #[test]
    fn xmp_counts_where_exif_is_silent() {
        let xmp = Some(&b"<x tiff:Orientation='6' tiff:Orientation=\"8\"/>"[..]);
        assert_eq!(of(&Metadata { exif: None, xmp }), Orientation::Rotate270);
        let three = exif(3, 1, &[3, 0], false);
        assert_eq!(of(&Metadata { exif: Some(&three), xmp }), Orientation::Rotate180);
        let nothing = exif(3, 1, &[77, 0], false);
        assert_eq!(of(&Metadata { exif: Some(&nothing), xmp }), Orientation::NoTransforms);
        assert_eq!(of_xmp(b"<tiff:Orientation>2</tiff:Orientation>"), Some(2));
        assert_eq!(of_xmp(b"<tiff:Orientation>x"), None);
    }
}
