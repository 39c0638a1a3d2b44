//! Stochastic depth.

use tch::{Device, Kind, Tensor};
use torch_ext::fused::Subset;

use crate::config::{DropPathForm, DropPathSchedule, ModelConfig};
use crate::tokens::{ImageRange, Mode};

/// Drops the residual branch of whole images during training.
///
/// # Source
/// `DropPath` of DINO; `drop_add_residual_stochastic_depth` of DINOv2, where the number of images
/// kept is the share of the batch rounded down, at least 1, and their contribution is scaled by
/// the inverse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropPath {
    keep: f64,
    form: DropPathForm,
}

impl DropPath {
    /// Creates a drop path that drops a branch with probability `rate`, in `[0, 1)`.
    pub(crate) fn new(rate: f64, form: DropPathForm) -> Self {
        Self { keep: 1.0 - rate, form }
    }

    /// Creates the drop path of block `index`.
    pub(crate) fn of_block(config: &ModelConfig, index: i64) -> Self {
        let rate = match config.drop_path_schedule {
            DropPathSchedule::Uniform => config.drop_path_rate,
            DropPathSchedule::Linear => {
                Self::rate_at(config.drop_path_rate, index, config.arch.dimensions().depth)
            }
        };
        Self::new(rate, config.drop_path_form)
    }

    /// Returns the rate of block `index` of `depth`: linear from 0 to `rate` at the last block.
    pub(crate) fn rate_at(rate: f64, index: i64, depth: i64) -> f64 {
        if depth > 1 { rate * index as f64 / (depth - 1) as f64 } else { 0.0 }
    }

    /// Computes `x + branch(input)`. In training, the branch of some images is dropped, and that
    /// of the others is scaled to preserve the mean. Shapes `[B, T, D]`; `input` may have more
    /// tokens than `x` and the branch.
    pub(crate) fn add(
        self,
        x: &Tensor,
        input: &Tensor,
        mode: Mode,
        branch: impl Fn(&Tensor) -> Tensor,
    ) -> Tensor {
        if mode == Mode::Eval || self.keep >= 1.0 {
            return (x + branch(input)).to_kind(x.kind()); // LayerScale may have widened it
        }
        let batch = x.size()[0];
        match self.form {
            DropPathForm::Image => {
                let branch = branch(input);
                let factors = self.factors(&draws(&[], batch, mode, x.device()));
                let scaled = &branch * factors.to_kind(branch.kind()).view([-1, 1, 1]);
                (x + scaled).to_kind(x.kind())
            }
            DropPathForm::Batch => {
                let kept = self.kept(batch);
                let images =
                    draws(&[], batch, mode, x.device()).argsort(0, false).narrow(0, 0, kept);
                let branch = branch(&input.index_select(0, &images));
                let scaled = branch * (batch as f64 / kept as f64);
                x.index_add(0, &images, &scaled.to_kind(x.kind()))
            }
        }
    }

    /// Returns the number of images of a batch whose branch [`DropPathForm::Batch`] computes.
    fn kept(self, batch: i64) -> i64 {
        ((batch as f64 * self.keep) as i64).max(1)
    }

    /// Returns 0 or `1 / keep` for each image, `floor(keep + U) / keep`, `[B]`. In fp32, because
    /// in bf16 the rounding of `keep + U` would bias the rate.
    fn factors(self, draws: &Tensor) -> Tensor {
        (draws + self.keep).floor_() / self.keep
    }
}

/// What stochastic depth does to one branch of a block; by default, nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct BranchDraw(Option<Drawn>);

#[derive(Debug)]
enum Drawn {
    /// A factor per image, `[B]` in fp32.
    Factor(Tensor),
    /// The branch is computed for these images only, and multiplied by a factor per image, `[B]`.
    Subset(Subset, Tensor),
}

impl Clone for Drawn {
    /// Shares the tensors.
    fn clone(&self) -> Self {
        match self {
            Self::Factor(factor) => Self::Factor(factor.shallow_clone()),
            Self::Subset(subset, factor) => Self::Subset(subset.clone(), factor.shallow_clone()),
        }
    }
}

impl BranchDraw {
    /// Returns the images that the branch is computed for; all of them if `None`.
    pub(crate) fn subset(&self) -> Option<&Subset> {
        match &self.0 {
            Some(Drawn::Subset(subset, _)) => Some(subset),
            Some(Drawn::Factor(_)) | None => None,
        }
    }

    /// Returns the factor of each image of the batch, `[B]`; 1 if `None`.
    pub(crate) fn factor(&self) -> Option<&Tensor> {
        let (Drawn::Factor(factor) | Drawn::Subset(_, factor)) = self.0.as_ref()?;
        Some(factor)
    }
}

