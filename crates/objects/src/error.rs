//! Errors of this crate: what is wrong with the input, or what could not be computed.

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reasons why there is no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A feature is NaN or infinite.
    #[error(
        "the feature of patch {patch} is not finite: check the weights and the precision of the network"
    )]
    NotFinite {
        /// Row of the features.
        patch: usize,
    },
    /// A part of the input has a size that does not match the rest.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// What was given.
        what: &'static str,
        /// The expected size.
        expected: usize,
        /// The actual size.
        found: usize,
    },
    /// An option has an invalid value.
    #[error("{option} is {value}, but must be {must}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        must: &'static str,
    },
    /// There are too few patches for a second eigenvector.
    #[error("a normalized cut needs at least 2 patches (got {patches})")]
    TooFew {
        /// Number of patches.
        patches: usize,
    },
    /// The eigenvector did not reach its tolerance.
    #[error("the second eigenvector did not converge: its residual is {residual:e}")]
    NotConverged {
        /// Norm of `M u - theta u` for a unit vector `u`.
        residual: f64,
    },
    /// A standard deviation of the CRF is so small that the image does not fit into its lattice.
    #[error(
        "an image of {width}x{height} pixels does not fit into the lattice of the CRF: \
         choose larger standard deviations"
    )]
    Lattice {
        /// Width of the image in pixels.
        width: usize,
        /// Height of the image in pixels.
        height: usize,
    },
    /// A label is NaN or infinite.
    #[error("the label at position {position} is not finite")]
    Label {
        /// Position on the grid, row by row.
        position: usize,
    },
}
