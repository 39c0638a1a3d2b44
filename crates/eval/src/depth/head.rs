//! The linear head and its optimizer.

use std::collections::BTreeMap;

use augment::rng::{Purpose, Rng};
use tch::{Device, Kind, Tensor};

use super::config::DepthConfig;
use super::loss::loss;
use crate::adamw::AdamW;
use crate::error::{Error, Result};

/// The [`Purpose::Choice`] number for initial weights.
const WEIGHTS: u32 = 710;
/// Factor by which maps are upsampled before bins are weighted.
const ENLARGED: i64 = 4;
/// Added to the weight of each bin, so that their sum is never 0.
const LEAST_WEIGHT: f64 = 0.1;

/// A linear layer that predicts weights of depth bins; the depth is the weighted mean of the bins.
#[derive(Debug)]
pub struct DepthHead {
    params: [(&'static str, Tensor); 2],
    bins: Tensor, // [N], in meters
}

impl DepthHead {
    /// Creates a head for `dim` channels, with parameters uniform in `[-1/sqrt(dim), 1/sqrt(dim)]`.
    pub(super) fn new(dim: i64, config: &DepthConfig, device: Device) -> Self {
        let mut rng = Rng::new(config.seed, 0, 0, Purpose::Choice(WEIGHTS));
        let most = (dim.max(1) as f64).sqrt().recip();
        let mut draw = |count: i64| -> Tensor {
            let values = (0..count).map(|_| rng.uniform(-most, most) as f32);
            Tensor::from_slice(&values.collect::<Vec<f32>>()).to_device(device)
        };
        let weight = draw(dim * config.bins).view([config.bins, dim, 1, 1]);
        let bias = draw(config.bins);
        let params = [("weight", weight), ("bias", bias)];
        let params = params.map(|(name, param)| (name, param.set_requires_grad(true)));
        let options = (Kind::Float, device);
        let bins = Tensor::linspace(config.min_depth, config.max_depth, config.bins, options);
        Self { params, bins }
    }

    /// Predicts depths in meters from features `[B, C, h, w]`, upsampled by four: `[B, 4 h, 4 w]`.
    ///
    /// Weights are `relu(logit) + 0.1`, divided by their sum. The reference upsamples features;
    /// upsampling logits instead is equivalent because the layer is linear.
    pub(super) fn depths(&self, maps: &Tensor) -> Result<Tensor> {
        let [(_, weight), (_, bias)] = &self.params;
        let logits = maps.f_conv2d(weight, Some(bias), 1, 0, 1, 1)?; // [B, N, h, w]
        let size = [ENLARGED * maps.size()[2], ENLARGED * maps.size()[3]];
        let weights = logits.f_upsample_bilinear2d(size, false, None, None)?.relu() + LEAST_WEIGHT;
        let sum = weights.sum_dim_intlist([1].as_slice(), false, Kind::Float);
        let weighted = (weights * self.bins.view([1, -1, 1, 1])).sum_dim_intlist(
            [1].as_slice(),
            false,
            Kind::Float,
        );
        Ok(weighted / sum)
    }

    /// Returns all tensors by name, detached from autograd.
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.params.iter().map(|(name, param)| ((*name).to_owned(), param.detach())).collect()
    }
}

/// Resizes depths `[B, h, w]` to `[B, H, W]` with bilinear interpolation.
pub(super) fn resized(depths: &Tensor, size: [i64; 2]) -> Result<Tensor> {
    let depths = depths.unsqueeze(1).f_upsample_bilinear2d(size, false, None, None)?;
    Ok(depths.squeeze_dim(1))
}

/// Resizes the head's depths `[B, h, w]` to the pixels of images, `[B, H, W]`. `patch` is the side
/// of a patch in pixels; patches may extend beyond the image on the right and bottom.
pub(super) fn of_pixels(depths: &Tensor, patch: i64, [height, width]: [i64; 2]) -> Result<Tensor> {
    let whole = [height, width].map(|side| (side + patch - 1) / patch * patch);
    let depths = resized(depths, whole)?;
    Ok(depths.f_narrow(1, 0, height)?.f_narrow(2, 0, width)?)
}

/// A head in training and its AdamW state.
pub(super) struct Trainee {
    pub(super) head: DepthHead,
    optimizer: AdamW,
}

impl Trainee {
    pub(super) fn new(head: DepthHead) -> Self {
        let optimizer = AdamW::new(&head.params);
        Self { head, optimizer }
    }

    /// Takes one step on features `[B, C, h, w]` with a patch side of `patch` pixels, and depths
    /// `[B, H, W]`. Returns the loss, or `None` without a change if no depth was measured.
    pub(super) fn step(
        &mut self,
        maps: &Tensor,
        truth: &Tensor,
        patch: i64,
        config: &DepthConfig,
        iteration: u64,
    ) -> Result<Option<f64>> {
        let size = truth.size();
        let predicted = of_pixels(&self.head.depths(maps)?, patch, [size[1], size[2]])?;
        let variance = iteration >= config.loss_warmup;
        let Some(loss) = loss(&predicted, truth, variance, config.gradient_weight)? else {
            return Ok(None);
        };
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            return Err(Error::LossNotFinite { value });
        }
        let lr = config.lr_at(iteration);
        self.optimizer.step(&loss, lr, config.weight_decay, Some(config.clip))?;
        Ok(Some(value))
    }

    /// Returns whether any step was taken, including before an interruption.
    pub(super) fn has_learned(&self) -> bool {
        self.optimizer.has_stepped()
    }

    /// Returns all tensors of the state by name; they share memory with it.
    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.head.tensors();
        tensors.extend(self.optimizer.tensors());
        tensors
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use model::weights::read_safetensors;

    use super::*;

    /// Compares with the head, losses, and optimizer written in PyTorch (tools/parity/depth.py).
    #[test]
    fn three_steps_are_those_of_torch() {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/depth.safetensors");
        let file = read_safetensors(&path).unwrap();
        let of = |name: &str| &file.tensors[&format!("head.{name}")];
        let mut config = DepthConfig::default();
        (config.bins, config.warmup, config.lr, config.loss_warmup) = (16, 0, 0.02, 1);
        (config.weight_decay, config.clip) = (0.1, 0.12);
        let mut trainee = Trainee::new(DepthHead::new(6, &config, Device::Cpu));
        tch::no_grad(|| {
            for name in ["weight", "bias"] {
                trainee.head.tensors()[name].shallow_clone().copy_(of(name));
            }
        });
        let first = tch::no_grad(|| trainee.head.depths(&of("maps").get(0))).unwrap();
        let difference = (first.to_kind(Kind::Double) - of("depths")).abs().max();
        assert!(difference.double_value(&[]) < 1e-5, "{difference}");
        for i in 0..3 {
            let (maps, truth) = (of("maps").get(i), of("truth").get(i));
            let loss = trainee.step(&maps, &truth, 4, &config, i as u64).unwrap().unwrap();
            let expected = of("losses").double_value(&[i]);
            assert!((loss - expected).abs() < 1e-5, "step {i}: {loss} instead of {expected}");
        }
        let weight = trainee.tensors()["weight"].to_kind(Kind::Double);
        let difference = (weight - of("last_weight")).abs().max();
        assert!(difference.double_value(&[]) < 1e-5, "{difference}");
        let nothing = Tensor::zeros([2, 20, 24], (Kind::Float, Device::Cpu));
        let before = trainee.tensors()["weight"].copy();
        assert!(trainee.step(&of("maps").get(0), &nothing, 4, &config, 3).unwrap().is_none());
        assert_eq!(trainee.tensors()["weight"], before);
    }
}
