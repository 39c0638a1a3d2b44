//! The projection head of SimDINO.

use tch::nn::{Module, ModuleT};
use tch::{Kind, Tensor, nn};

use crate::config::HeadConfig;
use crate::error::{Error, Result, check};
use crate::init;

/// Smallest norm that a row is divided by.
const NORM_EPS: f64 = 1e-12;

/// An MLP whose output rows are scaled to length 1. There is no prototype layer.
///
/// # Source
/// `DINOHead` of SimDINO (vision_transformer.py at 8149fc4). Keys are the reference's indices of
/// an `nn.Sequential`: `mlp.0`, `mlp.2`, `mlp.4`; with batch norm `mlp.0`, `mlp.1`, `mlp.3`,
/// `mlp.4`, `mlp.6`; with a single layer plain `mlp`.
///
/// # Deviations
/// Batch norm always uses the statistics of the batch it is given, as the reference does, whose
/// teacher stays in training mode too. They are those of this process: nothing is reduced over ranks.
#[derive(Debug)]
pub struct SimDinoHead {
    hidden: Vec<Hidden>,
    last: nn::Linear,
    in_dim: i64,
}

#[derive(Debug)]
struct Hidden {
    linear: nn::Linear,
    norm: Option<nn::BatchNorm>,
}

impl SimDinoHead {
    /// Creates the parameters under `path` for vectors of width `in_dim`.
    ///
    /// # Errors
    /// A wrong value in `config`.
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
        Ok(Self { hidden, last, in_dim })
    }

    /// Unit rows, `[.., D]` to `[.., d]`, in fp32 whatever autocast does.
    ///
    /// # Errors
    /// A last dimension that is not the width the head was made for.
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
        Ok(torch_ext::autocast(x.device(), None, || normalize(&x))?)
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

/// Rows divided by `max(|row|, 1e-12)`, in fp32 (fp64 stays fp64).
fn normalize(x: &Tensor) -> Tensor {
    let x = if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) };
    let norm = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true); // [.., d] -> [.., 1]
    &x / norm.clamp_min(NORM_EPS)
}
