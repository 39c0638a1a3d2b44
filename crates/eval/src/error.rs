//! What can go wrong in this crate.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting makes no sense.
    #[error("{key}: {problem}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// No image of a set could be read.
    #[error("none of the {asked} images could be read; the first: {first}")]
    NoImages {
        /// Number of images asked for.
        asked: usize,
        /// Name and reason of the first.
        first: String,
    },
    /// A set without any label where labels are needed.
    #[error(
        "the {set} images have no labels: put them into one folder per class, or list them with labels"
    )]
    Unlabeled {
        /// Which set, "train" or "test".
        set: &'static str,
    },
    /// All train images belong to one class.
    #[error("the {count} labeled train images are all of one class: nothing to tell apart")]
    OneClass {
        /// Number of labeled train images.
        count: usize,
    },
    /// One set names its classes and the other numbers them: nothing tells which belongs to which.
    #[error(
        "the {named} set names its classes and the {numbered} set numbers them: list both with names, \
         or both with numbers"
    )]
    NamesAndNumbers {
        /// The set with names.
        named: &'static str,
        /// The set with numbers.
        numbered: &'static str,
    },
    /// The test set has classes that the train set does not know.
    #[error(
        "classes of the test set that the train set does not have: {classes}; both must name \
         their classes alike"
    )]
    ClassMismatch {
        /// The classes, joined.
        classes: String,
    },
    /// Two sets of features of different width.
    #[error(
        "train features are {train} wide but test features {test}: use the same model for both"
    )]
    Width {
        /// Width of the train features.
        train: i64,
        /// Width of the test features.
        test: i64,
    },
    /// Features that are infinite or not a number.
    #[error("features of {count} of {total} {set} images are not finite: the weights are broken")]
    NotFinite {
        /// Which set.
        set: &'static str,
        /// Images with such a feature.
        count: i64,
        /// Images of the set.
        total: i64,
    },
    /// A tensor does not have the shape that was agreed.
    #[error("{what} must have the shape {expected} (got {got:?})")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// The shape in words.
        expected: &'static str,
        /// What came.
        got: Vec<i64>,
    },
    /// A file of features is called like none that can be read or written.
    #[error("{}: expected a file that ends in .npy, .safetensors or .csv", path.display())]
    FeatureFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no features.
    #[error("{}: {problem}", path.display())]
    FeatureFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of features cannot be read.
    #[error("{}: cannot read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of features cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A safetensors file of features cannot be read or written.
    #[error(transparent)]
    Tensors(model::Error),
    /// Images could not be read or transformed.
    #[error("cannot read images")]
    Data(#[from] data::Error),
    /// An image could not be cropped.
    #[error("cannot crop an image")]
    Augment(#[from] augment::Error),
    /// The model refused its input.
    #[error("the model failed")]
    Model(#[from] model::Error),
    /// a libtorch operation failed.
    #[error("a libtorch operation failed")]
    Torch(#[from] tch::TchError),
}
