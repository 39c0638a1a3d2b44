//! Similarity of different views of the same image.

use tch::Tensor;

use crate::config::LossForm;
use crate::rows::unit_rows;
use crate::views::{mean_over_pairs, number_of_pairs, other_views, pair_products};

/// Computes the mean similarity of each teacher view with every other student view; 0-dimensional.
///
/// # Shapes
/// - `student`: `[V, B, d]`, `teacher`: `[2, B, d]`
pub(crate) fn compression(student: &Tensor, teacher: &Tensor, form: LossForm) -> Tensor {
    let similarity = match form {
        LossForm::NegCos => pair_products(&unit_rows(teacher), &unit_rows(student)),
        LossForm::HalfSqL2 => {
            let half_square = |x: &Tensor| x.square().sum_dim_intlist(-1, false, x.kind()) * 0.5;
            let own = half_square(teacher).unsqueeze(1) + half_square(student).unsqueeze(0);
            pair_products(teacher, student) - own + 1.0 // [2, V, B]
        }
    };
    mean_over_pairs(&similarity)
}

/// Computes the squared norm of the gradient of [`compression`] with respect to the student's rows,
/// counting only the part that rotates them; it is the same for both forms if rows have norm 1.
/// 0-dimensional.
///
/// With `T[v]` the sum of the teacher's rows that are compared with view `v`, the part of `T`
/// orthogonal to `s` is `|T|^2 - (T . s)^2`, and both terms follow from inner products.
pub(crate) fn gradient_square(student: &Tensor, teacher: &Tensor) -> Tensor {
    let size = student.size();
    let (views, batch) = (size[0], size[1]);
    let (student, teacher) = (unit_rows(&student.detach()), unit_rows(&teacher.detach()));
    let other = other_views(views, student.kind(), student.device()).unsqueeze(-1); // [2, V, 1]
    let along =
        (pair_products(&teacher, &student) * &other).sum_dim_intlist(0, false, student.kind());
    // [B]
    let across_views = (teacher.get(0) * teacher.get(1)).sum_dim_intlist(-1, false, student.kind());
    // |t_0 + t_1|^2 = 2 + 2 t_0 . t_1 if a view is compared with both, 1 if it is compared with
    // one.
    let facing = other.sum_dim_intlist(0, false, student.kind()); // [V, 1]
    let whole = &facing + (&facing - 1.0) * 2.0 * across_views.unsqueeze(0); // [V, B]
    let square = (whole - along.square()).clamp_min(0.0).sum(student.kind());
    square / ((number_of_pairs(views) * batch) as f64).powi(2)
}
