//! The linear head and its optimizer.

use std::collections::BTreeMap;

use augment::rng::{Purpose, Rng};
use tch::{Device, Kind, Tensor};

use super::config::LinearConfig;
use super::loss::loss_and_gradient;
use crate::adamw::AdamW;
use crate::error::{Error, Result};
use data::dense::IGNORE;

/// The [`Purpose::Choice`] number for initial weights.
const WEIGHTS: u32 = 704;
/// The [`Purpose::Choice`] number for dropout.
const DROPOUT: u32 = 707;
const NORM_MOMENTUM: f64 = 0.1;
const NORM_EPS: f64 = 1e-5;

/// Optional batch norm and a linear layer, applied to each patch. Dropout comes before the head.
#[derive(Debug)]
pub struct LinearHead {
    /// Parameters, by name.
    params: Vec<(&'static str, Tensor)>,
    /// Running mean and variance of batch norm, `[D]`.
    statistics: Option<[Tensor; 2]>,
}

/// Drops whole channels of images with probability `config.dropout`, and scales the others up. The
/// choice depends only on the seed and the iteration, so neither an interruption of training nor
/// other random draws affect it.
///
/// # Shapes
/// - `maps`: `[B, D, h, w]`
pub(super) fn dropped(maps: &Tensor, config: &LinearConfig, iteration: u64) -> Result<Tensor> {
    if config.dropout <= 0.0 {
        return Ok(maps.shallow_clone());
    }
    let (size, keep) = (maps.size(), 1.0 - config.dropout);
    let mut rng = Rng::new(config.seed, 0, iteration, Purpose::Choice(DROPOUT));
    let factor = |_| if rng.chance(config.dropout) { 0.0 } else { (1.0 / keep) as f32 };
    let factors: Vec<f32> = (0..size[0] * size[1]).map(factor).collect();
    let factors = Tensor::f_from_slice(&factors)?.f_view([size[0], size[1], 1, 1])?;
    Ok(maps.f_mul(&factors.f_to_device(maps.device())?)?)
}

impl LinearHead {
    /// Creates a head for `dim` channels, with weights from a normal distribution of standard
    /// deviation 0.01 and a bias of 0.
    pub(super) fn new(dim: i64, classes: i64, config: &LinearConfig, device: Device) -> Self {
        let mut rng = Rng::new(config.seed, 0, 0, Purpose::Choice(WEIGHTS));
        let weights: Vec<f32> = (0..dim * classes).map(|_| (0.01 * rng.normal()) as f32).collect();
        let options = (Kind::Float, device);
        let mut params = vec![
            ("weight", Tensor::from_slice(&weights).view([classes, dim, 1, 1]).to_device(device)),
            ("bias", Tensor::zeros([classes], options)),
        ];
        let mut statistics = None;
        if config.batch_norm {
            params.push(("norm.weight", Tensor::ones([dim], options)));
            params.push(("norm.bias", Tensor::zeros([dim], options)));
            statistics = Some([Tensor::zeros([dim], options), Tensor::ones([dim], options)]);
        }
        let params = params.into_iter().map(|(name, param)| (name, param.set_requires_grad(true)));
        Self { params: params.collect(), statistics }
    }

    /// Computes the logits `[B, K, h, w]` of features `[B, D, h, w]`.
    pub(super) fn logits(&self, maps: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = maps.shallow_clone();
        let param =
            |name: &str| self.params.iter().find(|(own, _)| *own == name).map(|(_, param)| param);
        if let Some([mean, variance]) = &self.statistics {
            let affine = (param("norm.weight"), param("norm.bias"));
            x = x.f_batch_norm(
                affine.0,
                affine.1,
                Some(mean),
                Some(variance),
                train,
                NORM_MOMENTUM,
                NORM_EPS,
                true,
            )?;
        }
        let Some(weight) = param("weight") else { return Ok(x) };
        Ok(x.f_conv2d(weight, param("bias"), 1, 0, 1, 1)?)
    }

    /// Returns all tensors by name, detached from autograd.
    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let params = self.params.iter().map(|(name, param)| ((*name).to_owned(), param.detach()));
        let names = ["norm.running_mean", "norm.running_var"];
        let statistics = self.statistics.iter().flatten().zip(names);
        params.chain(statistics.map(|(tensor, name)| (name.to_owned(), tensor.detach()))).collect()
    }
}

/// A head in training and its AdamW state.
pub(super) struct Trainee {
    pub(super) head: LinearHead,
    optimizer: AdamW,
}

impl Trainee {
    pub(super) fn new(head: LinearHead) -> Self {
        let optimizer = AdamW::new(&head.params);
        Self { head, optimizer }
    }

    /// Takes one step on features `[B, D, h, w]` and classes `[B, H, W]` (uint8). Returns the loss,
    /// which is the mean cross-entropy over the pixels that are not ignored, or `None` without a
    /// change if all are.
    pub(super) fn step(
        &mut self,
        maps: &Tensor,
        labels: &Tensor,
        config: &LinearConfig,
        lr: f64,
    ) -> Result<Option<f64>> {
        if !bool::try_from(labels.ne(i64::from(IGNORE)).any())? {
            return Ok(None);
        }
        let logits = self.head.logits(maps, true)?;
        let (value, gradient) = loss_and_gradient(&logits, labels)?;
        if !value.is_finite() {
            return Err(Error::LossNotFinite { value });
        }
        // A product whose gradient with respect to the logits is the one computed above.
        let product = (logits * gradient).f_sum(Kind::Float)?;
        self.optimizer.step(&product, lr, config.weight_decay, None)?;
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
    use crate::segmentation::linear::Recipe;

    /// Compares with PyTorch's own layers and optimizer (tools/parity/segmentation.py).
    #[test]
    fn three_steps_are_those_of_torch() {
        let path = "tests/fixtures/segmentation.safetensors";
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
        let file = read_safetensors(&path).unwrap();
        let of = |name: &str| &file.tensors[&format!("head.{name}")];
        let mut config = LinearConfig::of(Recipe::Dinov3);
        (config.dropout, config.weight_decay) = (0.0, 0.1);
        let mut trainee = Trainee::new(LinearHead::new(4, 3, &config, Device::Cpu));
        tch::no_grad(|| trainee.head.tensors()["weight"].shallow_clone().copy_(of("weight")));
        for i in 0..3 {
            let loss = trainee.step(&of("maps").get(i), &of("labels").get(i), &config, 0.01);
            let (loss, expected) = (loss.unwrap().unwrap(), of("losses").double_value(&[i]));
            assert!((loss - expected).abs() < 1e-5, "step {i}: {loss} instead of {expected}");
        }
        let logits = tch::no_grad(|| trainee.head.logits(&of("maps").get(0), false)).unwrap();
        let difference = (logits.to_kind(Kind::Double) - of("logits")).abs().max();
        assert!(difference.double_value(&[]) < 1e-4, "{difference}");
        let ignored = Tensor::full([2, 12, 12], 255, (Kind::Uint8, Device::Cpu));
        let before = trainee.tensors()["weight"].copy();
        assert!(trainee.step(&of("maps").get(0), &ignored, &config, 0.01).unwrap().is_none());
        assert_eq!(trainee.tensors()["weight"], before);
    }
}
