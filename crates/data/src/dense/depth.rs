//! Images with a depth for every pixel.

use std::fmt;
use std::path::{Path, PathBuf};

use decode::{Image, LabelPixels, PixelFormat, decode_as, read_labels};
use ndarray::Array2;
use ndarray_npy::{ReadNpyError, ReadNpyExt};

use super::pairs::{Pair, PairOptions, contents, pair};
use crate::error::{Error, Result};

/// How depth maps are read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DepthOptions {
    /// The pixel value in a PNG that stands for a depth of one meter: 1000 in NYU, 256 in KITTI.
    pub divisor: f64,
    /// A text file with one name per line, without extension: only these images are used.
    pub list: Option<PathBuf>,
    /// Number of channels and range of values of the images.
    pub pixels: PixelFormat,
}

impl DepthOptions {
    /// Creates options for RGB images and for PNG maps with this divisor.
    ///
    /// # Errors
    /// Returns an error if the divisor is not above 0.
    pub fn new(divisor: f64) -> Result<Self> {
        if !divisor.is_finite() || divisor <= 0.0 {
            let problem = format!("must be greater than 0 (got {divisor})");
            return Err(Error::Config { key: "divisor", problem });
        }
        Ok(Self { divisor, list: None, pixels: PixelFormat::RGB })
    }
}

/// The depth of each pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthMap {
    /// Number of pixels per row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Depths in meters, row by row from the top; 0 where no depth was measured.
    pub meters: Vec<f32>,
}

/// An image and the depth of each of its pixels.
#[derive(Debug, Clone)]
pub struct DepthSample {
    /// The pixels.
    pub image: Image,
    /// The depths, of the same size as the image.
    pub depth: DepthMap,
}

/// Pairs of an image and a depth map. Nothing is decoded until it is loaded.
pub struct DepthSet {
    images: PathBuf,
    maps: PathBuf,
    pairs: Vec<Pair>,
    options: DepthOptions,
    notices: Vec<String>,
}

impl fmt::Debug for DepthSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepthSet")
            .field("images", &self.images)
            .field("maps", &self.maps)
            .field("len", &self.pairs.len())
            .finish_non_exhaustive()
    }
}

impl DepthSet {
    /// Lists the images below `images` and the depth maps below `maps`, paired as in
    /// [`DenseSet::open`](super::DenseSet::open). A depth map is a 16-bit gray PNG, or a
    /// two-dimensional `.npy` array of meters (float32 or float64).
    ///
    /// # Errors
    /// Same as [`DenseSet::open`](super::DenseSet::open).
    pub fn open(images: &Path, maps: &Path, options: DepthOptions) -> Result<Self> {
        let named = PairOptions {
            images,
            labels: maps,
            image_suffix: "",
            label_suffix: "",
            list: options.list.as_deref(),
            called: ["a depth map", "depth maps"],
            is_labels: is_map,
        };
        let (pairs, notices) = pair(&named)?;
        Ok(Self { images: images.into(), maps: maps.into(), pairs, options, notices })
    }

    /// Returns the number of images with a depth map.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Returns the name of image `index`: its path below the folder. Empty if there is no such
    /// image.
    pub fn name(&self, index: usize) -> String {
        self.pairs.get(index).map_or_else(String::new, |pair| pair.image.name.clone())
    }

    /// Returns the folder of the images, as given to [`Self::open`].
    pub fn path(&self) -> &Path {
        &self.images
    }

    /// Returns what was found besides pairs, one sentence each.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Returns a short hex digest that changes with the names and sizes of the files, the divisor,
    /// and the contents of some images and maps. Contents matter because all `.npy` files of one
    /// resolution have the same size.
    pub fn fingerprint(&self) -> String {
        let files = self.pairs.iter().flat_map(|pair| [&pair.image, &pair.labels]);
        let files = files.map(|file| (file.name.clone(), None, file.place.bytes()));
        let divisor = (format!("divisor {}", self.options.divisor), None, 0);
        crate::source::digest(files.chain([divisor, (contents(&self.pairs), None, 0)]))
    }

