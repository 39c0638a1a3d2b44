//! The KoLeo regulariser: every feature away from its nearest neighbour in the batch.
//!
//! ```text
//! x = rows of norm 1
//! for b in 0..B:  I(b) = the row other than b with the largest inner product with x[b]
//! loss = -1/B * sum_b log( |x[b] - x[I(b)] + 1e-8| + 1e-8 )
//! ```
//!
//! Equal rows have the finite loss `-log(1e-8 (1 + sqrt(d)))` and a finite, if steep, gradient:
//! that is how they come apart. A batch of one image has no neighbour and is refused.
//!
//! # Source
//! DINOv2, `KoLeoLoss` of facebookresearch/dinov2@b8931f7, on the class tokens of the backbone, one
//! view at a time, within a process.

use tch::{Kind, Tensor};

use crate::inputs::{check_kind, working_kind};
use crate::rows::unit_rows;
use crate::{Error, Result};

const EPS: f64 = 1e-8;

/// Sum of the losses of all views; 0-dimensional.
///
/// # Shapes
/// - `x`: `[views, B, D]`
///
/// # Errors
/// A wrong shape; a batch of one image.
pub fn koleo(x: &Tensor) -> Result<Tensor> {
    let got = x.size();
    check_kind("features of KoLeo", x)?;
    if got.len() != 3 {
        let expected = "[views, B, D]".into();
        return Err(Error::Shape { what: "features of KoLeo", expected, got });
    }
    if got[1] < 2 {
        return Err(Error::KoLeoBatch { got: got[1] });
    }
    let rows = unit_rows(&x.to_kind(working_kind(x)));
    let neighbours = nearest_neighbours(&rows); // [views, B]
    let index = neighbours.unsqueeze(-1).expand_as(&rows);
    let difference = &rows - rows.gather(1, &index, false) + EPS;
    let distance = difference.square().sum_dim_intlist(-1, false, rows.kind()).sqrt();
    Ok((distance + EPS).log().mean_dim(1, false, rows.kind()).sum(rows.kind()) * -1.0)
}

/// Index of the nearest other row, `[views, B, D] -> [views, B]`.
fn nearest_neighbours(rows: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let rows = rows.detach();
        let products = rows.matmul(&rows.transpose(1, 2)); // [views, B, B]
        let batch = rows.size()[1];
        let own = Tensor::eye(batch, (Kind::Bool, rows.device()));
        products.masked_fill(&own, -2.0).argmax(-1, false)
    })
}
