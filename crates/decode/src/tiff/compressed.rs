//! Reads strips and tiles that are JPEG files, with our own decoder, which yields the same pixels
//! as libtiff.

use ::jpeg::{Colors, Jpeg};
use tiff::tags::{PhotometricInterpretation, Tag};

use super::edit::chunks;
use super::head::{Head, Reader, broken, failed, unsupported};
use crate::parts::{Failure, check_size};
use crate::raw::{Layout, Values};

/// Reads all values; YCbCr becomes RGB.
///
/// # Errors
/// Returns a [`Failure`] of any kind.
pub(super) fn read(
    bytes: &[u8],
    decoder: &mut Reader<'_>,
    head: &Head,
) -> Result<(Values, Layout), Failure> {
    let ycbcr = head.colors == PhotometricInterpretation::YCbCr;
    if head.bits != 8 || ycbcr && (head.planar || head.channels != 3) {
        return Err(unsupported(format!("JPEG with {} bits, or with planes of YCbCr", head.bits)));
    }
    let tables = decoder.find_tag(Tag::JPEGTables).map_err(failed)?;
    let tables = tables.map(|tables| tables.into_u8_vec().map_err(failed)).transpose()?;
    let colors = if ycbcr { Colors::YCbCr } else { Colors::AsStored };
    let [width, height] = [head.width, head.height].map(|side| side as usize);
    let [across, down] = match head.tile {
        Some(tile) => tile.map(|side| side as usize),
        None => [width, (head.rows_per_strip as usize).min(height)],
    };
    let (channels, planes) = match (usize::from(head.channels), head.planar) {
        (channels, true) => (1, channels),
        (channels, false) => (channels, 1),
    };
    if across == 0 || down == 0 {
        return Err(broken("strips without rows"));
    }
    let chunks = chunks(decoder)?;
    let (columns, rows) = (width.div_ceil(across), height.div_ceil(down));
    if chunks.len() != columns * rows * planes {
        return Err(broken("the wrong number of strips or tiles"));
    }
    let stride = width * channels;
    let mut values = vec![0; stride * height * planes];
    for ((start, end), place) in chunks.into_iter().zip(0..) {
        let (plane, row, column) =
            (place / columns / rows, place / columns % rows * down, place % columns * across);
        let data = bytes.get(start..end).ok_or(Failure::Truncated)?;
        let need = [across.min(width - column), down.min(height - row)];
        let part = read_part(tables.as_deref(), data, colors, [across, need[1], channels])?;
        for (y, line) in part.chunks_exact(across * channels).take(need[1]).enumerate() {
            let to = (plane * height + row + y) * stride + column * channels;
            values[to..to + need[0] * channels].copy_from_slice(&line[..need[0] * channels]);
        }
    }
    let layout = Layout {
        width: head.width,
        height: head.height,
        channels: channels * planes,
        plane: (planes > 1).then_some(width * height),
        alpha: head.alpha,
    };
    Ok((Values::U8(values), layout))
}

/// Decodes a strip or tile, which must have the given width and number of channels, and at least
/// the given height.
fn read_part(
    tables: Option<&[u8]>,
    data: &[u8],
    colors: Colors,
    [width, least_height, channels]: [usize; 3],
) -> Result<Vec<u8>, Failure> {
    let part = Jpeg::open_abbreviated(tables, data, colors).map_err(crate::jpeg::failed)?;
    let size = [part.width() as usize, part.height() as usize, part.channels()];
    // Encoders write whole strips even at the lower edge.
    let fits = size[0] == width && size[2] == channels;
    if !fits || !(least_height..least_height + 4096).contains(&size[1]) {
        return Err(broken("a JPEG strip or tile has the wrong size"));
    }
    // Tiles may be larger than the picture.
    check_size(part.width(), part.height(), size.iter().map(|&side| side as u64).product())?;
    part.decode().map_err(crate::jpeg::failed)
}
