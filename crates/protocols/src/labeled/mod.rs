//! Protocols that learn classes from labeled images: k-NN, logistic regression, and linear heads.

mod few_shots;
mod images;
mod knn;
mod linear;
mod logistic;
mod protocol;
mod task;

pub use images::{LAST, LabeledImages};
pub use knn::{Knn, KnnMeasured};
pub use linear::{Linear, LinearMeasured};
pub use logistic::{Logistic, LogisticMeasured};
pub use protocol::{LabeledProtocol, OnImages};
pub use task::LabeledTask;
