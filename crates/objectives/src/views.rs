//! Pairs of views: each of the teacher's 2 views with every *other* view of the student.

use tch::{Device, Kind, Tensor};

use crate::inputs::GLOBAL_VIEWS;

/// Computes the inner products of the teacher's and the student's views of each image without
/// materializing all pairs of rows: `[2, B, d], [V, B, d] -> [2, V, B]`
pub(crate) fn pair_products(teacher: &Tensor, student: &Tensor) -> Tensor {
    let t_bgd = teacher.transpose(0, 1); // [B, 2, d]
    let s_bdv = student.permute([1, 2, 0]); // [B, d, V]
    t_bgd.matmul(&s_bdv).permute([1, 2, 0])
}

/// Returns 1 for pairs of different views, and 0 where teacher and student see the same: `[2, V]`.
pub(crate) fn other_views(views: i64, kind: Kind, device: Device) -> Tensor {
    1.0 - Tensor::eye_m(GLOBAL_VIEWS, views, (kind, device))
}

/// Returns the mean over all pairs of different views and all images of `[2, V, B]`; 0-dimensional.
pub(crate) fn mean_over_pairs(pairs: &Tensor) -> Tensor {
    let size = pairs.size();
    let (views, batch) = (size[1], size[2]);
    let other = other_views(views, pairs.kind(), pairs.device()).unsqueeze(-1); // [2, V, 1]
    (pairs * other).sum(pairs.kind()) / (number_of_pairs(views) * batch) as f64
}

/// Returns the number of pairs of different views: `2V - 2`, or 1 for a single student view.
pub(crate) fn number_of_pairs(views: i64) -> i64 {
    GLOBAL_VIEWS * views - global_views(views)
}

/// Returns the number of global views of the student.
pub(crate) fn global_views(views: i64) -> i64 {
    views.min(GLOBAL_VIEWS)
}
