//! The KoLeo regularizer: pushes every feature away from its nearest neighbor in the batch.
//!
//! ```text
//! x = rows of norm 1
//! for b in 0..B:  I(b) = the row other than b with the largest inner product with x[b]
//! loss = -1/B * sum_b log( |x[b] - x[I(b)] + 1e-8| + 1e-8 )
//! ```
//!
//! Equal rows have the finite loss `-log(1e-8 (1 + sqrt(d)))` and a finite, if steep, gradient,
//! which separates them. A batch of one image has no neighbor and is refused.
//!
//! # Source
//! DINOv2, `KoLeoLoss` of facebookresearch/dinov2@b8931f7, on the class tokens of the backbone, one
//! view at a time.
//!
//! # Deviations
//! The reference searches for neighbors within a process, so its loss depends on the number of
//! processes. Here, rows are split into a configured number of groups; a group stands for a
//! process.
//!
//! Neighbors are looked up as rows of an embedding, because its gradient is summed in a fixed order
//! on every device. That of `gather` is summed with atomics on CUDA, in arbitrary order, so the
//! gradient of a row that is the neighbor of several others would differ from run to run.

use tch::{Kind, Tensor};

use crate::inputs::{check_kind, working_kind};
use crate::rows::unit_rows;
use crate::{Error, Result};

const EPS: f64 = 1e-8;

/// Computes the sum of the losses of all views; 0-dimensional. Neighbors are searched within each
/// group.
///
/// # Shapes
/// - `x`: `[views, groups, B, D]`
///
/// # Errors
/// Returns an error if the shape is wrong or a group contains a single image.
pub fn koleo(x: &Tensor) -> Result<Tensor> {
    let got = x.size();
    check_kind("features of KoLeo", x)?;
    let &[views, groups, batch, width] = got.as_slice() else {
        let expected = "[views, groups, B, D]".into();
        return Err(Error::Shape { what: "features of KoLeo", expected, got });
    };
    if batch < 2 {
        return Err(Error::KoLeoBatch { got: batch });
    }
    let x = x.reshape([views * groups, batch, width]);
    let rows = unit_rows(&x.to_kind(working_kind(&x)));
    let neighbors = nearest_neighbors(&rows); // [views * groups, B]
    let difference = &rows - rows_at(&rows, &neighbors) + EPS;
    let distance = difference.square().sum_dim_intlist(-1, false, rows.kind()).sqrt();
    let mean = (distance + EPS).log().mean(rows.kind()); // over views, too
    Ok(mean * -(views as f64))
}

/// Returns the index of the nearest other row, `[groups, B, D] -> [groups, B]`.
fn nearest_neighbors(rows: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let rows = rows.detach();
        let products = rows.matmul(&rows.transpose(1, 2)); // [groups, B, B]
        let batch = rows.size()[1];
        let own = Tensor::eye(batch, (Kind::Bool, rows.device()));
        products.masked_fill(&own, -2.0).argmax(-1, false)
    })
}

/// Returns the rows with these indices in each group,
/// `[groups, B, D], [groups, B] -> [groups, B, D]`.
fn rows_at(rows: &Tensor, index: &Tensor) -> Tensor {
    let size = rows.size();
    let (groups, batch) = (size[0], size[1]);
    // [groups, 1]
    let first = Tensor::arange(groups, (Kind::Int64, rows.device())).unsqueeze(-1) * batch;
    Tensor::embedding(&rows.flatten(0, 1), &(index + first), -1, false, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_that_gather_finds_with_the_same_gradient() {
        tch::manual_seed(3);
        let (groups, batch, width) = (3, 10, 7);
        for kind in [Kind::Float, Kind::Double] {
            let rows = Tensor::randn([groups, batch, width], (kind, tch::Device::Cpu));
            let factors = Tensor::randn([groups, batch, width], (kind, tch::Device::Cpu));
            // Row 2 is looked up by every other row of its group.
            let index = Tensor::arange(groups * batch, (Kind::Int64, tch::Device::Cpu));
            let index = index.view([groups, batch]).remainder(2) * 2;
            let computed = |look_up: &dyn Fn(&Tensor) -> Tensor| {
                let rows = rows.copy().set_requires_grad(true);
                let found = look_up(&rows);
                (&found * &factors).sum(kind).backward();
                (found.detach(), rows.grad())
            };
            let places = index.unsqueeze(-1).expand_as(&rows);
            let (expected, by_gather) = computed(&|rows| rows.gather(1, &places, false));
            let (found, gradient) = computed(&|rows| rows_at(rows, &index));
            assert_eq!(found, expected);
            assert_eq!(gradient, by_gather, "{kind:?}");
        }
    }
}
