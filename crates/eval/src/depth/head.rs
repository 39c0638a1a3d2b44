//! The linear head.

use std::collections::BTreeMap;

use augment::rng::{Purpose, Rng};
use tch::{Device, Kind, Tensor};

use super::config::DepthConfig;
use super::loss::loss;
use crate::adamw::AdamW;
use crate::error::{Error, Result};

/// Number of the random choice of the first weights.
const WEIGHTS: u32 = 710;
/// Maps are enlarged this many times before bins are weighed.
const ENLARGED: i64 = 4;
/// Added to the weight of each bin, so that no pixel is without any.
const LEAST_WEIGHT: f64 = 0.1;

/// A linear layer to weights of bins, whose weighted mean is the depth.
#[derive(Debug)]
pub struct DepthHead {
    params: [(&'static str, Tensor); 2],
    bins: Tensor, // [N], in meters
}

impl DepthHead {
    /// Creates a head for `dim` channels, uniform within one over the root of their number.
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

    /// Depths in meters from features `[B, C, h, w]`, at four times their size: `[B, 4 h, 4 w]`.
    ///
    /// Weights are `relu(logit) + 0.1`, divided by their sum. Logits are enlarged in place of the features of the
    /// reference, which is the same for a linear layer.
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

    /// All tensors by name, outside of autograd.
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.params.iter().map(|(name, param)| ((*name).to_owned(), param.detach())).collect()
    }
}

/// Resizes depths `[B, h, w]` (bilinear) to `[B, H, W]`.
pub(super) fn resized(depths: &Tensor, size: [i64; 2]) -> Result<Tensor> {
    let depths = depths.unsqueeze(1).f_upsample_bilinear2d(size, false, None, None)?;
    Ok(depths.squeeze_dim(1))
}

/// The depths that the head gives, `[B, h, w]`, for the pixels of images `[H, W]` in patches with a side of `patch` pixels.
/// Patches may reach beyond the image at the right and at the bottom.
pub(super) fn of_pixels(depths: &Tensor, patch: i64, [height, width]: [i64; 2]) -> Result<Tensor> {
    let whole = [height, width].map(|side| (side + patch - 1) / patch * patch);
    let depths = resized(depths, whole)?;
    Ok(depths.f_narrow(1, 0, height)?.f_narrow(2, 0, width)?)
}

/// A head in training, with the state of AdamW.
pub(super) struct Trainee {
    pub(super) head: DepthHead,
    optimizer: AdamW,
}

impl Trainee {
    pub(super) fn new(head: DepthHead) -> Self {
        let optimizer = AdamW::new(&head.params);
        Self { head, optimizer }
    }

    /// Takes one step on features `[B, C, h, w]` of patches with a side of `patch` pixels, and depths `[B, H, W]`; returns
    /// the loss. Nothing changes if no depth was measured.
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

    /// Whether anything was learned, also before an interruption.
    pub(super) fn has_learned(&self) -> bool {
        self.optimizer.has_stepped()
    }

    /// All tensors of the state by name, which share memory with it.
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

    /// Against the head, the losses, and the optimizer written with torch (tools/parity/depth.py).
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
