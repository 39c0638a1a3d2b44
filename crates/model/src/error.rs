//! Errors of this crate.

use std::path::PathBuf;

use safetensors::SafeTensorError;
use tch::{Device, Kind, TchError};

use crate::weights::pth::PthError;

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a model or of a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration value is invalid.
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
        "images must have shape [batch >= 1, {channels} (model.in_channels), height, width] (got \
         {got:?})"
    )]
    InputShape {
        /// Channels that the model takes.
        channels: i64,
        /// Shape of the images.
        got: Vec<i64>,
    },
    /// A side of the images is not a multiple of the patch size.
    #[error(
        "images of {height} x {width} pixels cannot be divided into patches of size {patch_size}: \
         both sides must be multiples of it"
    )]
    NotMultiple {
        /// Height in pixels.
        height: i64,
        /// Width in pixels.
        width: i64,
        /// Side of a patch in pixels.
        patch_size: i64,
    },
    /// The images have a different dtype than the parameters.
    #[error("images are {got:?} but the parameters are {expected:?}: convert the images")]
    InputKind {
        /// Kind of the parameters.
        expected: Kind,
        /// Kind of the images.
        got: Kind,
    },
    /// The images are on a different device than the parameters.
    #[error("images are on {got:?} but the parameters on {expected:?}: move the images")]
    InputDevice {
        /// Device of the parameters.
        expected: Device,
        /// Device of the images.
        got: Device,
    },
    /// The input of the head has the wrong width.
    #[error("the head takes vectors of width {expected} (got a tensor of shape {got:?})")]
    HeadInput {
        /// Width of the backbone that the head was created for.
        expected: i64,
        /// Shape of the input.
        got: Vec<i64>,
    },
    /// The masks do not match the patches in shape or type.
    #[error("masks must be bool of shape {expected:?}, one per patch (got {kind:?} of {got:?})")]
    Masks {
        /// Expected shape: images and patches.
        expected: Vec<i64>,
        /// Shape of the masks.
        got: Vec<i64>,
        /// Type of the masks.
        kind: Kind,
    },
    /// Patches are masked, but the model has no mask token.
    #[error("the model has no mask token: set model.mask_token to true")]
    NoMaskToken,
    /// More layers were requested than the model has.
    #[error("the last {asked} layers were requested of a model with {depth} blocks")]
    Layers {
        /// Requested number.
        asked: i64,
        /// Number of blocks in the model.
        depth: i64,
    },
    /// A file could not be read, written, or renamed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The attempted action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A weight file is damaged.
    #[error("{} is neither a readable safetensors file nor a .pth file of torch.save; if it should be one, fetch or export it again", path.display())]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        source: SafeTensorError,
    },
    /// A `torch.save` file cannot be read.
    #[error("{} {source}", path.display())]
    Pth {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: PthError,
    },
    /// A file contains no vision transformer.
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
    /// A file contains several networks, and none matches the request.
    #[error(
        "{}: no single network in it is {wanted}; the keys of its networks begin with {found}: \
         choose one with --prefix",
        path.display()
    )]
    WhichNetwork {
        /// The file.
        path: PathBuf,
        /// The requested network.
        wanted: String,
        /// The key prefixes of the networks that were found.
        found: String,
    },
    /// A network has tensors that have no place in the model of simdino.
    #[error(
        "{}: the network has tensors that this model does not use: {names}{hint}; its features \
         would be wrong. To leave out unused tensors anyway, use `simdino import --ignore-unused`",
        path.display()
    )]
    Unused {
        /// The file.
        path: PathBuf,
        /// The first of these tensors, by their names in the file.
        names: String,
        /// Additional information after a colon, or empty.
        hint: String,
    },
    /// A file beside the weights requests something unsupported or is damaged.
    #[error("{}: {problem}", path.display())]
    Beside {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// Weights that are split over several files are incomplete or do not match their index.
    #[error("{}: {problem}", path.display())]
    Parts {
        /// The index, the part, or their folder.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// There is nothing at this path.
    #[error("{}: no such file or folder", path.display())]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },
    /// A folder is neither a run nor a checkpoint of simdino, nor an exported network.
    #[error("{}: contains neither weights nor a checkpoint", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A model value that was given for a weight file is invalid.
    #[error("{0}")]
    ModelValue(String),
    /// The tensors of a file belong to a different kind of network.
    #[error("{}: {problem}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A file contains too little of the network.
    #[error(
        "{}: only {matched} of the {total} tensors of the backbone were found ({percent:.1}%); {names}; \
         `simdino import --min-matched` accepts fewer",
        path.display()
    )]
    TooFewMatched {
        /// The file.
        path: PathBuf,
        /// Number of tensors found.
        matched: usize,
        /// Number of tensors in the backbone.
        total: usize,
        /// The fraction found, in percent.
        percent: f64,
        /// The first tensors that were not found.
        names: String,
    },
    /// Tensors of a file share bytes and would expand to more than the file contains.
    #[error(
        "{}: its tensors overlap: {bytes} bytes of tensors in a file of {len} bytes; export it \
         again",
        path.display()
    )]
    Overlap {
        /// The file.
        path: PathBuf,
        /// Total size of the tensors in bytes.
        bytes: u64,
        /// Size of the file in bytes.
        len: u64,
    },
    /// A network cannot be exported to a library.
    #[error("cannot be exported for {layout}: {problem}")]
    Export {
        /// The library.
        layout: &'static str,
        /// The reason.
        problem: String,
    },
    /// A file has no tensor of this name.
    #[error("{}: contains no tensor {name}", path.display())]
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
    /// Our weight files do not support this dtype.
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
    /// A tensor that should contain weights contains integers or booleans.
    #[error(
        "{}: tensor {name} has type {kind:?}, but weights must be f16, bf16, f32, or f64: if the \
         network is quantized, export it in floating point",
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
    /// A tensor contains NaN or infinity.
    #[error(
        "{}: tensor {name} contains values that are not finite (NaN or infinity): the training \
         that wrote it diverged, or the file is damaged",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// Two tensors have the same name, or a name is reserved by the format.
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
        /// The cause.
        source: serde_json::Error,
    },
    /// A weight file does not fit the model.
    #[error("weights do not fit the model: {summary}")]
    Mismatch {
        /// What is missing or has a different shape.
        summary: String,
    },
    /// A libtorch extension failed.
    #[error("libtorch extension failed")]
    TorchExt(#[from] torch_ext::Error),
    /// A libtorch operation failed.
    #[error("a libtorch operation failed")]
    Torch(#[from] TchError),
}

/// Returns the first invalid value of a section as an error.
pub(crate) fn check(section: &'static str, problems: Vec<base::check::Problem>) -> Result<()> {
    match problems.into_iter().next() {
        Some((key, problem)) => Err(Error::Config { section, key, problem }),
        None => Ok(()),
    }
}
