//! Crop and antialiased bicubic resize in one pass, for all crops of an image together.
//!
//! Both passes of a separable filter are weighted sums of rows, if "rows" run along the other axis.
//! Therefore, the image is transposed strip by strip (`strip.rs`). Every crop filters its part of a
//! strip along x while the strip is in the cache (`Middle`), and filters along y at the end. The
//! order, x before y, and the intermediate rounding are Pillow's.
//!
//! # Deviations
//! Weights have 14 fractional bits and products have 6 (22 in Pillow), so that sums fit 16 bits.
//! About one value in thirty differs by one level (`tests/parity.rs`).

use std::cell::RefCell;
use std::rc::Rc;

use super::crop::CropBox;
use super::filter::{self, Filter, filter};
use super::isa::{Isa, Kernel, Samples, WIDE, dispatch};
use super::lanes::put;
use super::planes::Planes;
use super::strip::{self, BLOCK, ROWS};
use super::sum::{WeightedSum, with_sum};
use crate::error::{Error, Result};
use crate::pixels::Pixels;

/// One crop: what it shows, its size, and whether it is mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// The area that the crop shows.
    pub area: CropBox,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Whether left and right are swapped.
    pub flip: bool,
}

/// A crop after its first pass: its rows, filtered along x.
#[derive(Default)]
struct Middle {
    /// `[channels, blocks, rows]`, where a block has [`WIDE`] columns. There is at least one more
    /// element, which weights of zero may access; leftovers from previous images remain at the end.
    values: Vec<Samples>,
    /// Number of blocks per row.
    blocks: usize,
    /// Number of rows of the area.
    rows: usize,
}

/// Buffers that a thread reuses from image to image.
#[derive(Default)]
struct Scratch {
    strip: Vec<Samples>,
    middles: Vec<Middle>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Crops and resizes `image` for all `jobs`, each into its planes. As in torchvision, the crop
/// comes first: nothing outside a job's area affects its result.
///
/// # Errors
/// Returns an error if an area is empty or not inside the image, a size is 0, or the numbers of
/// planes and jobs differ.
pub fn resize_crops(image: Pixels<'_>, jobs: &[Job], planes: &mut [Planes]) -> Result<()> {
    if jobs.len() != planes.len() {
        let (expected, got) = (jobs.len(), planes.len());
        return Err(Error::Buffer { what: "planes for crops", expected, got });
    }
    let mut planes = planes.iter_mut();
    let take = |crop: &mut Planes| {
        planes.next().into_iter().for_each(|planes| std::mem::swap(planes, crop));
        Ok(())
    };
    resize_each(image, jobs, &mut Planes::default(), take)
}

/// Like [`resize_crops`], but passes the crops to `take` one after the other, in `planes`, so that
/// each stays in a near cache for the next operations.
///
/// # Errors
/// Returns the errors of [`resize_crops`] and of `take`.
pub fn resize_each(
    image: Pixels<'_>,
    jobs: &[Job],
    planes: &mut Planes,
    mut take: impl FnMut(&mut Planes) -> Result<()>,
) -> Result<()> {
    jobs.iter().try_for_each(|job| check(image, job))?;
    SCRATCH.with_borrow_mut(|Scratch { strip, middles }| {
        middles.resize_with(jobs.len().max(middles.len()), Middle::default);
        let columns: Vec<Rc<Filter>> =
            jobs.iter().map(|job| filter(job.area.width, job.width, job.flip)).collect();
        first_passes(image, jobs, &columns, strip, &mut middles[..jobs.len()]);
        for (job, middle) in jobs.iter().zip(middles) {
            planes.reshape(job.width as usize, job.height as usize, image.channels());
            let filter = filter(job.area.height, job.height, false);
            dispatch(SecondPass { middle, filter: &filter, planes });
            take(planes)?;
        }
        Ok(())
    })
}

/// Resizes the whole `image` to `width` x `height`.
///
/// # Errors
/// Returns an error if a side is 0.
pub fn resize(image: Pixels<'_>, width: u32, height: u32) -> Result<Planes> {
    let area = CropBox { left: 0, top: 0, width: image.width(), height: image.height() };
    let mut planes = [Planes::default()];
    resize_crops(image, &[Job { area, width, height, flip: false }], &mut planes)?;
    let [planes] = planes;
    Ok(planes)
}

/// Computes the pixels `part` of the whole `image` resized to `width` x `height`. They are equal to
/// those of [`resize`], but the others are not computed. Both sides of `part` must be at least 1.
///
/// # Errors
/// Same as [`resize`].
pub(super) fn resize_part(
    image: Pixels<'_>,
    (width, height): (u32, u32),
    part: CropBox,
) -> Result<Planes> {
    let whole = CropBox { left: 0, top: 0, width: image.width(), height: image.height() };
    check(image, &Job { area: whole, width, height, flip: false })?;
    let (columns, x) = filter::part(whole.width, width, part.left..part.left + part.width);
    let (rows, y) = filter::part(whole.height, height, part.top..part.top + part.height);
    let area =
        CropBox { left: x.start, top: y.start, width: x.end - x.start, height: y.end - y.start };
    let job = Job { area, width: part.width, height: part.height, flip: false };
    let mut planes = Planes::default();
    planes.reshape(part.width as usize, part.height as usize, image.channels());
    SCRATCH.with_borrow_mut(|Scratch { strip, middles }| {
        middles.resize_with(middles.len().max(1), Middle::default);
        first_passes(image, &[job], &[Rc::new(columns)], strip, &mut middles[..1]);
        dispatch(SecondPass { middle: &middles[0], filter: &rows, planes: &mut planes });
    });
    Ok(planes)
}

fn check(image: Pixels<'_>, job: &Job) -> Result<()> {
    let CropBox { left, top, width, height } = job.area;
    let inside = |start: u32, length: u32, whole: u32| {
        length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
    };
    if !inside(left, width, image.width()) || !inside(top, height, image.height()) {
        let (width, height) = (image.width(), image.height());
        return Err(Error::CropOutside { area: job.area, width, height });
    }
    match job.width.min(job.height) {
        0 => Err(Error::Buffer { what: "pixels of a crop", expected: 1, got: 0 }),
        _ => Ok(()),
    }
}

/// Filters the image along x for all jobs, each with its filter in `columns`, strip by strip.
fn first_passes(
    image: Pixels<'_>,
    jobs: &[Job],
    columns: &[Rc<Filter>],
    strip: &mut Vec<Samples>,
    middles: &mut [Middle],
) {
    let channels = image.channels();
    for (job, middle) in jobs.iter().zip(middles.iter_mut()) {
        middle.blocks = (job.width as usize).div_ceil(WIDE);
        middle.rows = job.area.height as usize;
        let values = middle.rows * channels * middle.blocks + 1;
        middle.values.resize(values.max(middle.values.len()), Samples::ZERO);
    }
    strip.resize(channels * strip::columns(image.width() as usize) + 1, Samples::ZERO);
    let top = jobs.iter().map(|job| job.area.top).min().unwrap_or(0) as usize;
    let bottom = jobs.iter().map(|job| job.area.top + job.area.height).max().unwrap_or(0) as usize;
    for start in (top..bottom).step_by(ROWS) {
        dispatch(FirstPass { image, start, strip, jobs, columns, middles });
    }
}

/// Transposes one strip and filters it along x for all jobs.
struct FirstPass<'a> {
    image: Pixels<'a>,
    /// First row of the strip.
    start: usize,
    strip: &'a mut [Samples],
    jobs: &'a [Job],
    columns: &'a [Rc<Filter>],
    middles: &'a mut [Middle],
}

