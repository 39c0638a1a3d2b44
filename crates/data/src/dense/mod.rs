//! Images with a class or a depth for every pixel, as pairs of an image and a file of the same
//! name.

mod depth;
mod files;
mod in_order;
mod pairs;
mod presets;
mod rules;

use std::fmt;
use std::path::{Path, PathBuf};

use decode::{Image, PixelFormat, decode_as, read_labels};

pub use depth::{DepthMap, DepthOptions, DepthSample, DepthSet};
pub use in_order::in_order;
pub use presets::Preset;
pub use rules::{IGNORE, LabelMap, LabelRules};

use crate::error::{Error, Result};
use crate::source::is_image;
use pairs::{Pair, PairOptions, contents, pair};

/// How images and their labels are paired, and what label values mean.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DenseOptions {
    /// Meaning of the values in label images.
    pub rules: LabelRules,
    /// Suffix of the name of each image, before the extension, that is not part of the name that
    /// pairs it with its labels, such as `_leftImg8bit` in Cityscapes.
    pub image_suffix: String,
    /// The same suffix for label images; files whose names do not end with it are not labels.
    pub label_suffix: String,
    /// A text file with one name per line, without extension: only these images are used.
    pub list: Option<PathBuf>,
    /// Number of channels and range of values of the images.
    pub pixels: PixelFormat,
}

impl DenseOptions {
    /// Creates options that pair files with equal names, and read RGB images.
    pub fn new(rules: LabelRules) -> Self {
        Self {
            rules,
            image_suffix: String::new(),
            label_suffix: String::new(),
            list: None,
            pixels: PixelFormat::RGB,
        }
    }
}

/// An image and the class of each of its pixels.
#[derive(Debug, Clone)]
pub struct DenseSample {
    /// The pixels.
    pub image: Image,
    /// The classes, of the same size as the image.
    pub labels: LabelMap,
}

/// Pairs of an image and a label image. Nothing is decoded until it is loaded.
pub struct DenseSet {
    images: PathBuf,
    labels: PathBuf,
    pairs: Vec<Pair>,
    options: DenseOptions,
    notices: Vec<String>,
}

impl fmt::Debug for DenseSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenseSet")
            .field("images", &self.images)
            .field("labels", &self.labels)
            .field("len", &self.pairs.len())
            .finish_non_exhaustive()
    }
}

impl DenseSet {
    /// Lists the images below `images` and the label images below `labels`. Each of these is a
    /// folder, or a folder inside a tar file, such as `camvid.tar/camvid/train/images`.
    ///
    /// Two files form a pair if their paths below these folders are equal without extension and
    /// suffix. Images without labels and labels without an image are skipped, and [`Self::notices`]
    /// reports them.
    ///
    /// # Errors
    /// Returns an error if a folder does not exist, cannot be listed, or has no images; if two
    /// files have the same name up to their extension; or if no image has labels.
    pub fn open(images: &Path, labels: &Path, options: DenseOptions) -> Result<Self> {
        let named = PairOptions {
            images,
            labels,
            image_suffix: &options.image_suffix,
            label_suffix: &options.label_suffix,
            list: options.list.as_deref(),
            called: ["a label image", "labels"],
            is_labels: is_image,
        };
        let (pairs, notices) = pair(&named)?;
        Ok(Self { images: images.into(), labels: labels.into(), pairs, options, notices })
    }

    /// Returns the number of images with labels.
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

    /// Returns the meaning of label values.
    pub fn rules(&self) -> &LabelRules {
        &self.options.rules
    }

    /// Returns what was found besides pairs, one sentence each.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Returns a short hex digest that changes with the names and sizes of the images and of their
    /// labels, and with the contents of some of them.
    pub fn fingerprint(&self) -> String {
        let files = self.pairs.iter().flat_map(|pair| [&pair.image, &pair.labels]);
        let files = files.map(|file| (file.name.clone(), None, file.place.bytes()));
        crate::source::digest(files.chain([(contents(&self.pairs), None, 0)]))
    }

    /// Reads image `index` and its labels.
    ///
    /// # Errors
    /// Returns an error if there is no such image; or an error that names the file if it cannot be
    /// read or decoded, if the sizes differ, or if a label value has no meaning.
    pub fn load(&self, index: usize) -> Result<DenseSample> {
        let len = self.len();
        let pair = self.pairs.get(index).ok_or(Error::Index { index, len })?;
        let image = decode_as(&pair.image.place.read()?, &self.options.pixels);
        let image =
            image.map_err(|error| self.failed(&self.images, &pair.image.name, error))?.image;
        let labels = read_labels(&pair.labels.place.read()?);
        let labels = labels
            .map_err(|error| self.failed(&self.labels, &pair.labels.name, error))
            .and_then(|labels| {
                let path = || self.labels.join(&pair.labels.name);
                let problem = |problem| Error::Path { path: path(), problem };
                self.options.rules.apply(labels).map_err(problem)
            })?;
        let (width, height) = image.dimensions();
        if (labels.width, labels.height) != (width, height) {
            let problem = format!(
                "the label image has {}x{} pixels, but its image {} has {width}x{height}: both \
                 must have the same size",
                labels.width,
                labels.height,
                self.images.join(&pair.image.name).display(),
            );
            return Err(Error::Path { path: self.labels.join(&pair.labels.name), problem });
        }
        Ok(DenseSample { image, labels })
    }

    fn failed(&self, folder: &Path, name: &str, error: decode::Error) -> Error {
        let name = folder.join(name).display().to_string();
        Error::Image { name, source: Box::new(error.into()) }
    }
}
