//! The errors of this crate.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid.
    #[error("{key}: {problem}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong with it, and how to fix it.
        problem: String,
    },
    /// No image of a set could be read.
    #[error("none of the {asked} images could be read; the first: {first}")]
    NoImages {
        /// Number of images requested.
        asked: usize,
        /// Name of the first image, with the reason.
        first: String,
    },
    /// Another process that shares the evaluation has failed.
    #[error("another process failed in its part of the evaluation; see its message")]
    Elsewhere,
    /// A set has no labels, but labels are required.
    #[error(
        "the {set} images have no labels: put them into one folder per class, at least two of them, or list them with labels"
    )]
    Unlabeled {
        /// The set, "training" or "test".
        set: &'static str,
    },
    /// All training images belong to one class.
    #[error(
        "the {count} labeled training images all belong to one class: at least two classes are \
         needed"
    )]
    OneClass {
        /// Number of labeled training images.
        count: usize,
    },
    /// One set names its classes and the other numbers them, so they cannot be matched.
    #[error(
        "the {named} set names its classes, but the {numbered} set numbers them: use names or \
         numbers for both"
    )]
    NamesAndNumbers {
        /// The set with names.
        named: &'static str,
        /// The set with numbers.
        numbered: &'static str,
    },
    /// The test set has classes that the training set lacks.
    #[error(
        "the test set has classes that the training set does not have: {classes}; both must use \
         the same classes"
    )]
    ClassMismatch {
        /// The classes, as a comma-separated list.
        classes: String,
    },
    /// Two sets of features have different widths.
    #[error(
        "training features have width {train}, but test features have width {test}: use the same \
         model for both"
    )]
    Width {
        /// Width of the training features.
        train: i64,
        /// Width of the test features.
        test: i64,
    },
    /// Features are infinite or NaN.
    #[error("features of {count} of {total} {set} images are not finite: the weights are broken")]
    NotFinite {
        /// The set.
        set: &'static str,
        /// Number of images with such a feature.
        count: i64,
        /// Number of images in the set.
        total: i64,
    },
    /// Features of patches are infinite or NaN.
    #[error(
        "features of {count} of {total} patches of {set} images are not finite: the weights are broken"
    )]
    PatchesNotFinite {
        /// The set.
        set: &'static str,
        /// Number of patches with such a feature.
        count: i64,
        /// Number of patches that were checked.
        total: i64,
    },
    /// Every pixel of the label images to learn from is ignored.
    #[error("every pixel of the training label images is ignored")]
    NothingLabeled,
    /// Every pixel of the label images to compare predictions with is ignored.
    #[error("every pixel of the scored label images is ignored")]
    NothingToScore,
    /// No depth is in range.
    #[error(
        "no depth of any image is between {least} and {most} m: check the divisor of the depth \
         maps and the maximum depth"
    )]
    NoDepths {
        /// Smallest depth in meters.
        least: f64,
        /// Largest depth in meters.
        most: f64,
    },
    /// A predicted depth is NaN.
    #[error("a predicted depth is NaN: the weights are broken")]
    DepthNotFinite,
    /// The loss of a head is infinite or NaN.
    #[error("the loss of the head is {value}: lower its learning rate")]
    LossNotFinite {
        /// The loss.
        value: f64,
    },
    /// Cached features need more memory than allowed.
    #[error(
        "cached features need more than {gb} GB: allow more, use fewer images, or train without a cache"
    )]
    CacheTooSmall {
        /// The limit in GB.
        gb: f64,
    },
    /// A ground-truth file is inconsistent.
    #[error("{}: {problem}", path.display())]
    GroundTruth {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No query has a positive.
    #[error("no query has a matching image in the ground truth")]
    NoPositives,
    /// A folder has no image files.
    #[error("{}: contains no image files", path.display())]
    NoImageFiles {
        /// The folder.
        path: PathBuf,
    },
    /// A folder does not have the folders of Copydays.
    #[error(
        "{}: is not Copydays: it needs the folder original and at least one of strong, jpegqual/N, and crops/N",
        path.display()
    )]
    NoCopydays {
        /// The folder.
        path: PathBuf,
    },
    /// A tensor does not have the expected shape.
    #[error("{what} must have the shape {expected} (got {got:?})")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// The expected shape, in words.
        expected: &'static str,
        /// The actual shape.
        got: Vec<i64>,
    },
    /// The name of a feature file does not indicate a supported format.
    #[error("{}: expected a file that ends in .npy, .safetensors or .csv", path.display())]
    FeatureFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file does not contain what is expected of it, such as features or their labels.
    #[error("{}: {problem}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file cannot be read.
    #[error("{}: cannot read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A safetensors file cannot be read or written.
    #[error(transparent)]
    Tensors(model::Error),
    /// Images could not be read or transformed.
    #[error("cannot read images")]
    Data(#[from] data::Error),
    /// An image could not be cropped.
    #[error("cannot crop an image")]
    Augment(#[from] augment::Error),
    /// No masks could be computed from the features of an image.
    #[error("cannot find objects")]
    Objects(#[from] objects::Error),
    /// The model rejected its input.
    #[error("the model failed")]
    Model(#[from] model::Error),
    /// There are too few training images to hold some out for choosing `C`.
    #[error(
        "{images} labeled training images are too few to hold some out for choosing C: give a \
         single C"
    )]
    TooFewToChoose {
        /// Number of labeled training images.
        images: usize,
    },
    /// There are too few training images to hold some out for a linear probe.
    #[error(
        "{images} labeled training images are too few to hold out a tenth: choose on the test \
         images"
    )]
    TooFewToHoldOut {
        /// Number of labeled training images.
        images: usize,
    },
    /// No image of a batch could be read, although all could be read before.
    #[error(
        "none of the {count} images of a batch could be read, although all of them could be read \
         before"
    )]
    LostImages {
        /// Number of images.
        count: usize,
    },
    /// A feature was not requested from the store.
    #[error("the features have no '{name}'")]
    NoFeature {
        /// The feature.
        name: String,
    },
    /// A results file is damaged.
    #[error(
        "{}: the file is damaged: move or delete it, and the next evaluation creates a new one",
        path.display()
    )]
    Results {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A record has no main metric.
    #[error("the evaluation {protocol} has no result")]
    NoScore {
        /// The protocol.
        protocol: String,
    },
    /// A score is infinite or NaN.
    #[error("the evaluation {protocol} has no result: {what} is not finite")]
    ScoreNotFinite {
        /// The protocol.
        protocol: String,
        /// The score.
        what: String,
    },
    /// The device does not support autocast.
    #[error(transparent)]
    Autocast(#[from] torch_ext::Error),
    /// A libtorch operation failed.
    #[error("a libtorch operation failed")]
    Torch(#[from] tch::TchError),
}

/// Returns a function that wraps the error of reading a file.
pub(crate) fn unreadable<E: StdError + Send + Sync + 'static>(
    path: &Path,
) -> impl FnOnce(E) -> Error {
    |error| Error::Unreadable { path: path.to_owned(), source: Box::new(error) }
}

/// Returns a function that wraps the error of writing a file.
pub(crate) fn unwritten<E: StdError + Send + Sync + 'static>(
    path: &Path,
) -> impl FnOnce(E) -> Error {
    |error| Error::Unwritten { path: path.to_owned(), source: Box::new(error) }
}

/// Returns the error for a file with invalid content.
pub(crate) fn invalid(path: &Path, problem: String) -> Error {
    Error::InvalidFile { path: path.to_owned(), problem }
}
