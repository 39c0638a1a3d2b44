//! Multi-head self-attention.

use tch::nn::Module;
use tch::{Kind, Tensor, nn};

use crate::error::Result;
use crate::init::{self, of_linear};

/// Self-attention with one projection for queries, keys and values.
///
/// Scores are scaled by `(D/H)^-0.5`. The fused kernel of libtorch is used wherever the maps
/// themselves are not asked for.
#[derive(Debug)]
pub(crate) struct Attention {
    qkv: nn::Linear,
    proj: nn::Linear,
    num_heads: i64,
    qk_norm: bool,
}

/// Added to the mean square before its root is divided by.
const QK_NORM_EPS: f64 = 1e-6;

impl Attention {
    /// Parameters `qkv` `[3 D, D]` and `proj` `[D, D]`, both with bias.
    pub(crate) fn new(path: &nn::Path, dim: i64, num_heads: i64, qk_norm: bool) -> Result<Self> {
        Ok(Self {
            qkv: init::linear(&(path / "qkv"), dim, 3 * dim)?,
            proj: init::linear(&(path / "proj"), dim, dim)?,
            num_heads,
            qk_norm,
        })
    }

    /// Its parameters.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        [&self.qkv, &self.proj].into_iter().flat_map(of_linear)
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let [q, k, v] = self.project(x);
        self.attend(&q, &k, &v)
    }

    /// The class token's row of [`Self::forward`] alone, `[B, T, D]` to `[B, 1, D]`: queries of
    /// other tokens are never computed.
    pub(crate) fn forward_cls(&self, x: &Tensor) -> Tensor {
        let dim = x.size()[2];
        let bias = |start, length| self.qkv.bs.as_ref().map(|b| b.narrow(0, start, length));
        let weight = |start, length| self.qkv.ws.narrow(0, start, length);
        let q = x.narrow(1, 0, 1).linear(&weight(0, dim), bias(0, dim)); // [B, T, D] -> [B, 1, D]
        let kv = x.linear(&weight(dim, 2 * dim), bias(dim, 2 * dim)); // -> [B, T, 2 D]
        let q = self.normed(self.heads(&q, 1).remove(0)); // -> [B, H, 1, D/H]
        let mut kv = self.heads(&kv, 2); // -> 2 x [B, H, T, D/H]
        let (v, k) = (kv.remove(1), kv.remove(0));
        self.attend(&q, &self.normed(k), &v)
    }

    /// Attention maps, `[B, T, D]` to `[B, H, T, T]`; each row sums to 1. In fp32,
    /// fp64 where the network is.
    pub(crate) fn maps(&self, x: &Tensor) -> Tensor {
        let [q, k, _] = self.project(x);
        let scale = (q.size()[3] as f64).powf(-0.5);
        let scores = (q * scale).matmul(&k.transpose(-2, -1)); // 2 x [B, H, T, D/H] -> [B, H, T, T]
        let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        scores.softmax(-1, kind)
    }

    /// Queries, keys and values, each `[B, H, T, D/H]`; without a norm they are views of one product.
    pub(crate) fn project(&self, x: &Tensor) -> [Tensor; 3] {
        let mut heads = self.heads(&self.qkv.forward(x), 3);
        let (v, k, q) = (heads.remove(2), heads.remove(1), heads.remove(0));
        [self.normed(q), self.normed(k), v]
    }

    /// Each head's vector over its root mean square, if asked for. `[B, H, T, D/H]`
    fn normed(&self, x: Tensor) -> Tensor {
        if !self.qk_norm {
            return x;
        }
        let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let mean_square = x.square().mean_dim([-1].as_slice(), true, kind);
        (&x * (mean_square + QK_NORM_EPS).rsqrt()).to_kind(x.kind())
    }

    /// Splits `[B, T, parts * D]` into `parts` of `[B, H, T, D/H]`. Unbinding before the
    /// transposition lets the backward pass write the gradient in the projection's own layout.
    fn heads(&self, x: &Tensor, parts: i64) -> Vec<Tensor> {
        let (size, h) = (x.size(), self.num_heads);
        let (b, t, head_dim) = (size[0], size[1], size[2] / (parts * h));
        x.view([b, t, parts, h, head_dim]) // [B, T, parts D] -> [B, T, parts, H, D/H]
            .unbind(2) // -> parts x [B, T, H, D/H]
            .into_iter()
            .map(|part| part.transpose(1, 2)) // -> [B, H, T, D/H]
            .collect()
    }

    /// Attention of `q` `[B, H, Q, D/H]` over `k` and `v` `[B, H, T, D/H]`, projected: `[B, Q, D]`.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let mixed =
            Tensor::scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, false, None, false);
        let merged = mixed.transpose(1, 2).flatten(2, 3); // [B, H, Q, D/H] -> [B, Q, D]
        self.proj.forward(&merged)
    }
}
