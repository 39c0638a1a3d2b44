//! Edits the tags and data of files that the `tiff` crate would read incorrectly.

use tiff::tags::{CompressionMethod, PhotometricInterpretation, Predictor, Tag};
use weezl::LzwStatus;

use super::head::{Head, Reader, broken, failed, unsupported};
use crate::ifd::Entry;
use crate::parts::{Failure, check_size};

/// Returns a copy of the file that the crate reads as channels without a meaning, or `None` if it
/// reads the original that way.
///
/// # Errors
/// Returns a [`Failure`] if the file is damaged or cannot be edited in this way.
pub(super) fn readable(
    bytes: &[u8],
    decoder: &mut Reader<'_>,
    head: &Head,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut tags = Vec::new();
    let white = head.colors == PhotometricInterpretation::WhiteIsZero;
    let seen = decoder.colortype().map_or(0, |color| color.num_samples());
    // "Black is zero" is valid for any number of channels.
    let plain = matches!(
        head.colors,
        PhotometricInterpretation::BlackIsZero | PhotometricInterpretation::RGB
    );
    if !white && (!plain || seen != head.channels) {
        tags.push((
            Tag::PhotometricInterpretation,
            PhotometricInterpretation::BlackIsZero.to_u16().into(),
        ));
    }
    if head.predictor_ignored {
        tags.push((Tag::Predictor, Predictor::None.to_u16().into()));
    }
    // If the height is a multiple of the tiles' height, the crate has no rows to miscount.
    let whole = head.tile.and_then(|[_, tile]| head.height.checked_next_multiple_of(tile));
    if head.planar && whole.is_some_and(|whole| whole != head.height) {
        tags.extend(whole.map(|whole| (Tag::ImageLength, whole)));
    }
    if head.is_subsampled() {
        tags.extend(in_units(head)?);
    }
    let unpacks = head.compression == CompressionMethod::LZW;
    if tags.is_empty() && !head.reversed && !unpacks {
        return Ok(None);
    }
    let mut copy = bytes.to_vec();
    for (tag, value) in tags {
        // A missing tag already has its default value.
        if let Some(entry) = Entry::find(bytes, tag.to_u16()) {
            entry.set(&mut copy, value).ok_or(Failure::Truncated)?;
        }
    }
    if head.reversed {
        reverse(&mut copy, decoder)?;
    }
    if unpacks {
        unpack_lzw(&mut copy, decoder, head)?;
    }
    Ok(Some(copy))
}

/// Replaces LZW-compressed data with the decompressed data. If the image ends inside a tile, the
/// crate loses the end of the compressed data.
fn unpack_lzw(copy: &mut Vec<u8>, decoder: &mut Reader<'_>, head: &Head) -> Result<(), Failure> {
    let size = chunk_bytes(head)?;
    let chunks = chunks(decoder)?;
    check_size(head.width, head.height, (size as u64).saturating_mul(chunks.len() as u64))?;
    let (mut starts, mut counts) = (Vec::new(), Vec::new());
    for (start, end) in chunks {
        let data = copy.get(start..end).ok_or(Failure::Truncated)?;
        let unpacked = lzw(data, size)?;
        starts.push(u32::try_from(copy.len()).map_err(|_| Failure::Truncated)?);
        counts.push(unpacked.len() as u32);
        copy.extend(unpacked);
    }
    let [start_tag, count_tag] = match head.tile {
        Some(_) => [Tag::TileOffsets, Tag::TileByteCounts],
        None => [Tag::StripOffsets, Tag::StripByteCounts],
    };
    for (tag, values) in [(start_tag, starts), (count_tag, counts)] {
        let entry = Entry::find(copy, tag.to_u16()).ok_or(Failure::Truncated)?;
        entry.set_all(copy, &values).ok_or(Failure::Truncated)?;
    }
    let entry = Entry::find(copy, Tag::Compression.to_u16()).ok_or(Failure::Truncated)?;
    entry.set(copy, CompressionMethod::None.to_u16().into()).ok_or(Failure::Truncated)
}

