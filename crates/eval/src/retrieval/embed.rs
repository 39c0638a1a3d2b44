//! Embeds images of any size as one vector each.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use data::decode::{Image, PixelFormat, decode_as};
use data::dense::in_order;
use data::loader::BrokenImage;
use model::{Mode, VisionTransformer};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};
use walkdir::WalkDir;

use crate::error::{Error, Result, unreadable};
use crate::features::unit_rows;
use crate::frozen::Frozen;
use crate::segmentation::resized;

/// An image file and the part of it that is used.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFile {
    /// The file.
    pub path: PathBuf,
    /// Left, top, right, and bottom in pixels; `None` = the whole image.
    pub part: Option<[f64; 4]>,
}

/// The vector that describes an image, and the size of the image for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFeatureKind {
    /// The class token of the image, reduced so that its longer side has at most `most` pixels.
    /// Only whole patches are used; the rest on the right and bottom is cut off.
    Cls {
        /// Maximum length of the longer side, in pixels.
        most: u32,
        /// Whether the features at the scales 1, 0.71, and 0.5 are averaged.
        multi_scale: bool,
    },
    /// The class token and the generalized mean (p = 4) of the patch tokens, of the image resized
    /// to a square of this side.
    ClsGem {
        /// Side of the square in pixels.
        side: u32,
    },
    /// The pixels of the image resized to a square of this side, less the mean of each channel, as a
    /// baseline: cosines are then normalized cross-correlations. No network is used.
    Pixels {
        /// Side of the square in pixels.
        side: u32,
        /// The longer side that the network sees, and the least side that it takes: images that are
        /// too small for the network are left out here, too.
        network: [u32; 2],
    },
}

impl ImageFeatureKind {
    /// Returns the baseline of pixels for this kind of feature of a network with patches of `patch`
    /// pixels. It leaves out the images that are too small for the network.
    pub fn pixels(self, side: u32, patch: i64) -> Self {
        let most = match self {
            Self::Cls { most, .. } => most,
            Self::ClsGem { .. } | Self::Pixels { .. } => u32::MAX,
        };
        let least = if most == u32::MAX { 1 } else { least_side(patch, self) };
        Self::Pixels { side, network: [most, least] }
    }
}

/// How images are embedded.
#[derive(Debug, Clone)]
pub struct EmbedOptions<'a> {
    /// The network.
    pub frozen: Frozen<'a>,
    /// Channels and values of the images.
    pub pixels: PixelFormat,
    /// The vector that is computed.
    pub kind: ImageFeatureKind,
}

/// Embedded images.
#[derive(Debug)]
pub struct Embedded {
    /// `[n, D]`, fp32, on the CPU; the rows of broken images are zeros.
    pub features: Tensor,
    /// Images that could not be read.
    pub broken: Vec<BrokenImage>,
}

/// Lists the image files of a folder and its subfolders, sorted by path. Symbolic links are followed.
/// Hidden files and folders are left out.
///
/// # Errors
/// Returns an error if the folder cannot be listed or has no image files.
pub fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_hidden = |name: &OsStr| name.to_string_lossy().starts_with('.');
    let walk = WalkDir::new(folder).min_depth(1).follow_links(true).into_iter();
    let mut files = Vec::new();
    for entry in walk.filter_entry(|entry| !is_hidden(entry.file_name())) {
        let path = match entry {
            Ok(entry) if entry.file_type().is_dir() => continue,
            Ok(entry) => entry.into_path(),
            // A link to a folder that contains it, whose images are listed anyway.
            Err(error) if error.loop_ancestor().is_some() => continue,
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_owned();
                // A link to nothing is listed, and is then a broken image.
                if !path.is_symlink() {
                    let error = error.into_io_error().unwrap_or_else(|| ErrorKind::Other.into());
                    return Err(unreadable(&path)(error));
                }
                path
            }
        };
        if data::source::is_image(&path) && !path.file_name().is_some_and(is_hidden) {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Error::NoImageFiles { path: folder.to_owned() }),
        false => Ok(files),
    }
}