/// Draws stochastic depth for the two branches of each block. All blocks are drawn together in a
/// few operations, because drawing one by one takes hundreds of small kernel launches on a GPU.
/// The draws differ from those of [`DropPath::add`] but have the same distribution.
pub(crate) fn draw_all(
    config: &ModelConfig,
    batch: i64,
    mode: Mode,
    device: Device,
) -> Vec<[BranchDraw; 2]> {
    let depth = config.arch.dimensions().depth;
    if mode == Mode::Eval || config.drop_path_rate <= 0.0 {
        return vec![<[BranchDraw; 2]>::default(); depth as usize];
    }
    let draws = draws(&[depth, 2], batch, mode, device); // [depth, 2, B]
    match config.drop_path_form {
        DropPathForm::Image => factors_of_all(config, &draws),
        DropPathForm::Batch => subsets_of_all(config, &draws),
    }
}

/// Computes [`draw_all`] with [`DropPathForm::Image`] from uniform numbers `[depth, 2, B]`.
fn factors_of_all(config: &ModelConfig, draws: &Tensor) -> Vec<[BranchDraw; 2]> {
    let (depth, last) = (config.arch.dimensions().depth, 1.0 - config.drop_path_rate);
    let options = (Kind::Float, draws.device());
    let keep = match config.drop_path_schedule {
        DropPathSchedule::Uniform => Tensor::full([depth], last, options),
        DropPathSchedule::Linear if depth > 1 => Tensor::linspace(1.0, last, depth, options),
        DropPathSchedule::Linear => Tensor::ones([depth], options),
    };
    let keep = keep.view([depth, 1, 1]);
    let factors = (draws + &keep).floor_() / keep;
    let of = |block: i64, branch| {
        let acts = DropPath::of_block(config, block).keep < 1.0;
        BranchDraw(acts.then(|| Drawn::Factor(factors.get(block).get(branch))))
    };
    (0..depth).map(|block| [of(block, 0), of(block, 1)]).collect()
}

/// Computes [`draw_all`] with [`DropPathForm::Batch`] from uniform numbers `[depth, 2, B]`.
fn subsets_of_all(config: &ModelConfig, draws: &Tensor) -> Vec<[BranchDraw; 2]> {
    let (depth, batch) = (config.arch.dimensions().depth, draws.size()[2]);
    let drop_paths: Vec<_> = (0..depth).map(|block| DropPath::of_block(config, block)).collect();
    let counts: Vec<i64> = drop_paths.iter().flat_map(|d| [d.kept(batch); 2]).collect();
    let mut subsets = Subset::smallest(&draws.flatten(0, 1), &counts).into_iter(); // [2 depth, B]
    let of_block = |drop_path: &DropPath| {
        let scale = batch as f64 / drop_path.kept(batch) as f64;
        let factor = Tensor::full([batch], scale, (Kind::Float, draws.device()));
        [(); 2].map(|()| {
            let subset = subsets.next().filter(|_| drop_path.keep < 1.0);
            BranchDraw(subset.map(|subset| Drawn::Subset(subset, factor.shallow_clone())))
        })
    };
    drop_paths.iter().map(of_block).collect()
}

/// Draws uniform numbers in `[0, 1)`, `[before.., B]`. For a part of a larger batch, numbers are
/// drawn for the whole batch, so that they do not depend on how it is divided.
fn draws(before: &[i64], batch: i64, mode: Mode, device: Device) -> Tensor {
    let options = (Kind::Float, device);
    let shape = |last: &[i64]| [before, last].concat();
    match mode {
        Mode::TrainPart(ImageRange { first, count, of }) => {
            let all = Tensor::rand(shape(&[batch / count, of]), options); // [.., V, whole batch]
            all.narrow(-1, first, count).reshape(shape(&[batch]))
        }
        Mode::Train | Mode::Eval => Tensor::rand(shape(&[batch]), options),
    }
}

#[cfg(test)]
mod tests {
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
        let drop_path = DropPath::new(1.0 - keep, DropPathForm::Image);
        let out = drop_path.add(&x, &x, Mode::Train, |_| branch.shallow_clone());
        let per_sample = out.select(2, 0).select(1, 0);
        let spread = (&out - per_sample.view([-1, 1, 1])).abs().max().double_value(&[]);
        assert_eq!(spread, 0.0, "a sample is dropped whole");
        let kept = per_sample.gt(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((kept - keep).abs() < 0.02, "kept {kept}"); // 6 sigma of 20,000 draws
        assert!((per_sample.max().double_value(&[]) - 1.0 / keep).abs() < 1e-6);
        assert_eq!(per_sample.min().double_value(&[]), 0.0);
    }