impl Kernel for FirstPass<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        strip::turn(isa, self.image, self.start, self.strip);
        let width = strip::columns(self.image.width() as usize);
        for ((job, filter), middle) in self.jobs.iter().zip(self.columns).zip(self.middles) {
            let (top, height) = (job.area.top as usize, job.area.height as usize);
            let rows = top.max(self.start)..(top + height).min(self.start + ROWS);
            if rows.is_empty() {
                continue;
            }
            let place = Place { first: rows.start - self.start, row: rows.start - top, height };
            for c in 0..self.image.channels() {
                let columns = &self.strip[c * width + job.area.left as usize..];
                let part = Part { columns, filter, rows: rows.len() };
                let plane = &mut middle.values[c * middle.blocks * height..];
                with_sum!(filter, Sum => filter_columns::<Sum>(isa, part, plane, place));
            }
        }
    }
}

/// Some rows of one channel of a strip, and their filter.
#[derive(Clone, Copy)]
struct Part<'a> {
    columns: &'a [Samples],
    filter: &'a Filter,
    rows: usize,
}

/// Where the filtered rows go in a channel of a [`Middle`].
#[derive(Clone, Copy)]
struct Place {
    /// Index of the first of these rows in the strip.
    first: usize,
    /// Index of the same row in the [`Middle`].
    row: usize,
    /// Number of rows of the [`Middle`].
    height: usize,
}

/// Filters part of a strip along x, [`BLOCK`] columns at a time, and transposes the result back.
#[inline(always)]
fn filter_columns<S: WeightedSum>(
    isa: impl Isa,
    part: Part<'_>,
    plane: &mut [Samples],
    place: Place,
) {
    let Part { columns, filter, rows } = part;
    for block in (0..filter.len()).step_by(BLOCK) {
        let mut filtered = [isa.load([0; WIDE]); BLOCK];
        for (filtered, taps) in filtered.iter_mut().zip(filter.from(block)) {
            *filtered = S::of(isa, columns, taps);
        }
        let column = &mut plane[block / WIDE * place.height + place.row..][..rows];
        let (lines, second) = (isa.transpose(filtered), block % WIDE != 0);
        for (i, &line) in lines.iter().enumerate() {
            let [upper, lower] = isa.samples(line);
            put_half(column, i.wrapping_sub(place.first), second, &upper);
            put_half(column, (i + BLOCK).wrapping_sub(place.first), second, &lower);
        }
    }
}

/// Writes half a block of a row, if there is such a row; an index that has wrapped around is out of
/// range.
#[inline(always)]
fn put_half(column: &mut [Samples], row: usize, second: bool, samples: &[i16; BLOCK]) {
    if let Some(values) = column.get_mut(row) {
        let [first_half, second_half] = values.0.as_chunks_mut::<BLOCK>().0 else { return };
        *(if second { second_half } else { first_half }) = *samples;
    }
}

/// Filters one crop along y, into its planes.
struct SecondPass<'a> {
    middle: &'a Middle,
    filter: &'a Filter,
    planes: &'a mut Planes,
}

impl Kernel for SecondPass<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        with_sum!(self.filter, Sum => self.filter_rows::<Sum>(isa));
    }
}

impl SecondPass<'_> {
    #[inline(always)]
    fn filter_rows<S: WeightedSum>(self, isa: impl Isa) {
        let Self { middle, filter, planes } = self;
        let (width, channels) = (planes.width(), planes.channels());
        for number in 0..channels * middle.blocks {
            let (c, left) = (number / middle.blocks, number % middle.blocks * WIDE);
            let column = &middle.values[number * middle.rows..];
            let rows = planes.channel_mut(c).chunks_exact_mut(width);
            for (row, taps) in rows.zip(filter.from(0)) {
                let bytes = S::of(isa, column, taps);
                put(isa.store(bytes), &mut row[left..]);
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "decode")]
mod tests;
