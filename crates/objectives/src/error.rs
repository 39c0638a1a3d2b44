//! Errors of the objectives.

use base::check::Problem;

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors from computing a loss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contains invalid values, listed with their full keys and what is required.
    #[error("objective: {}", .0.join("; "))]
    Config(Vec<String>),
    /// A tensor has the wrong shape.
    #[error("{what} must have shape {expected} (got {got:?})")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// The shape it should have.
        expected: String,
        /// The shape it has.
        got: Vec<i64>,
    },
    /// A tensor does not have a real floating-point type.
    #[error("{what} must be of a floating point type (got {got:?})")]
    Kind {
        /// Which tensor.
        what: &'static str,
        /// Its type.
        got: tch::Kind,
    },
    /// The batch of an optimizer step does not split evenly into groups.
    #[error("the batch size {batch} must be a multiple of {key} {groups}")]
    Groups {
        /// The key that determines the number of groups.
        key: &'static str,
        /// Images of the batch.
        batch: usize,
        /// Number of groups that it should split into.
        groups: usize,
    },
    /// A rate group has a single image, so its coding rate is constant, but the options require one
    /// that can change.
    #[error(
        "a rate group needs at least 2 images (got {groups} groups for a batch of {batch}): lower \
         simdino.rate_groups or raise the batch size"
    )]
    OneRow {
        /// Images of the batch.
        batch: usize,
        /// Number of groups.
        groups: usize,
    },
    /// The batch of an optimizer step is not a whole number of groups of `simdino.group_rows`
    /// images.
    #[error("the batch size {batch} must be a multiple of simdino.group_rows {rows}")]
    PartOfGroup {
        /// Images of a group.
        rows: usize,
        /// Images of the batch.
        batch: usize,
    },
    /// A (micro-)batch is not a whole number of groups.
    #[error(
        "the batch size {batch} is not a multiple of the {rows} images per group, which {key} \
         determines"
    )]
    GroupRows {
        /// The key that determines the size of a group.
        key: &'static str,
        /// Rows of a group.
        rows: usize,
        /// Rows of this batch.
        batch: usize,
    },
    /// An input that the objective needs is missing.
    #[error("the objective needs the {what}")]
    Missing {
        /// Which input.
        what: &'static str,
    },
    /// No feature of the batch has a neighbor.
    #[error("KoLeo needs at least 2 images in each of its groups (got {got}): lower koleo.groups")]
    KoLeoBatch {
        /// Images in the batch.
        got: i64,
    },
    /// The state belongs to another objective.
    #[error("the objective has no state '{name}': the state is from another method")]
    State {
        /// Name of the tensor.
        name: String,
    },
    /// A number that must be positive is not, or a fraction is outside 0 to 1.
    #[error("{what} must be {expected} (got {got})")]
    Number {
        /// Which number.
        what: &'static str,
        /// The expected value.
        expected: &'static str,
        /// The actual value.
        got: f64,
    },
    /// A term of the loss contains NaN or infinity.
    #[error("{term}: {what} contain a value that is not finite")]
    NonFinite {
        /// Which term of the loss.
        term: &'static str,
        /// What was not finite.
        what: String,
    },
    /// Every way to factorize `I + alpha Z^T Z` failed.
    #[error(
        "{term}: {what} have a covariance that cannot be factorized, even in double precision \
         (features too large, or simdino.eps too small)"
    )]
    NotPositiveDefinite {
        /// Which term of the loss.
        term: &'static str,
        /// Whose covariance.
        what: String,
    },
    /// The shim around libtorch returned an error.
    #[error(transparent)]
    Shim(#[from] torch_ext::Error),
    /// libtorch returned an error.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

/// Checks the invalid values of all sections together.
///
/// # Errors
/// Returns [`Error::Config`], which lists all of them, if there are any.
pub(crate) fn refuse<const N: usize>(sections: [(&str, Vec<Problem>); N]) -> Result<()> {
    let mut lines = Vec::new();
    for (section, problems) in sections {
        lines.extend(problems.iter().map(|(key, what)| format!("{section}.{key}: {what}")));
    }
    if lines.is_empty() { Ok(()) } else { Err(Error::Config(lines)) }
}
