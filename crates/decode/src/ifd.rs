//! Reads and edits the first directory of a TIFF, or of an Exif block, which is a TIFF without
//! pixels.

/// The location of an entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    place: usize,
    big_endian: bool,
    /// Size in bytes of a count, and of a value stored in the entry itself: 4, or 8 in a BigTIFF.
    width: usize,
}

impl Entry {
    /// Finds the entry of `tag` in the first directory.
    pub(crate) fn find(bytes: &[u8], tag: u16) -> Option<Self> {
        let big_tiff = match bytes.first_chunk()? {
            // In the last two, which exist in practice, the bytes of the version are in the wrong
            // order.
            b"II\x2A\0" | b"MM\0\x2A" | b"II\0\x2A" | b"MM\x2A\0" => false,
            b"II\x2B\0" | b"MM\0\x2B" => true,
            _ => return None,
        };
        let big_endian = bytes.first()? == &b'M';
        // Offset of the directory; and the sizes of the number of entries, of an entry, and of the
        // value in it.
        let number = |place, length| number(bytes, big_endian, place, length);
        let (offset, count_bytes, entry_bytes, width) =
            if big_tiff { (number(8, 8)?, 8, 20, 8) } else { (number(4, 4)?, 2, 12, 4) };
        let directory = usize::try_from(offset).ok()?;
        let first = directory.checked_add(count_bytes)?;
        let entries = usize::try_from(number(directory, count_bytes)?).ok()?;
        let end = first.checked_add(entries.checked_mul(entry_bytes)?)?;
        let mut places = (first..end.min(bytes.len())).step_by(entry_bytes);
        let place = places.find(|&place| number(place, 2) == Some(tag.into()))?;
        Some(Self { place, big_endian, width })
    }

    /// Returns the number of the type of the values.
    pub(crate) fn kind(self, bytes: &[u8]) -> Option<u64> {
        self.number(bytes, self.place + 2, 2)
    }

    /// Returns the position of the first value, if there is one and all values are inside the file.
    pub(crate) fn values(self, bytes: &[u8]) -> Option<usize> {
        let size = size_of_kind(self.kind(bytes)?)?;
        let count = self.number(bytes, self.place + 4, self.width)?;
        let length = usize::try_from(count.checked_mul(size)?).ok().filter(|&length| length > 0)?;
        let inline = self.place + 4 + self.width;
        let place = match length <= self.width {
            true => inline,
            false => usize::try_from(self.number(bytes, inline, self.width)?).ok()?,
        };
        bytes.get(place..place.checked_add(length)?)?;
        Some(place)
    }

    /// Reads the number of `length` bytes at a position.
    pub(crate) fn number(self, bytes: &[u8], place: usize, length: usize) -> Option<u64> {
        number(bytes, self.big_endian, place, length)
    }

    /// Sets the entry to a single number of 16 or 32 bits. Returns `None` if the entry is
    /// truncated.
    pub(crate) fn set(self, bytes: &mut [u8], value: u32) -> Option<()> {
        let (kind, length) = if value <= u32::from(u16::MAX) { (3, 2) } else { (4, 4) };
        self.put(bytes, kind, 1, &self.digits(value.into(), length))
    }

    /// Sets the entry to several numbers of 32 bits, which are appended to the file. Returns `None`
    /// if the entry is truncated or the file too large.
    pub(crate) fn set_all(self, bytes: &mut Vec<u8>, values: &[u32]) -> Option<()> {
        if let &[one] = values {
            return self.set(bytes, one);
        }
        let place = u32::try_from(bytes.len()).ok()?;
        bytes.extend(values.iter().flat_map(|&value| self.digits(value.into(), 4)));
        self.put(bytes, 4, values.len() as u64, &self.digits(place.into(), self.width))
    }

    fn put(self, bytes: &mut [u8], kind: u64, count: u64, value: &[u8]) -> Option<()> {
        let head = [self.digits(kind, 2), self.digits(count, self.width)].concat();
        let mut content = [&head, value].concat();
        content.resize(2 + 2 * self.width, 0);
        let place = self.place + 2;
        bytes.get_mut(place..place + content.len())?.copy_from_slice(&content);
        Some(())
    }

    /// Returns the `length` bytes of a number, in the byte order of the file.
    fn digits(self, value: u64, length: usize) -> Vec<u8> {
        match self.big_endian {
            true => value.to_be_bytes()[8 - length..].to_vec(),
            false => value.to_le_bytes()[..length].to_vec(),
        }
    }
}

/// Returns the size in bytes of a value of a type, or `None` if there is no such type.
pub(crate) fn size_of_kind(kind: u64) -> Option<u64> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16..=18 => Some(8),
        _ => None,
    }
}

fn number(bytes: &[u8], big_endian: bool, place: usize, length: usize) -> Option<u64> {
    let digits = bytes.get(place..place.checked_add(length)?)?;
    let add = |sum: u64, &digit: &u8| sum << 8 | u64::from(digit);
    Some(match big_endian {
        true => digits.iter().fold(0, add),
        false => digits.iter().rev().fold(0, add),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_becomes_one_number() {
        for (bytes, big_endian) in [
            (&b"II\x2A\0\x08\0\0\0\x01\0\x02\x01\x03\0\x03\0\0\0\x1A\0\0\0\0\0\0\0\x05\0\x06\0\x07\0"[..], false),
            (b"MM\0\x2A\0\0\0\x08\0\x01\x01\x02\0\x03\0\0\0\x03\0\0\0\x1A\0\0\0\0\0\x05\0\x06\0\x07", true),
        ] {
            let mut bytes = bytes.to_vec();
            let entry = Entry::find(&bytes, 258).unwrap();
            let place = entry.values(&bytes).unwrap();
            assert_eq!((place, entry.number(&bytes, place, 2)), (26, Some(5)));
            assert_eq!((entry.kind(&bytes), entry.big_endian), (Some(3), big_endian));
            assert!(entry.values(&bytes[..31]).is_none(), "cut off");
            for (value, length) in [(9, 2), (1 << 20, 4)] {
                entry.set(&mut bytes, value).unwrap();
                let place = entry.values(&bytes).unwrap();
                assert_eq!((place, entry.number(&bytes, place, length)), (18, Some(value.into())));
            }
            assert!(Entry::find(&bytes, 259).is_none());
        }
    }
}
