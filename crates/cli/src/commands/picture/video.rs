//! `simdino picture video`: draws the objects of the first frame as networks track them through a
//! video.

use std::path::{Path, PathBuf};

use base::counted;
use data::decode::{PixelFormat, decode_as};
use eval::pictures::{Row, animated_webp, as_high_as_a_cell, lay_out, with_objects};
use eval::retrieval::images_in;
use eval::tracking::{SIDE, TrackOptions, TrackedFrame, track};
use eval::{FeaturePrecision, Frozen};
use image::RgbImage;
use objects::{Grid, PropagateOptions};
use score::IndexImage;

use super::networks::{Networks, Subject};
use super::out::{has_extension, save_sheet};
use crate::console::{answer, progress};
use crate::failure::{Context, Failure, Result};
use crate::out::folder_for;

/// The label for ignored pixels in the annotations of DAVIS 2017. If no other label occurs, it is
/// the object, as in DAVIS 2016.
const VOID: u8 = 255;

/// Arguments of `simdino picture video`.
#[derive(Debug, clap::Args)]
pub struct VideoArgs {
    /// Frames: a folder of images, in the order of their names
    frames: PathBuf,
    /// PNG file whose pixels are the numbers of the objects in the first frame, 0 for none
    #[arg(long, value_name = "FILE")]
    first: PathBuf,
    #[command(flatten)]
    networks: Networks,
    /// File to write: .png for some frames side by side, .webp for an animation of all frames
    #[arg(short, long, default_value = "video.png")]
    out: PathBuf,
    /// Frames side by side, spread over the video
    #[arg(long, default_value_t = 6)]
    shown: usize,
    /// Frames per second of an animation
    #[arg(long, default_value_t = 12)]
    fps: u32,
    /// Shorter side of the frames that the networks see, in pixels
    #[arg(long, default_value_t = SIDE)]
    side: usize,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if weights or frames cannot be read or the picture cannot be written.
pub fn run(args: &VideoArgs) -> Result<()> {
    let animated = has_extension(&args.out, "webp");
    if !animated && !has_extension(&args.out, "png") {
        let out = args.out.display();
        return Err(Failure::usage(format!("--out: must end in .png or .webp (got {out})")));
    }
    if !(1..=64).contains(&args.shown) || !(1..=100).contains(&args.fps) {
        return Err(Failure::usage(
            "--shown must be between 1 and 64, and --fps between 1 and 100",
        ));
    }
    let files = images_in(&args.frames)?;
    let first = first(args)?;
    let count = if animated { files.len() } else { args.shown.min(files.len()) };
    // The chosen frames include the first and the last one.
    let chosen = (0..count).map(|i| i * (files.len() - 1) / count.saturating_sub(1).max(1));
    let chosen: Vec<usize> = chosen.collect();
    let plain = |&index: &usize| Ok(as_high_as_a_cell(&frame(&files[index])?));
    let plain = chosen.iter().map(plain).collect::<Result<Vec<_>>>()?;
    let mut rows = vec![Row::new("", plain)];
    args.networks.each(&mut |subject| {
        let cells = followed(args, subject, &files, &first, &chosen)?;
        rows.push(Row::new(subject.label.clone(), cells));
        Ok(())
    })?;
    if animated {
        animate(&rows[1..], args)?;
    } else {
        save_sheet(&rows, &args.out)?;
    }
    let frames = counted(files.len(), "frame", "frames");
    answer(&format!("{}: {count} of {frames}\n", args.out.display()))
}

/// Reads the objects of the first frame. A single label is an object even if it is [`VOID`].
fn first(args: &VideoArgs) -> Result<TrackedFrame> {
    let IndexImage { width, height, mut pixels } = IndexImage::read(&args.first)?;
    if pixels.iter().all(|&id| id == 0) {
        let file = args.first.display();
        return Err(Failure::failed(format!("{file}: all pixels are 0, so there is no object")));
    }
    let single = pixels.iter().all(|&id| id == 0 || id == VOID);
    pixels.iter_mut().filter(|id| **id == VOID).for_each(|id| *id = u8::from(single));
    Ok(TrackedFrame { size: Grid::new(height as usize, width as usize), ids: pixels })
}

/// Tracks the objects by a network, and returns the chosen frames with the objects tinted.
fn followed(
    args: &VideoArgs,
    subject: &Subject<'_>,
    files: &[PathBuf],
    first: &TrackedFrame,
    chosen: &[usize],
) -> Result<Vec<RgbImage>> {
    let options = TrackOptions {
        frozen: Frozen {
            network: subject.backbone,
            normalize: &subject.weights.normalize,
            device: subject.device,
            precision: FeaturePrecision::default(),
        },
        side: args.side,
        propagate: PropagateOptions::default(),
    };
    let tinted = |index: usize, ids: &[u8]| -> Result<RgbImage> {
        Ok(as_high_as_a_cell(&with_objects(frame(&files[index])?, ids)))
    };
    let mut cells = vec![tinted(0, &first.ids)?];
    let mut failure = None;
    let bar = progress(files.len(), "frames");
    track(files, first, &options, &mut |index, tracked| {
        bar.set_position(index as u64);
        if chosen.contains(&index) && failure.is_none() {
            tinted(index, &tracked.ids).map_or_else(|e| failure = Some(e), |cell| cells.push(cell));
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    failure.map_or(Ok(cells), Err)
}

/// Writes an animation of the video. Each of its frames shows the networks one below the other.
fn animate(rows: &[Row], args: &VideoArgs) -> Result<()> {
    let count = rows.iter().map(|row| row.cells.len()).min().unwrap_or(0);
    let frame = |index: usize| {
        let one = |row: &Row| Row::new(row.label.clone(), vec![row.cells[index].clone()]);
        lay_out(&rows.iter().map(one).collect::<Vec<_>>())
    };
    let frames: Vec<RgbImage> = (0..count).map(frame).collect();
    let file = animated_webp(&frames, 1000 / args.fps)?;
    let cannot = || format!("{}: cannot write the picture", args.out.display());
    folder_for(&args.out).context(cannot)?;
    std::fs::write(&args.out, file).context(cannot)
}

fn frame(file: &Path) -> Result<RgbImage> {
    let unreadable = || format!("{}: cannot read the frame", file.display());
    let bytes = std::fs::read(file).context(unreadable)?;
    Ok(decode_as(&bytes, &PixelFormat::RGB).context(unreadable)?.image.to_rgb())
}
