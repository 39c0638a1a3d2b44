//! Average precision of a ranking.

/// Computes the area under the precision-recall curve by the trapezoidal rule.
///
/// `ranks` are the ranks of the positives, counted from 0, in ascending order. `positives` is the
/// number of all positives, some of which may not be ranked.
///
/// # Mathematical definition
/// ```text
/// AP = sum_j (p0_j + p1_j) / (2 positives)
/// p0_j = j / rank_j   (1 if rank_j = 0)      precision before positive j
/// p1_j = (j + 1) / (rank_j + 1)              precision with it
/// ```
///
/// # Source
/// `compute_ap` of the revisited Oxford and Paris benchmarks (Radenovic et al., 2018).
pub fn average_precision(ranks: &[usize], positives: usize) -> f64 {
    let trapezoid = |(j, &rank): (usize, &usize)| {
        let before = if rank == 0 { 1.0 } else { j as f64 / rank as f64 };
        let with = (j + 1) as f64 / (rank + 1) as f64;
        (before + with) / 2.0
    };
    ranks.iter().enumerate().map(trapezoid).sum::<f64>() / positives.max(1) as f64
}

/// Returns the fraction of positives among the first `k` ranks, or among the ranks up to the last
/// positive if that comes earlier; `ranks` as in [`average_precision`].
pub fn precision_at(ranks: &[usize], k: usize) -> f64 {
    let most = ranks.last().map_or(k, |last| k.min(last + 1)).max(1);
    ranks.iter().filter(|&&rank| rank < most).count() as f64 / most as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_by_hand() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} instead of {b}");
        close(average_precision(&[0, 1, 2], 3), 1.0);
        // The trapezoids (0 + 1/2) / 2 and (1/3 + 2/4) / 2, for 2 positives.
        close(average_precision(&[1, 3], 2), (0.25 + 5.0 / 12.0) / 2.0);
        close(average_precision(&[0], 4), 0.25);
        close(average_precision(&[], 3), 0.0);
        close(precision_at(&[0, 3, 8], 5), 0.4);
        close(precision_at(&[0, 3], 10), 0.5);
        close(precision_at(&[2], 1), 0.0);
        close(precision_at(&[], 5), 0.0);
    }
}