    #[test]
    fn factors_of_all_blocks_drop_at_their_rates_and_are_one_part_of_a_whole() {
        let config = ModelConfig {
            arch: crate::config::Arch::VitNano, // 4 blocks
            drop_path_rate: 0.6,
            drop_path_schedule: DropPathSchedule::Linear,
            ..ModelConfig::default()
        };
        let of = |mode, batch| draw_all(&config, batch, mode, Device::Cpu);
        let none = |draw: &BranchDraw| draw.factor().is_none() && draw.subset().is_none();
        assert!(of(Mode::Eval, 4).iter().flatten().all(none));
        let drawn = of(Mode::Train, 20_000);
        assert_eq!(drawn.len(), 4);
        assert!(drawn[0].iter().all(none), "the first block drops nothing");
        for (draws, keep) in drawn[1..].iter().zip([0.8, 0.6, 0.4]) {
            for draw in draws {
                let one = draw.factor().unwrap();
                let kept = one.gt(0.0).to_kind(Kind::Double).mean(None).double_value(&[]);
                assert!((kept - keep).abs() < 0.02, "{keep}: {kept}"); // 6 sigma
                assert!((one.max().double_value(&[]) - 1.0 / keep).abs() < 1e-5);
            }
        }
        let part = |first, count| Mode::TrainPart(ImageRange { first, count, of: 8 });
        let drawn = |mode, batch| {
            tch::manual_seed(5);
            let all = of(mode, batch);
            let factors = all.iter().flatten().filter_map(BranchDraw::factor);
            Tensor::stack(&factors.collect::<Vec<_>>(), 0).view([3, 2, 2, -1]) // two views
        };
        let whole = drawn(part(0, 8), 16);
        assert_eq!(drawn(part(3, 2), 4), whole.narrow(3, 3, 2));
    }

    #[test]
    fn subsets_of_all_blocks_have_the_size_of_their_rates_and_are_fair() {
        let config = ModelConfig {
            arch: crate::config::Arch::VitNano, // 4 blocks
            drop_path_rate: 0.6,
            drop_path_schedule: DropPathSchedule::Linear,
            drop_path_form: DropPathForm::Batch,
            ..ModelConfig::default()
        };
        let mut chosen = Tensor::zeros([10], (Kind::Int64, Device::Cpu));
        for _ in 0..2_000 {
            let drawn = draw_all(&config, 10, Mode::Train, Device::Cpu);
            assert!(drawn[0].iter().all(|draw| draw.subset().is_none()));
            for (draws, kept) in drawn[1..].iter().zip([8, 6, 4]) {
                for draw in draws {
                    let subset = draw.subset().unwrap();
                    let factor = draw.factor().unwrap().double_value(&[3]);
                    assert_eq!(subset.count(), kept);
                    assert!((factor - 10.0 / kept as f64).abs() < 1e-6);
                    let images = Vec::<i64>::try_from(subset.images()).unwrap();
                    let different: std::collections::BTreeSet<_> = images.iter().collect();
                    assert_eq!(different.len() as i64, kept);
                    let one = Tensor::ones([kept], (Kind::Int64, Device::Cpu));
                    let _ = chosen.index_add_(0, &subset.images(), &one);
                }
            }
        }
        // Each image is chosen 2,000 * 2 * 1.8 times on average; 6 standard deviations are 300.
        let counts = Vec::<i64>::try_from(chosen).unwrap();
        assert!(counts.iter().all(|count| (count - 7_200).abs() < 300), "{counts:?}");
    }

    #[test]
    fn evaluation_adds_the_branch_as_it_is() {
        let x = Tensor::randn([4, 2, 3], (Kind::Float, Device::Cpu));
        for form in [DropPathForm::Image, DropPathForm::Batch] {
            let out = DropPath::new(0.9, form).add(&x, &x, Mode::Eval, Tensor::ones_like);
            assert_eq!(out, &x + 1.0);
        }
    }

    #[test]
    fn a_fixed_share_of_the_batch_is_computed_and_scaled() {
        let x = Tensor::zeros([10, 2, 3], (Kind::Float, Device::Cpu));
        let drop_path = DropPath::new(0.25, DropPathForm::Batch);
        let out = drop_path.add(&x, &x, Mode::Train, |kept| {
            assert_eq!(kept.size(), [7, 2, 3], "no more is computed");
            kept.ones_like()
        });
        let per_image = Vec::<f32>::try_from(out.mean_dim([1, 2].as_slice(), false, None)).unwrap();
        assert_eq!(per_image.iter().filter(|&&v| v == 0.0).count(), 3, "{per_image:?}");
        let scaled = |v: f32| v == 0.0 || (v - 10.0 / 7.0).abs() < 1e-6;
        assert!(per_image.iter().all(|&v| scaled(v)), "{per_image:?}");
        let one = DropPath::new(0.9, DropPathForm::Batch);
        let x = x.narrow(0, 0, 1);
        assert_eq!(one.add(&x, &x, Mode::Train, Tensor::ones_like), &x + 1.0, "at least one");
    }
}