    /// Reads image `index` and its depth map.
    ///
    /// # Errors
    /// Returns an error if there is no such image; or an error that names the file if it cannot be
    /// read or decoded, if it is not a valid depth map, if its size differs from that of the image,
    /// or if no depth was measured.
    pub fn load(&self, index: usize) -> Result<DepthSample> {
        let len = self.len();
        let pair = self.pairs.get(index).ok_or(Error::Index { index, len })?;
        let image = decode_as(&pair.image.place.read()?, &self.options.pixels);
        let image = image
            .map_err(|error| {
                let name = self.images.join(&pair.image.name).display().to_string();
                Error::Image { name, source: Box::new(error.into()) }
            })?
            .image;
        let path = self.maps.join(&pair.labels.name);
        let depth = self.map(&pair.labels.place.read()?, &path)?;
        let (width, height) = image.dimensions();
        if (depth.width, depth.height) != (width, height) {
            let problem = format!(
                "the depth map has {}x{} pixels, but its image {} has {width}x{height}: both must \
                 have the same size",
                depth.width,
                depth.height,
                self.images.join(&pair.image.name).display(),
            );
            return Err(Error::Path { path, problem });
        }
        if depth.meters.iter().all(|&depth| depth == 0.0) {
            let problem = "the depth map has no valid pixels (all depths are 0)".to_owned();
            return Err(Error::Path { path, problem });
        }
        Ok(DepthSample { image, depth })
    }

    fn map(&self, bytes: &[u8], path: &Path) -> Result<DepthMap> {
        match path.extension().is_some_and(|end| end.eq_ignore_ascii_case("npy")) {
            true => read_npy(bytes),
            false => self.read_png(bytes, path),
        }
        .map_err(|problem| match problem {
            Problem::Said(problem) => Error::Path { path: path.into(), problem },
            Problem::Broken(error) => error,
        })
    }

    fn read_png(&self, bytes: &[u8], path: &Path) -> std::result::Result<DepthMap, Problem> {
        let labels = read_labels(bytes).map_err(|error| {
            let name = path.display().to_string();
            Problem::Broken(Error::Image { name, source: Box::new(error.into()) })
        })?;
        let LabelPixels::Ids(values) = labels.pixels else {
            return Err(Problem::Said(
                "the depth map is a color image: it must be grayscale".to_owned(),
            ));
        };
        // In the header of a PNG, the bit depth and the color type follow the size.
        if bytes.get(24..26) != Some(&[16, 0]) {
            return Err(Problem::Said(
                "the depth map has a palette or at most 8 bits per pixel, which is too coarse: \
                 save it as 16-bit grayscale"
                    .to_owned(),
            ));
        }
        let meters = values.iter().map(|&value| (f64::from(value) / self.options.divisor) as f32);
        Ok(DepthMap { width: labels.width, height: labels.height, meters: meters.collect() })
    }
}

/// What is wrong with a depth map.
enum Problem {
    Said(String),
    Broken(Error),
}

fn read_npy(bytes: &[u8]) -> std::result::Result<DepthMap, Problem> {
    check_npy_size(bytes)?;
    let broken = |error: ReadNpyError| {
        Problem::Said(format!("not a two-dimensional .npy array of float32 or float64: {error}"))
    };
    let values: Array2<f32> = match Array2::<f32>::read_npy(bytes) {
        Err(ReadNpyError::WrongDescriptor(_)) => {
            Array2::<f64>::read_npy(bytes).map_err(broken)?.mapv(|depth| depth as f32)
        }
        read => read.map_err(broken)?,
    };
    let (height, width) = values.dim();
    let [width, height] = [width, height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let measured = |depth: f32| if depth.is_finite() && depth > 0.0 { depth } else { 0.0 };
    // `iter` yields row-major order, even if the file is in column-major order.
    let meters = values.iter().map(|&depth| measured(depth)).collect();
    Ok(DepthMap { width, height, meters })
}

/// Rejects a header that declares more values than the file can hold, before memory is allocated
/// for them.
fn check_npy_size(bytes: &[u8]) -> std::result::Result<(), Problem> {
    let header = String::from_utf8_lossy(bytes.get(..bytes.len().min(1024)).unwrap_or_default());
    let shape = header.split_once("'shape':").and_then(|(_, rest)| rest.split_once(')'));
    let Some((shape, _)) = shape else { return Ok(()) }; // the reader reports what is wrong
    let mut sides = shape
        .trim_start_matches([' ', '('])
        .split(',')
        .filter_map(|side| side.trim().parse::<usize>().ok());
    let values = sides.try_fold(1_usize, usize::checked_mul);
    match values.is_some_and(|values| values <= bytes.len() / 4) {
        true => Ok(()),
        false => {
            Err(Problem::Said(format!("a .npy whose shape,{shape}), is larger than the file")))
        }
    }
}

fn is_map(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("png") || end.eq_ignore_ascii_case("npy"))
}
