//! Tracks objects through a video by the features of a network, following DINO's protocol for
//! DAVIS.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use data::decode::{Image, PixelFormat, decode_as};
use data::dense::in_order;
use model::Mode;
use objects::propagate::{decide, one_hot, resize_ids};
use objects::{Grid, PropagateOptions, Propagator};
use tch::{Kind, Tensor};

use crate::error::{Error, Result, unreadable};
use crate::features::to_array;
use crate::frozen::Frozen;
use crate::spectrum::Moment;

/// Shorter side in pixels of the frames that the network sees in DINO's protocol.
pub const SIDE: usize = 480;
/// Before rounding to patches, the longer side is a multiple of this, in pixels.
const LONGER_UNIT: usize = 64;

/// Options of tracking.
#[derive(Debug, Clone)]
pub struct TrackOptions<'a> {
    /// The network, whose input must have three channels.
    pub frozen: Frozen<'a>,
    /// Shorter side of the frames that the network sees, in pixels; see [`SIDE`].
    pub side: usize,
    /// Options of label propagation.
    pub propagate: PropagateOptions,
}

/// The object number of each pixel of a frame, 0 for the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedFrame {
    /// Numbers of rows and columns.
    pub size: Grid,
    /// Object numbers in row-major order.
    pub ids: Vec<u8>,
}

/// Tracks the objects of the first frame through the others, which are passed to `take` one by one
/// with their position among `frames`, from 1. `first` is the annotation of the first frame.
/// Returns the second moment of the features of all patches.
///
/// # Errors
/// Returns an error if a frame cannot be read, a frame or the annotation differs in size from the
/// first frame, or the options are invalid, and the first error of `take`.
///
/// # Source
/// DINO's eval_video_segmentation.py at 7c446df.
///
/// # Deviations
/// Only positions within the window are compared, which is exact. Frames are normalized as the
/// network expects; DINO's script has a standard deviation of .228 for red. Sides are rounded down
/// to multiples of the patch size.
pub fn track(
    frames: &[PathBuf],
    first: &TrackedFrame,
    options: &TrackOptions<'_>,
    take: &mut dyn FnMut(usize, TrackedFrame) -> Result<()>,
) -> Result<Moment> {
    let channels = options.frozen.normalize.mean.len();
    if channels != 3 {
        let problem = format!("the network takes {channels} channels, but videos are RGB");
        return Err(Error::Setting { key: "weights", problem });
    }
    let patch =
        usize::try_from(options.frozen.network.config().patch_size).unwrap_or_default().max(1);
    let input = input_size(first.size, options.side, patch)?;
    let grid = Grid::new(input.height / patch, input.width / patch);
    let large = Grid::new(grid.height * patch, grid.width * patch);
    let (mut video, mut patches) = (None::<Propagator>, Moment::default());
    let workers = available_parallelism().map_or(1, usize::from);
    in_order(
        0..frames.len(),
        workers,
        |index| read(&frames[index], first.size),
        |index, image| {
            let features = features(&image?, input, options)?;
            patches.add(&features)?;
            let features = to_array(&features)?;
            let Some(video) = &mut video else {
                let labels = one_hot(&resize_ids(&first.ids, first.size, grid)?);
                let start =
                    Propagator::new(features.view(), labels.view(), grid, &options.propagate)?;
                video = Some(start);
                return Ok(());
            };
            let labels = video.next(features.view())?;
            let ids = decide(labels.view(), grid, patch)?;
            let ids = resize_ids(&ids, large, first.size)?;
            take(index, TrackedFrame { size: first.size, ids })
        },
    )?;
    Ok(patches)
}

/// Returns the size at which the network sees frames of `size`.
fn input_size(size: Grid, side: usize, patch: usize) -> Result<Grid> {
    let setting = |key, problem: String| Err(Error::Setting { key, problem });
    if size.cells() == 0 {
        return setting("frames", "have no pixels".to_owned());
    }
    let whole = |pixels: usize| pixels / patch * patch;
    let (short, long) = (size.height.min(size.width), size.height.max(size.width));
    let longer = side * long / short / LONGER_UNIT * LONGER_UNIT;
    let (shorter, longer) = (whole(side), whole(longer));
    if shorter == 0 || longer == 0 {
        return setting("side", format!("is too small for patches of {patch} (got {side})"));
    }
    Ok(if size.width >= size.height {
        Grid::new(shorter, longer)
    } else {
        Grid::new(longer, shorter)
    })
}

fn read(file: &Path, expected: Grid) -> Result<Image> {
    let bytes = std::fs::read(file).map_err(unreadable(file))?;
    let decoded = decode_as(&bytes, &PixelFormat::RGB).map_err(data::Error::from);
    let image = decoded.map_err(unreadable(file))?.image;
    let (width, height) = image.dimensions();
    if Grid::new(height as usize, width as usize) == expected {
        return Ok(image);
    }
    let Grid { height: rows, width: columns } = expected;
    let problem = format!(
        "{} has {width} x {height} pixels, but the first annotation has {columns} x {rows}",
        file.display()
    );
    Err(Error::Setting { key: "frames", problem })
}

/// Computes the patch tokens of a frame after the final norm, `[N, D]`.
fn features(image: &Image, input: Grid, options: &TrackOptions<'_>) -> Result<Tensor> {
    let pixels = resized(image, input)?;
    let images = options.frozen.input(&pixels, [1, input.height, input.width])?;
    let tokens = options.frozen.forward(|network| Ok(network.forward(&images, Mode::Eval)?))?;
    Ok(tokens.patches.squeeze_dim(0)) // [1, N, D] -> [N, D]
}

/// Resizes pixels with bilinear interpolation without antialiasing, as OpenCV does. Returns
/// interleaved pixels with three channels, in row-major order.
fn resized(image: &Image, to: Grid) -> Result<Vec<u8>> {
    let (width, height) = image.dimensions();
    let pixels = Tensor::f_from_slice(image.data())?;
    let pixels = pixels.f_view([1, i64::from(height), i64::from(width), 3])?;
    let pixels = pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float);
    let size = [to.height as i64, to.width as i64];
    let small = pixels.f_upsample_bilinear2d(size, false, None, None)?.round().clamp(0.0, 255.0);
    let bytes = small.permute([0, 2, 3, 1]).to_kind(Kind::Uint8).contiguous();
    let mut out = vec![0u8; bytes.numel()];
    bytes.f_copy_data_u8(&mut out, bytes.numel())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_those_of_the_published_script() {
        let size = |height, width, patch| input_size(Grid::new(height, width), 480, patch).unwrap();
        assert_eq!(size(480, 854, 16), Grid::new(480, 832));
        assert_eq!(size(480, 854, 8), Grid::new(480, 832));
        assert_eq!(size(1080, 608, 16), Grid::new(832, 480));
        assert_eq!(size(100, 100, 16), Grid::new(480, 448), "as the script does it");
        assert_eq!(size(480, 854, 14), Grid::new(476, 826));
        assert!(input_size(Grid::new(480, 854), 8, 16).is_err());
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing() {
        let data: Vec<u8> = (0..3 * 5 * 4).map(|i| (i * 7 % 251) as u8).collect();
        let image = Image::new(data.clone(), 5, 4, 3).unwrap();
        assert_eq!(resized(&image, Grid::new(4, 5)).unwrap(), data);
        assert_eq!(resized(&image, Grid::new(8, 10)).unwrap().len(), 3 * 80);
    }
}
