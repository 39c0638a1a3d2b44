//! Reads TIFF files of all kinds that Pillow reads, with any number of channels.
//!
//! The `tiff` crate reads tags and most data, but it interprets colors and reads some kinds
//! incorrectly or not at all: if the first three channels are red, green, and blue, it drops the
//! others; if channels have their own tiles, it miscounts the rows of the last tiles; and it does
//! not support palettes, subsampled color, or reversed bit order. Such a file is rewritten to a
//! form that the crate reads correctly, with channels without a meaning ([`edit`]), and [`colors`]
//! interprets the result. JPEG-compressed data is read by our own decoder ([`compressed`]).

mod colors;
mod compressed;
mod edit;
mod head;

use tiff::tags::CompressionMethod;

use self::head::{Head, Reader, failed, open, read_head, unsupported};
use crate::parts::{Failure, Parts, check_size};
use crate::raw::{Layout, Values};

/// Reads the first page.
///
/// # Errors
/// Returns a [`Failure`] of any kind.
pub(crate) fn read(bytes: &[u8]) -> Result<Parts, Failure> {
    let mut decoder = open(bytes)?;
    let head = read_head(&mut decoder, bytes)?;
    let size = u64::from(head.width) * u64::from(head.height) * u64::from(head.channels);
    check_size(head.width, head.height, size * u64::from(head.bits) / 8)?;
    let (values, layout) = if head.compression == CompressionMethod::ModernJPEG {
        compressed::read(bytes, &mut decoder, &head)?
    } else {
        let edited = edit::readable(bytes, &mut decoder, &head)?;
        read_values(open(edited.as_deref().unwrap_or(bytes))?, &head)?
    };
    let (values, layout) = colors::convert(values, layout, &mut decoder, &head)?;
    Ok((values, layout, head.orientation))
}

/// Reads the values as they are stored. Values of fewer than 8 bits are expanded to a byte each.
fn read_values(mut decoder: Reader<'_>, head: &Head) -> Result<(Values, Layout), Failure> {
    let color = decoder.colortype().map_err(failed)?;
    let (width, rows) = decoder.dimensions().map_err(failed)?;
    let size = decoder.image_buffer_layout().map_err(failed)?;
    check_size(head.width, head.height, size.complete_len as u64)?;
    let packed = color.bit_depth() < 8;
    if packed && (color.num_samples() > 1 || !matches!(color.bit_depth(), 1 | 2 | 4)) {
        let what = format!("{} channels of {} bits", color.num_samples(), color.bit_depth());
        return Err(unsupported(what));
    }
    let mut values = Values::U8(Vec::new());
    decoder.read_image_to_buffer(&mut values).map_err(failed)?;
    if packed && let Values::U8(bytes) = &values {
        values = Values::U8(colors::unpack(bytes, width as usize, color.bit_depth()));
    }
    let layout = Layout {
        width,
        height: if head.is_subsampled() { rows } else { head.height },
        channels: usize::from(color.num_samples()),
        plane: (size.planes > 1).then_some(width as usize * rows as usize),
        alpha: head.alpha,
    };
    Ok((values, layout))
}
