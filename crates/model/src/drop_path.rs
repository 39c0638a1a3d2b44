//! Stochastic depth.

use tch::{Kind, Tensor};

use crate::tokens::Mode;

/// Drops the residual branch of whole samples while training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropPath {
    keep: f64,
}

impl DropPath {
    /// Drops a branch with probability `rate` (0 to below 1).
    pub(crate) fn new(rate: f64) -> Self {
        Self { keep: 1.0 - rate }
    }

    /// The rate of block `index` of `depth`: linear from 0 to `rate` at the last.
    pub(crate) fn rate_at(rate: f64, index: i64, depth: i64) -> f64 {
        if depth > 1 { rate * index as f64 / (depth - 1) as f64 } else { 0.0 }
    }

    /// `x + branch`, where in [`Mode::Train`] each sample's branch is dropped or divided by the
    /// probability of keeping it. Shapes `[B, T, D]`.
    pub(crate) fn add(self, x: &Tensor, branch: &Tensor, mode: Mode) -> Tensor {
        if mode == Mode::Eval || self.keep >= 1.0 {
            return x + branch;
        }
        x + branch * self.factors(branch.size()[0], branch)
    }

    /// Per sample 0 or `1 / keep`, `[B, 1, 1]`: `floor(keep + U) / keep` with U uniform in [0, 1).
    /// Drawn in fp32: in bf16 `keep + U` would round to a biased rate.
    fn factors(self, batch: i64, like: &Tensor) -> Tensor {
        let draws = Tensor::rand([batch, 1, 1], (Kind::Float, like.device()));
        ((draws + self.keep).floor_() / self.keep).to_kind(like.kind())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn rates_grow_linearly_from_zero() {
        let rates: Vec<f64> = (0..5).map(|i| DropPath::rate_at(0.2, i, 5)).collect();
        for (rate, expected) in rates.iter().zip([0.0, 0.05, 0.1, 0.15, 0.2]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        assert_eq!(DropPath::rate_at(0.2, 0, 1), 0.0, "a single block is never dropped");
    }

    #[test]
    fn whole_samples_are_dropped_at_the_rate_and_the_rest_scaled() {
        let (batch, keep) = (20_000, 0.75);
        let x = Tensor::zeros([batch, 2, 3], (Kind::Float, Device::Cpu));
        let branch = Tensor::ones_like(&x);
        let out = DropPath::new(1.0 - keep).add(&x, &branch, Mode::Train);
        let per_sample = out.select(2, 0).select(1, 0);
        let spread = (&out - per_sample.view([-1, 1, 1])).abs().max().double_value(&[]);
        assert_eq!(spread, 0.0, "a sample is dropped whole");
        let kept = per_sample.gt(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((kept - keep).abs() < 0.02, "kept {kept}"); // 6 sigma of 20,000 draws
        assert!((per_sample.max().double_value(&[]) - 1.0 / keep).abs() < 1e-6);
        assert_eq!(per_sample.min().double_value(&[]), 0.0);
    }

    #[test]
    fn evaluation_adds_the_branch_as_it_is() {
        let x = Tensor::randn([4, 2, 3], (Kind::Float, Device::Cpu));
        let out = DropPath::new(0.9).add(&x, &Tensor::ones_like(&x), Mode::Eval);
        assert_eq!(out, x + 1.0);
    }
}
