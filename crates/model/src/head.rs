//! The projection head, which outputs unit rows for SimDINO and scores of prototypes for DINO and
//! DINOv2.

use tch::nn::{Module, ModuleT};
use tch::{Kind, Tensor, nn};

use crate::config::HeadConfig;
use crate::error::{Error, Result, check};
use crate::init;

/// Smallest norm used as a divisor.
const NORM_EPS: f64 = 1e-12;

/// An MLP whose output rows are scaled to norm 1, followed by a layer of prototypes if there are
/// any.
///
/// # Source
/// `DINOHead` of SimDINO (vision_transformer.py at 8149fc4), which ends with the unit rows; of DINO
/// (at 7c446df), which has prototypes. Keys are those of the reference's `nn.Sequential`: `mlp.0`,
/// `mlp.2`, `mlp.4`; with batch norm, `mlp.0`, `mlp.1`, `mlp.3`, `mlp.4`, `mlp.6`; with a single
/// layer, plain `mlp`.
///
/// # Deviations
/// Batch norm always uses the statistics of its input batch, like the reference, whose teacher
/// stays in training mode, too. The statistics are those of this process: nothing is reduced over
/// ranks.
#[derive(Debug)]
pub struct ProjectionHead {
    hidden: Vec<Hidden>,
    last: nn::Linear,
    prototypes: Option<Prototypes>,
    in_dim: i64,
}

/// `K` directions of weight-normalized rows, `g v / |v|`, without bias; the scores of a row are
/// its inner products with them.
#[derive(Debug)]
struct Prototypes {
    weight_g: Tensor, // [K, 1]
    weight_v: Tensor, // [K, d]
}

#[derive(Debug)]
struct Hidden {
    linear: nn::Linear,
    norm: Option<nn::BatchNorm>,
}

impl ProjectionHead {
    /// Creates the parameters under `path` for vectors of width `in_dim`.
    ///
    /// # Errors
    /// Returns an error if a value in `config` is invalid.
    pub fn new(path: &nn::Path, in_dim: i64, config: &HeadConfig) -> Result<Self> {
        check("head", config.validate())?;
        let mlp = path / "mlp";
        let (mut index, mut width) = (0, in_dim);
        let mut hidden = Vec::new();
        for _ in 1..config.num_layers {
            let linear = init::linear(&(&mlp / index), width, config.hidden_dim)?;
            let norm = config.use_bn.then(|| batch_norm(&(&mlp / (index + 1)), config.hidden_dim));
            index += if config.use_bn { 3 } else { 2 }; // linear, [norm,] GELU
            width = config.hidden_dim;
            hidden.push(Hidden { linear, norm });
        }
        let last_path = if hidden.is_empty() { mlp } else { &mlp / index };
        let last = init::linear(&last_path, width, config.out_dim)?;
        let prototypes = Prototypes::new(&(path / "last_layer"), config)?;
        Ok(Self { hidden, last, prototypes, in_dim })
    }

    /// Computes unit rows, `[.., D]` to `[.., d]`, or, with prototypes, their scores, `[.., K]`.
    /// Rows are normalized in fp32 regardless of autocast.
    ///
    /// # Errors
    /// Returns an error if the last dimension is not the width that the head was created for.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let size = features.size();
        if size.last() != Some(&self.in_dim) {
            return Err(Error::HeadInput { expected: self.in_dim, got: size });
        }
        let mut x = features.shallow_clone();
        for layer in &self.hidden {
            x = layer.forward(&x);
        }
        let x = self.last.forward(&x);
        let rows = torch_ext::autocast(x.device(), None, || normalize(&x))?;
        Ok(match &self.prototypes {
            Some(prototypes) => prototypes.scores(&rows),
            None => rows,
        })
    }
}

impl Prototypes {
    /// Creates the parameters `weight_g`, which is 1 and frozen unless requested otherwise, and
    /// `weight_v`, initialized like a linear layer of torch; `None` without prototypes.
    fn new(path: &nn::Path, config: &HeadConfig) -> Result<Option<Self>> {
        let (count, dim) = (config.prototypes, config.out_dim);
        if count == 0 {
            return Ok(None);
        }
        let bound = 1.0 / (dim as f64).sqrt();
        let weight_v = init::uniform(path, "weight_v", &[count, dim], bound)?;
        let length = if config.norm_last_layer { init::frozen } else { init::constant };
        let weight_g = length(path, "weight_g", &[count, 1], 1.0)?;
        Ok(Some(Self { weight_g, weight_v }))
    }

    /// Computes the scores of unit rows, `[.., d]` to `[.., K]`.
    fn scores(&self, rows: &Tensor) -> Tensor {
        let norm = self.weight_v.norm_scalaropt_dim(2.0, [1].as_slice(), true); // [K, 1]
        let weight = &self.weight_v * (&self.weight_g / norm); // [K, d]
        rows.linear(&weight, None::<&Tensor>)
    }
}

impl Hidden {
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.linear.forward(x);
        let x = match &self.norm {
            Some(norm) => {
                let rows = x.flatten(0, -2); // [.., hidden] -> [rows, hidden]
                norm.forward_t(&rows, true).view_as(&x)
            }
            None => x,
        };
        x.gelu("none")
    }
}

fn batch_norm(path: &nn::Path, dim: i64) -> nn::BatchNorm {
    let config = nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..Default::default() };
    nn::batch_norm1d(path, dim, config)
}

/// Divides rows by `max(|row|, 1e-12)`, in fp32 (fp64 stays fp64).
fn normalize(x: &Tensor) -> Tensor {
    let x = if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) };
    let norm = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true); // [.., d] -> [.., 1]
    &x / norm.clamp_min(NORM_EPS)
}
