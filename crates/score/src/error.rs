//! The errors of this crate.

use std::path::PathBuf;

use crate::coco::ImageId;

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reasons why a file cannot be scored, read, or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is not JSON, or does not have COCO's structure.
    #[error("{} is not {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the file should be.
        expected: &'static str,
        /// What the parser found, and where.
        source: serde_json::Error,
    },
    /// A JSON file contains `NaN` or `Infinity`, which JSON does not allow.
    #[error(
        "{} contains {word} in line {line}, column {column}, which is not a number in JSON: \
         remove that entry, or write a finite number", path.display()
    )]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// The word that it contains.
        word: &'static str,
        /// Line number, from 1.
        line: usize,
        /// Column number, from 1.
        column: usize,
    },
    /// An entry of a COCO file cannot be used.
    #[error("{name}: {entry} {source}")]
    Entry {
        /// Path of the file, or the name that the caller chose.
        name: String,
        /// The entry, such as `annotations[3] (id 17)`.
        entry: String,
        /// What is wrong with it.
        source: EntryError,
    },
    /// A PNG file cannot be read as an annotation.
    #[error("{} cannot be read as an annotation", path.display())]
    Png {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PngError,
    },
    /// A folder of video object segmentations cannot be scored.
    #[error("{} {source}", folder.display())]
    Sequence {
        /// The folder, or the file in it.
        folder: PathBuf,
        /// What is wrong with it.
        source: SequenceError,
    },
}

/// What is wrong with an entry of a COCO file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A key that the evaluation needs is missing.
    #[error("lacks the key \"{key}\"; add it, or evaluate another kind")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Two entries have the same id.
    #[error("has the same id as an earlier entry; give each entry its own id")]
    Repeated,
    /// The image is not in the list of images.
    #[error(
        "refers to image {image}, which is not in the \"images\" of {truth}; use the ground truth \
         that the results were computed for"
    )]
    UnknownImage {
        /// The id of the image.
        image: ImageId,
        /// The file that lists the images.
        truth: String,
    },
    /// The category is not in the list of categories.
    #[error(
        "refers to category {category}, which is not in the \"categories\" of {truth}; correct \
         the ids, or score without classes"
    )]
    UnknownCategory {
        /// The id of the category.
        category: i64,
        /// The file that lists the categories.
        truth: String,
    },
    /// A number is not finite.
    #[error("has the {key} {value}, which is not finite; remove the entry or correct it")]
    NotFinite {
        /// The key.
        key: &'static str,
        /// The number.
        value: f64,
    },
    /// A box has a negative side, or a number that is not finite.
    #[error(
        "has the box {values:?}, which must be x, y, width, and height, with neither side negative"
    )]
    Box {
        /// The numbers.
        values: [f64; 4],
    },
    /// The mask is invalid.
    #[error("has a mask that cannot be used")]
    Mask(#[source] MaskError),
}

/// Reasons why a mask is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// The run lengths do not add up to the number of pixels.
    #[error(
        "the run lengths add up to {sum} pixels, but {height} x {width} is {}; \
         check that the size is [height, width]", u64::from(*height) * u64::from(*width)
    )]
    Counts {
        /// Number of rows.
        height: u32,
        /// Number of columns.
        width: u32,
        /// The sum of the lengths.
        sum: u64,
    },
    /// The number of pixels does not match the size.
    #[error("a mask of {height} x {width} cannot have {found} pixels")]
    Pixels {
        /// Number of rows.
        height: u32,
        /// Number of columns.
        width: u32,
        /// Number of pixels.
        found: usize,
    },
    /// The mask has more pixels than a run length can count.
    #[error("a mask of {height} x {width} has more pixels than COCO's run lengths can count")]
    TooLarge {
        /// Number of rows.
        height: u32,
        /// Number of columns.
        width: u32,
    },
    /// Two sizes differ.
    #[error(
        "the mask has {} x {} pixels, but the image has {} x {} (height x width); resize the mask to \
         the image", found[0], found[1], expected[0], expected[1]
    )]
    Sizes {
        /// Height and width of the image, or of the other mask.
        expected: [u32; 2],
        /// Height and width of the mask.
        found: [u32; 2],
    },
    /// There is no mask where at least one is needed.
    #[error(
        "there is no polygon or mask; an empty mask is {{\"size\": [h, w], \"counts\": [h * w]}}"
    )]
    None,
    /// A string of run lengths contains an invalid byte.
    #[error(
        "the string of run lengths contains the byte {byte} at position {place}, which cannot occur"
    )]
    Character {
        /// Index of the byte.
        place: usize,
        /// The byte.
        byte: u8,
    },
    /// A string of run lengths ends inside a number.
    #[error("the string of run lengths ends inside a number; write the file again")]
    CutOff,
    /// A run length is negative or too large.
    #[error("run {index} has the length {count}; write the file again")]
    Run {
        /// Index of the run.
        index: usize,
        /// The length.
        count: i64,
    },
    /// A polygon has too few coordinates, or an odd number of them.
    #[error(
        "polygon {index} has {count} coordinates; a polygon is a list of at least three points x, \
         y, not a box"
    )]
    Polygon {
        /// Index of the polygon.
        index: usize,
        /// Number of coordinates.
        count: usize,
    },
    /// A coordinate is not finite, or far beyond any image.
    #[error("the coordinate {value} is not within a million pixels")]
    Coordinate {
        /// The coordinate.
        value: f64,
    },
}

/// Reasons why a PNG file cannot be read as an annotation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PngError {
    /// The file is broken, or not a PNG image of labels.
    #[error(transparent)]
    Decode(#[from] decode::Error),
    /// The pixels are colors rather than object numbers.
    #[error("its pixels are colors; save the ids of the objects as palette indices or gray values")]
    Colors,
    /// An object number is too large.
    #[error("it contains the id {number}, but objects have ids up to 254")]
    Number {
        /// The number.
        number: u16,
    },
}

/// Reasons why a sequence cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// There are no folders of frames.
    #[error(
        "contains no folder of PNG files; pass the folder that contains one folder per sequence"
    )]
    NoSequences,
    /// There are too few frames.
    #[error(
        "has {frames} frames, but a sequence needs at least three: its first and last are not \
         scored"
    )]
    Short {
        /// Number of PNG files.
        frames: usize,
    },
    /// The results lack a sequence.
    #[error("is missing, but {} contains it; add it, or name the sequences to score", truth.display())]
    MissingSequence {
        /// The folder of the ground truth.
        truth: PathBuf,
    },
    /// The results lack a frame.
    #[error(
        "is missing; every frame of the ground truth but the first and the last needs a PNG of its name"
    )]
    MissingFrame,
    /// The first annotation shows no object.
    #[error(
        "shows no object with an id from 1 to 254; if 255 is the object, as in DAVIS 2016, use --single-object"
    )]
    NoObject,
    /// The results contain an object that the ground truth does not have.
    #[error(
        "contains object {found}, but the first annotation has {objects} objects; number them as it does"
    )]
    UnknownObject {
        /// The number in the results.
        found: u8,
        /// Number of objects.
        objects: u8,
    },
    /// The sizes differ.
    #[error("has {} x {} pixels, but the annotation has {} x {} (width x height); resize it with nearest neighbors",
        found[0], found[1], expected[0], expected[1])]
    Size {
        /// Width and height of the annotation.
        expected: [u32; 2],
        /// Width and height of the result.
        found: [u32; 2],
    },
}