/// Returns the size in bytes of a whole strip or tile.
fn chunk_bytes(head: &Head) -> Result<usize, Failure> {
    let [width, height] = head.tile.unwrap_or([head.width, head.rows_per_strip.min(head.height)]);
    let channels = if head.planar { 1 } else { u64::from(head.channels) };
    let rows = |height: u32| -> Option<u64> {
        if head.is_subsampled() {
            let [across, down] = head.shared;
            let unit = u64::from(across * down + 2);
            return (u64::from(width.div_ceil(across)) * unit)
                .checked_mul(height.div_ceil(down).into());
        }
        let bits = u64::from(width).checked_mul(channels * u64::from(head.bits))?;
        bits.div_ceil(8).checked_mul(height.into())
    };
    let size = rows(height).and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| broken("strips or tiles that are too large"))
}

/// Decompresses LZW data, up to `size` bytes.
fn lzw(mut data: &[u8], size: usize) -> Result<Vec<u8>, Failure> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
    let (mut out, mut filled) = (vec![0; size], 0);
    while filled < size {
        let step = decoder.decode_bytes(data, &mut out[filled..]);
        (data, filled) = (&data[step.consumed_in..], filled + step.consumed_out);
        match step.status {
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::NoProgress | LzwStatus::Done) => break,
            Err(error) => return Err(broken(error)),
        }
    }
    out.truncate(filled);
    Ok(out)
}

/// Returns tags by which each unit of pixels that share their color values becomes a single pixel.
/// Its channels are the luminance of all of these pixels, row by row, and the two color values.
fn in_units(head: &Head) -> Result<Vec<(Tag, u32)>, Failure> {
    let [across, down] = head.shared;
    let whole = match head.tile {
        Some([width, height]) => width.is_multiple_of(across) && height.is_multiple_of(down),
        None => head.rows_per_strip.is_multiple_of(down) || head.rows_per_strip >= head.height,
    };
    let known = [1, 2, 4].contains(&across) && [1, 2, 4].contains(&down);
    if head.planar || head.predicted || head.bits != 8 || head.channels != 3 || !known || !whole {
        return Err(unsupported(format!("YCbCr with {across}x{down} subsampling of this kind")));
    }
    let mut tags = vec![
        (Tag::ImageWidth, head.width.div_ceil(across)),
        (Tag::ImageLength, head.height.div_ceil(down)),
        (Tag::SamplesPerPixel, across * down + 2),
        (Tag::BitsPerSample, 8),
    ];
    match head.tile {
        Some([width, height]) => {
            tags.extend([(Tag::TileWidth, width / across), (Tag::TileLength, height / down)]);
        }
        None => tags.push((Tag::RowsPerStrip, head.rows_per_strip.div_ceil(down))),
    }
    Ok(tags)
}

/// Reverses the order of the bits in each byte of the image data.
fn reverse(copy: &mut [u8], decoder: &mut Reader<'_>) -> Result<(), Failure> {
    let mut ranges: Vec<(usize, usize)> = chunks(decoder)?;
    // Some files use the same data several times; it must be reversed only once.
    ranges.sort_unstable();
    let mut done = 0;
    for (start, end) in ranges {
        let start = start.max(done);
        if start < end {
            let data = copy.get_mut(start..end).ok_or(Failure::Truncated)?;
            data.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            done = end;
        }
    }
    Ok(())
}

/// Returns where the strips or tiles begin and end in the file.
pub(super) fn chunks(decoder: &mut Reader<'_>) -> Result<Vec<(usize, usize)>, Failure> {
    let mut numbers = |tiles, strips| -> Result<Vec<u64>, Failure> {
        let of_tiles = decoder.find_tag_unsigned_vec(tiles).map_err(failed)?;
        let found = match of_tiles {
            Some(found) => Some(found),
            None => decoder.find_tag_unsigned_vec(strips).map_err(failed)?,
        };
        Ok(found.unwrap_or_default())
    };
    let starts = numbers(Tag::TileOffsets, Tag::StripOffsets)?;
    let counts = numbers(Tag::TileByteCounts, Tag::StripByteCounts)?;
    let range = |(&start, &count): (&u64, &u64)| {
        let end = usize::try_from(start.checked_add(count)?).ok()?;
        Some((usize::try_from(start).ok()?, end))
    };
    starts.iter().zip(&counts).map(range).collect::<Option<_>>().ok_or(Failure::Truncated)
}