/// Returns a short digest of the names and sizes of files.
pub fn fingerprint(files: &[PathBuf]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(file.metadata().map_or(0, |data| data.len()).to_le_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Embeds images one by one, because their sizes differ.
///
/// # Errors
/// Returns an error if no image is readable, or the network fails.
///
/// # Source
/// DINO's eval_image_retrieval.py and eval_copy_detection.py at 7c446df.
///
/// # Deviations
/// Images are reduced with the bicubic filter that all evaluations here use; DINO's retrieval uses
/// Lanczos.
pub fn embed(
    files: &[ImageFile],
    options: &EmbedOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Embedded> {
    let mut rows: Vec<Option<Tensor>> = files.iter().map(|_| None).collect();
    let mut broken = Vec::new();
    let workers = available_parallelism().map_or(1, usize::from);
    // Decoding threads must not capture the network or its device.
    let (pixels, kind) = (&options.pixels, options.kind);
    let least = least_side(options.frozen.network.config().patch_size, kind);
    let make = |index: usize| prepared(&files[index], pixels, kind, least);
    in_order(0..files.len(), workers, make, |index, image: Result<Image>| {
        match image {
            // A failure of the network is not the image's fault, so it is not recorded as a broken
            // image.
            Ok(image) => rows[index] = Some(vector(&image, options)?),
            Err(error) => {
                let (name, reason) =
                    (files[index].path.display().to_string(), base::error_chain(&error));
                broken.push(BrokenImage { index, name, reason });
            }
        }
        progress(index + 1, files.len());
        Ok::<_, Error>(())
    })?;
    let Some(width) = rows.iter().flatten().map(|row: &Tensor| row.size()[0]).next() else {
        let first = broken.first().map(|b| format!("{}: {}", b.name, b.reason)).unwrap_or_default();
        return Err(Error::NoImages { asked: files.len(), first });
    };
    let zeros = || Tensor::zeros([width], (Kind::Float, Device::Cpu));
    let rows: Vec<Tensor> = rows.into_iter().map(|row| row.unwrap_or_else(zeros)).collect();
    Ok(Embedded { features: Tensor::f_stack(&rows, 0)?, broken })
}

/// Returns the minimum side in pixels that leaves at least one patch at the smallest scale.
fn least_side(patch: i64, kind: ImageFeatureKind) -> u32 {
    let patch = u32::try_from(patch).unwrap_or(u32::MAX);
    match kind {
        ImageFeatureKind::Cls { multi_scale: true, .. } => 2 * patch,
        ImageFeatureKind::Pixels { network: [_, least], .. } => least,
        _ => patch,
    }
}

/// Reads, cuts, and resizes an image; fails if a side would have fewer than `least` pixels.
fn prepared(
    file: &ImageFile,
    pixels: &PixelFormat,
    kind: ImageFeatureKind,
    least: u32,
) -> Result<Image> {
    let bytes = fs::read(&file.path).map_err(unreadable(&file.path))?;
    let image = decode_as(&bytes, pixels).map_err(data::Error::from)?.image;
    let image = match file.part {
        Some(part) => cut(&image, part).ok_or_else(|| {
            let (width, height) = image.dimensions();
            let problem = format!("{part:?} is outside the image of {width} x {height} pixels");
            Error::Setting { key: "part", problem }
        })?,
        None => image,
    };
    let (width, height) = match kind {
        ImageFeatureKind::Cls { most, .. }
        | ImageFeatureKind::Pixels { network: [most, _], .. } => {
            thumbnail(image.dimensions(), most)
        }
        ImageFeatureKind::ClsGem { side } => (side, side),
    };
    if width.min(height) < least {
        let problem = format!(
            "must be at least {least} pixels high and wide for this network (got {width} x \
             {height} after resizing)"
        );
        return Err(Error::Setting { key: "image", problem });
    }
    let (width, height) = match kind {
        ImageFeatureKind::Pixels { side, .. } => (side, side),
        _ => (width, height),
    };
    resized(&image, width, height)
}

/// Returns a part of an image, clipped to its borders, or `None` if nothing is left.
fn cut(image: &Image, [left, top, right, bottom]: [f64; 4]) -> Option<Image> {
    let (width, height) = image.dimensions();
    let within = |value: f64, most: u32| value.round().clamp(0.0, f64::from(most)) as usize;
    let (left, right) = (within(left, width), within(right, width));
    let (top, bottom) = (within(top, height), within(bottom, height));
    if left >= right || top >= bottom {
        return None;
    }
    let (channels, row) = (image.channels(), width as usize * image.channels());
    let rows = (top..bottom)
        .flat_map(|y| &image.data()[y * row + left * channels..y * row + right * channels]);
    Image::new(rows.copied().collect(), (right - left) as u32, (bottom - top) as u32, channels)
}

/// Returns the size that Pillow's `thumbnail` gives: the longer side becomes `most`, and images
/// that are small enough are unchanged.
fn thumbnail((width, height): (u32, u32), most: u32) -> (u32, u32) {
    if width.max(height) <= most {
        return (width, height);
    }
    let aspect = f64::from(width) / f64::from(height);
    // Of the two adjacent integers, the one whose aspect ratio is closer.
    let rounded = |side: f64, error: &dyn Fn(f64) -> f64| {
        let (low, high) = (side.floor(), side.ceil());
        (if error(low) <= error(high) { low } else { high }).max(1.0) as u32
    };
    let long = f64::from(most);
    if width >= height {
        let error = |n: f64| if n == 0.0 { 0.0 } else { (aspect - long / n).abs() };
        (most, rounded(long / aspect, &error))
    } else {
        (rounded(long * aspect, &|n| (aspect - n / long).abs()), most)
    }
}

/// Computes the vector of an image, `[D]`.
fn vector(image: &Image, options: &EmbedOptions<'_>) -> Result<Tensor> {
    if let ImageFeatureKind::Pixels { .. } = options.kind {
        let pixels = Tensor::f_from_slice(image.data())?.f_view([-1, image.channels() as i64])?;
        let pixels = pixels.to_kind(Kind::Float); // [side * side, C]
        let mean = pixels.mean_dim([0].as_slice(), true, Kind::Float);
        return Ok((pixels - mean).flatten(0, -1));
    }
    let (width, height) = image.dimensions();
    let shape = [1, height as usize, width as usize];
    let input = options.frozen.input(image.data(), shape)?;
    let of = |input: &Tensor| options.frozen.forward(|network| one(network, input, options.kind));
    let feature = match options.kind {
        ImageFeatureKind::Cls { multi_scale: true, .. } => {
            let mut sum = of(&input)?;
            for factor in [0.5_f64.sqrt(), 0.5] {
                let side = |side: u32| ((f64::from(side) * factor) as i64).max(1);
                let size = [side(height), side(width)];
                sum += of(&input.f_upsample_bilinear2d(size, false, None, None)?)?;
            }
            unit_rows(&(sum / 3.0))
        }
        _ => of(&input)?,
    };
    Ok(feature.squeeze_dim(0).f_to_device(Device::Cpu)?)
}

fn one(network: &VisionTransformer, input: &Tensor, kind: ImageFeatureKind) -> Result<Tensor> {
    let patch = network.config().patch_size;
    let size = input.size();
    let whole = |side: i64| side / patch * patch;
    let input = input.narrow(2, 0, whole(size[2])).narrow(3, 0, whole(size[3])).contiguous();
    let ImageFeatureKind::ClsGem { .. } = kind else {
        return Ok(network.forward_cls(&input, Mode::Eval)?.to_kind(Kind::Float));
    };
    let tokens = network.forward(&input, Mode::Eval)?;
    let patches = tokens.patches.to_kind(Kind::Float).clamp_min(1e-6); // [1, N, D]
    let gem = patches.pow_tensor_scalar(4.0).mean_dim(1, false, None).pow_tensor_scalar(0.25);
    Ok(Tensor::cat(&[tokens.cls.to_kind(Kind::Float), gem], 1)) // [1, 2 D]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_pillow() {
        // Image.thumbnail of Pillow 13.0.0.
        for (from, most, to) in [
            ((1024, 768), 224, (224, 168)),
            ((768, 1024), 224, (168, 224)),
            ((1024, 683), 512, (512, 342)),
            ((333, 1000), 224, (75, 224)),
            ((200, 100), 224, (200, 100)),
            ((1000, 1), 224, (224, 1)),
        ] {
            assert_eq!(thumbnail(from, most), to, "{from:?}");
        }
    }

    #[test]
    fn a_part_is_cut_within_the_image() {
        let image = Image::new((0..24).collect(), 4, 6, 1).unwrap();
        let part = cut(&image, [1.2, 1.0, 3.0, 2.6]).unwrap();
        assert_eq!((part.dimensions(), part.data()), ((2, 2), [5, 6, 9, 10].as_slice()));
        assert_eq!(cut(&image, [-5.0, -5.0, 99.0, 99.0]).unwrap(), image);
        assert!(cut(&image, [3.0, 0.0, 3.0, 5.0]).is_none());
    }
}
