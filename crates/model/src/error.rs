//! What can go wrong in this crate.

use std::path::PathBuf;

use safetensors::SafeTensorError;
use tch::{Device, Kind, TchError};

use crate::weights::pth::PthError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a model or of a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value of a configuration makes no sense.
    #[error("{section}.{key}: {problem}")]
    Config {
        /// Section of the configuration.
        section: &'static str,
        /// Key inside the section.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Images do not have four dimensions, the right channels, or at least one image.
    #[error(
        "images must be [batch >= 1, {channels}, height, width], from model.in_channels (got {got:?})"
    )]
    InputShape {
        /// Channels that the model takes.
        channels: i64,
        /// Shape of the images.
        got: Vec<i64>,
    },
    /// A side of the images is no multiple of the patch.
    #[error(
        "images of {height} x {width} pixels do not divide into patches of {patch_size}: \
         make both sides a multiple of it"
    )]
    NotMultiple {
        /// Height in pixels.
        height: i64,
        /// Width in pixels.
        width: i64,
        /// Side of a patch in pixels.
        patch_size: i64,
    },
    /// Images have another dtype than the parameters.
    #[error("images are {got:?} but the parameters are {expected:?}: convert the images")]
    InputKind {
        /// Kind of the parameters.
        expected: Kind,
        /// Kind of the images.
        got: Kind,
    },
    /// Images live on another device than the parameters.
    #[error("images are on {got:?} but the parameters on {expected:?}: move the images")]
    InputDevice {
        /// Device of the parameters.
        expected: Device,
        /// Device of the images.
        got: Device,
    },
    /// The head was given vectors of another width.
    #[error("the head takes vectors of width {expected} (got a tensor of shape {got:?})")]
    HeadInput {
        /// Width of the backbone the head was made for.
        expected: i64,
        /// Shape of what came.
        got: Vec<i64>,
    },
    /// Masks of another shape or type than the patches.
    #[error("masks must be bool of shape {expected:?}, one per patch (got {kind:?} of {got:?})")]
    Masks {
        /// Images and patches.
        expected: Vec<i64>,
        /// Shape of the masks.
        got: Vec<i64>,
        /// Type of the masks.
        kind: Kind,
    },
    /// Patches are to be masked, and there is nothing to put in their place.
    #[error("the model has no mask token: set model.mask_token to true")]
    NoMaskToken,
    /// More layers were asked for than the model has.
    #[error("asked for the last {asked} layers of a model of {depth} blocks")]
    Layers {
        /// Number asked for.
        asked: i64,
        /// Blocks of the model.
        depth: i64,
    },
    /// A file could not be read, written or renamed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A weight file is broken.
    #[error("{} is not a readable safetensors file; fetch or export it again", path.display())]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: SafeTensorError,
    },
    /// A file of `torch.save` cannot be read.
    #[error("{} {source}", path.display())]
    Pth {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: PthError,
    },
    /// A file holds no vision transformer.
    #[error(
        "{}: no vision transformer found: no key ends in cls_token; its keys begin with {keys}",
        path.display()
    )]
    NoNetwork {
        /// The file.
        path: PathBuf,
        /// Its first keys.
        keys: String,
    },
    /// A file holds several networks, and none is called as asked.
    #[error(
        "{}: it is not clear which network is {wanted}: their keys begin with {found}; name one with \
         --prefix",
        path.display()
    )]
    WhichNetwork {
        /// The file.
        path: PathBuf,
        /// Which was asked for.
        wanted: String,
        /// What stands before the keys of each.
        found: String,
    },
    /// A network has tensors that are not computed here.
    #[error(
        "{}: the network has tensors without a place in this model: {names}{hint}; its features \
         would be wrong. If they are to be left out, `simdino import --ignore-unused` does that",
        path.display()
    )]
    Unused {
        /// The file.
        path: PathBuf,
        /// The first of the tensors, as the file calls them.
        names: String,
        /// What is known about them, after a colon; or nothing.
        hint: String,
    },
    /// A file beside the weights says what cannot be done, or is damaged.
    #[error("{}: {problem}", path.display())]
    Beside {
        /// The file.
        path: PathBuf,
        /// What it says.
        problem: String,
    },
    /// Weights that are spread over several files are not whole, or not as their index says.
    #[error("{}: {problem}", path.display())]
    Parts {
        /// The index, the part, or their folder.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// Nothing is at this path.
    #[error("{}: no such file or folder", path.display())]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },
    /// A folder is neither a run nor a checkpoint of simdino, nor that of an exported network.
    #[error("{}: holds neither weights nor a checkpoint", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A value of the model that was given beside a weight file makes no sense.
    #[error("{0}")]
    ModelValue(String),
    /// The tensors of a file are those of another kind of network.
    #[error("{}: {problem}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// Too little of a network was found in a file.
    #[error(
        "{}: only {matched} of the {total} tensors of the backbone were found ({percent:.1} %); {names}; \
         accept this on purpose by lowering the share that must match (--min-matched)",
        path.display()
    )]
    TooFewMatched {
        /// The file.
        path: PathBuf,
        /// Tensors found.
        matched: usize,
        /// Tensors of the backbone.
        total: usize,
        /// The share, in percent.
        percent: f64,
        /// The first of those that were not.
        names: String,
    },
    /// Tensors of a file share their bytes, so that they unfold to more than the file holds.
    #[error(
        "{}: its tensors overlap: {bytes} bytes of them in a file of {len}; export it again",
        path.display()
    )]
    Overlap {
        /// The file.
        path: PathBuf,
        /// Bytes of the tensors.
        bytes: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// A network cannot be exported to a library.
    #[error("cannot be exported for {layout}: {problem}")]
    Export {
        /// The library.
        layout: &'static str,
        /// Why not.
        problem: String,
    },
    /// A file has no tensor of this name.
    #[error("{}: holds no tensor {name}", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor of a weight file has a shape that libtorch cannot hold.
    #[error("{}: cannot create tensor {tensor}", path.display())]
    WeightsTensor {
        /// The file.
        path: PathBuf,
        /// Name and shape in the file.
        tensor: String,
        /// What is wrong with it.
        source: TchError,
    },
    /// A dtype that weight files of ours do not carry.
    #[error(
        "{}: tensor {name} has dtype {dtype}; f16, bf16, f32, f64, i8, i16, i32, i64, u8 and bool are supported when read, f16, bf16, f32, f64, i64 and u8 when written",
        path.display()
    )]
    WeightsKind {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Its dtype.
        dtype: String,
    },
    /// A tensor of whole numbers or flags in the place of weights.
    #[error(
        "{}: tensor {name} holds values of the type {kind:?}, and weights are f16, bf16, f32 or f64: \
         if the network is quantized, export it in floating point",
        path.display()
    )]
    NotReal {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Type of its elements.
        kind: tch::Kind,
    },
    /// A tensor with NaN or an infinity.
    #[error(
        "{}: tensor {name} holds values that are not finite (NaN or infinity): the training that wrote \
         it diverged, or the file is damaged",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// Two tensors with the same name, or a name that the format reserves.
    #[error("{}: the name {name} is used twice or reserved by the format", path.display())]
    WeightsName {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The header of a weight file could not be written.
    #[error("cannot encode the header of {}", path.display())]
    WeightsHeader {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// A weight file does not fit the model.
    #[error("weights do not fit the model: {summary}")]
    Mismatch {
        /// What is missing or of another shape.
        summary: String,
    },
    /// A libtorch extension failed.
    #[error("libtorch extension failed")]
    TorchExt(#[from] torch_ext::Error),
    /// a libtorch operation failed.
    #[error("a libtorch operation failed")]
    Torch(#[from] TchError),
}

/// The first wrong value of a section as an error.
pub(crate) fn check(section: &'static str, problems: Vec<crate::config::Problem>) -> Result<()> {
    match problems.into_iter().next() {
        Some((key, problem)) => Err(Error::Config { section, key, problem }),
        None => Ok(()),
    }
}
