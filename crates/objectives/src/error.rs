//! Errors of the objectives.

use base::check::Problem;

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors from computing a loss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contains invalid values.
    #[error("objective: {}", joined(.0))]
    Config(Vec<Problem>),
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
    /// A batch does not split evenly into rate groups.
    #[error("{what} {batch} must be a multiple of {groups} rate groups")]
    Groups {
        /// Which batch.
        what: &'static str,
        /// Its size.
        batch: usize,
        /// Number of groups that it should split into.
        groups: usize,
    },
    /// The batch of an optimizer step does not consist of whole groups of `simdino.group_rows` images.
    #[error("the batch size {batch} must be a multiple of simdino.group_rows {rows}")]
    PartOfGroup {
        /// Images of a group.
        rows: usize,
        /// Images of the batch.
        batch: usize,
    },
    /// A (micro-)batch does not consist of whole rate groups.
    #[error(
        "a batch of {batch} is not a multiple of the size of a rate group, {rows} (see simdino.rate_groups \
         and simdino.group_rows)"
    )]
    GroupRows {
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
    #[error("the objective keeps no '{name}': its state is that of another method")]
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
    #[error("{term}: {what} hold a value that is not finite")]
    NonFinite {
        /// Which term of the loss.
        term: &'static str,
        /// What was not finite.
        what: String,
    },
    /// Every way to factorize `I + alpha Z^T Z` failed.
    #[error(
        "{term}: {what} have a covariance that cannot be factorized, not even in double precision \
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

fn joined(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|(key, what)| format!("{key}: {what}")).collect();
    lines.join("; ")
}
