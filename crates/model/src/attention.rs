//! Multi-head self-attention.

use tch::nn::Module;
use tch::{Device, Kind, Tensor, nn};
use torch_ext::fused;

use crate::error::Result;
use crate::init::{self, of_linear};
use crate::precision::{without_autocast, working_kind};

/// Self-attention with one projection for queries, keys, and values.
///
/// Scores are scaled by `(D/H)^-0.5`. The fused kernel of libtorch is used unless the attention
/// maps are requested.
#[derive(Debug)]
pub(crate) struct Attention {
    qkv: nn::Linear,
    proj: nn::Linear,
    num_heads: i64,
    qk_norm: bool,
}

/// Added to the mean square before taking the square root.
const QK_NORM_EPS: f64 = 1e-6;

impl Attention {
    /// Creates the parameters `qkv` `[3 D, D]` and `proj` `[D, D]`, both with bias.
    pub(crate) fn new(path: &nn::Path, dim: i64, num_heads: i64, qk_norm: bool) -> Result<Self> {
        Ok(Self {
            qkv: init::linear(&(path / "qkv"), dim, 3 * dim)?,
            proj: init::linear(&(path / "proj"), dim, dim)?,
            num_heads,
            qk_norm,
        })
    }

    /// Returns the parameters of both layers.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        [&self.qkv, &self.proj].into_iter().flat_map(of_linear)
    }

    /// Applies self-attention, `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let [q, k, v] = self.project(x);
        self.proj.forward(&mix(&q, &k, &v))
    }

    /// Computes [`Self::forward`] with fused kernels but without the last bias, which is returned
    /// as well.
    pub(crate) fn forward_fused(&self, x: &Tensor) -> Result<(Tensor, Option<&Tensor>)> {
        // Detached, because `mix_fused` computes the gradient of the bias: it is a sum of values
        // that are written there anyway.
        let added = self.qkv.bs.as_ref().map(Tensor::detach);
        let qkv = fused::linear(x, &self.qkv.ws, added.as_ref())?; // [B, T, D] -> [B, T, 3 D]
        let mixed = self.mix_fused(&qkv)?;
        Ok((fused::linear(&mixed, &self.proj.ws, None)?, self.proj.bs.as_ref()))
    }

    /// Computes attention from the projection to queries, keys, and values, `[B, T, 3 D]` to
    /// `[B, T, D]`.
    fn mix_fused(&self, qkv: &Tensor) -> Result<Tensor> {
        let (bias, size) = (self.qkv.bs.as_ref(), qkv.size());
        let head_dim = size[2] / (3 * self.num_heads);
        let kernels = || fused::attention_supported(qkv.device(), size[1], head_dim).is_ok();
        if !self.qk_norm && qkv.kind() == Kind::BFloat16 && kernels() {
            return Ok(fused::attention(qkv, bias, self.num_heads)?);
        }
        let [q, k, v] = fused::split_heads(qkv, bias, self.num_heads)?;
        Ok(mix(&self.normed(q), &self.normed(k), &v))
    }

    /// Computes only the class token's row of [`Self::forward`], `[B, T, D]` to `[B, 1, D]`: the
    /// queries of other tokens are never computed.
    pub(crate) fn forward_cls(&self, x: &Tensor) -> Tensor {
        let dim = x.size()[2];
        let bias = |start, length| self.qkv.bs.as_ref().map(|b| b.narrow(0, start, length));
        let weight = |start, length| self.qkv.ws.narrow(0, start, length);
        let q = x.narrow(1, 0, 1).linear(&weight(0, dim), bias(0, dim)); // [B, T, D] -> [B, 1, D]
        let kv = x.linear(&weight(dim, 2 * dim), bias(dim, 2 * dim)); // -> [B, T, 2 D]
        let q = self.normed(self.heads(&q, 1).remove(0)); // -> [B, H, 1, D/H]
        let mut kv = self.heads(&kv, 2); // -> 2 x [B, H, T, D/H]
        let (v, k) = (kv.remove(1), kv.remove(0));
        self.proj.forward(&attend_one(&q, &self.normed(k), &v))
    }

    /// Computes attention maps, `[B, T, D]` to `[B, H, T, T]`; each row sums to 1. The result is
    /// in fp32, or in fp64 if the network is.
    pub(crate) fn maps(&self, x: &Tensor) -> Tensor {
        let [q, k, _] = self.project(x);
        let scale = (q.size()[3] as f64).powf(-0.5);
        let scores = (q * scale).matmul(&k.transpose(-2, -1)); // 2 x [B, H, T, D/H] -> [B, H, T, T]
        scores.softmax(-1, working_kind(x))
    }

    /// Computes queries, keys, and values, each `[B, H, T, D/H]`. Unless `qk_norm` is set, they
    /// are views of one product.
    pub(crate) fn project(&self, x: &Tensor) -> [Tensor; 3] {
        let mut heads = self.heads(&self.qkv.forward(x), 3);
        let (v, k, q) = (heads.remove(2), heads.remove(1), heads.remove(0));
        [self.normed(q), self.normed(k), v]
    }

    /// Divides each head's vector by its root mean square if `qk_norm` is set, `[B, H, T, D/H]`.
    fn normed(&self, x: Tensor) -> Tensor {
        if !self.qk_norm {
            return x;
        }
        let mean_square = x.square().mean_dim([-1].as_slice(), true, working_kind(&x));
        (&x * (mean_square + QK_NORM_EPS).rsqrt()).to_kind(x.kind())
    }

    /// Splits `[B, T, parts * D]` into `parts` of `[B, H, T, D/H]`. Unbinding before the
    /// transposition lets the backward pass write the gradient in the layout of the projection.
    fn heads(&self, x: &Tensor, parts: i64) -> Vec<Tensor> {
        let (size, h) = (x.size(), self.num_heads);
        let (b, t, head_dim) = (size[0], size[1], size[2] / (parts * h));
        x.view([b, t, parts, h, head_dim]) // [B, T, parts D] -> [B, T, parts, H, D/H]
            .unbind(2) // -> parts x [B, T, H, D/H]
            .into_iter()
            .map(|part| part.transpose(1, 2)) // -> [B, H, T, D/H]
            .collect()
    }
}

/// Computes the attention of `q` over `k` and `v`, each `[B, H, T, D/H]`: `[B, T, D]`.
fn mix(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    // If the kernel fails, libtorch's takes its place.
    if suits_cpu_kernel(&[q, k, v])
        && let Ok(mixed) = torch_ext::cpu_attention(q, k, v)
    {
        return mixed;
    }
    let mixed =
        Tensor::scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, false, None, false);
    mixed.transpose(1, 2).flatten(2, 3) // [B, H, T, D/H] -> [B, T, D]
}

/// Returns whether our own kernel computes attention of these queries, keys, and values faster: in
/// bfloat16 on some CPUs, without gradients.
fn suits_cpu_kernel(parts: &[&Tensor; 3]) -> bool {
    let suits =
        |x: &&Tensor| x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && !x.requires_grad();
    parts.iter().all(suits) && torch_ext::has_cpu_attention()
}

/// Computes the attention of one query `[B, H, 1, D/H]` over `k` and `v` `[B, H, T, D/H]`:
/// `[B, 1, D]`.
///
/// This is as precise as the fused kernels of [`mix`]: scores and softmax are in fp32 (fp64 if the
/// network is), even under autocast; probabilities are multiplied by `v` in its own type.
///
/// It consists of two batched products on every device. A fused kernel gains nothing with a single
/// query, and support for a single query with gradients has changed between releases of the GPU
/// kernels. The query of each head gets its own row, which is zero in the columns of the other
/// heads, so that the products read keys and values in the layout of the projection, `[B, T, D]`,
/// without copies.
fn attend_one(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let kind = working_kind(q);
    let side_by_side = |x: &Tensor| x.transpose(1, 2).flatten(2, 3); // [B, H, T, D/H] -> [B, T, D]
    let scale = (q.size()[3] as f64).powf(-0.5);
    without_autocast(q.device(), || {
        let q = q.squeeze_dim(2).to_kind(kind) * scale; // -> [B, H, D/H]
        // [B, D/H, H] -> [B, H, H, D/H] -> [B, H, D]
        let rows = q.transpose(1, 2).diag_embed(0, 1, 2).flatten(2, 3);
        let scores = rows.bmm(&side_by_side(k).to_kind(kind).transpose(1, 2)); // -> [B, H, T]
        // -> [B, H, D]
        let mixed = scores.softmax(-1, kind).to_kind(v.kind()).bmm(&side_by_side(v));
        let (size, heads) = (q.size(), q.size()[1]);
        let own = mixed.view([size[0], heads, heads, size[2]]).diagonal(0, 1, 2); // -> [B, D/H, H]
        own.transpose(1, 2).flatten(1, 2).unsqueeze(1) // -> [B, 1, D]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the query of one token, `[B, 1, D]`, and keys and values in the layout of the
    /// projection, `[B, T, 2 D]`.
    fn inputs(tokens: i64, kind: Kind, size: f64) -> [Tensor; 2] {
        tch::manual_seed(tokens);
        [[3, 1, 96], [3, tokens, 192]]
            .map(|shape| (Tensor::randn(shape, (Kind::Float, Device::Cpu)) * size).to_kind(kind))
    }

    /// Returns the output of attention with 4 heads and the gradients of both inputs, as fp64.
    fn computed(
        inputs: &[Tensor; 2],
        kind: Kind,
        f: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> [Tensor; 3] {
        let [q, kv] = inputs.each_ref().map(|x| x.to_kind(kind).set_requires_grad(true));
        let size = kv.size();
        let heads = |x: &Tensor| x.view([size[0], -1, 4, 24]).transpose(1, 2);
        let (k, v) =
            (heads(&kv.narrow(2, 0, 96).contiguous()), heads(&kv.narrow(2, 96, 96).contiguous()));
        let out = f(&heads(&q), &k, &v); // [B, 1, D]
        let factors = Tensor::arange(out.numel() as i64, (Kind::Double, Device::Cpu)).sin();
        (out.to_kind(Kind::Double) * factors.view_as(&out)).sum(None).backward();
        [out.detach(), q.grad(), kv.grad()].map(|x| x.to_kind(Kind::Double))
    }

    fn fused(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        Tensor::scaled_dot_product_attention::<Tensor>(q, k, v, None, 0.0, false, None, false)
            .transpose(1, 2)
            .flatten(2, 3)
    }

    fn errors(got: &[Tensor; 3], exact: &[Tensor; 3]) -> [f64; 3] {
        [0, 1, 2].map(|i| {
            assert_eq!(got[i].size(), exact[i].size());
            ((&got[i] - &exact[i]).abs().max() / exact[i].abs().max()).double_value(&[])
        })
    }

    #[test]
    fn attention_in_bfloat16_is_the_same_with_and_without_gradients() {
        tch::manual_seed(5);
        let part =
            || Tensor::randn([2, 3, 45, 32], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let [q, k, v] = [part(), part(), part()];
        let without = mix(&q, &k, &v);
        // The keys alone are enough to require gradients.
        let with = mix(&q, &k.set_requires_grad(true), &v);
        assert!(!without.requires_grad() && with.requires_grad());
        let difference = (without - with.detach()).abs().max().double_value(&[]);
        assert!(difference < 0.02, "{difference}"); // values are up to 4, with 8 bits
    }

    #[test]
    fn one_query_attends_as_the_fused_kernel_does() {
        for tokens in [2, 17, 37, 65, 197] {
            for (kind, allowed) in
                [(Kind::Double, 1e-14), (Kind::Float, 3e-6), (Kind::BFloat16, 2e-2)]
            {
                let inputs = inputs(tokens, kind, 1.0);
                let exact = computed(&inputs, Kind::Double, fused);
                let ours = errors(&computed(&inputs, kind, attend_one), &exact);
                assert!(ours.iter().all(|error| *error < allowed), "{tokens} {kind:?}: {ours:?}");
            }
        }
    }

    /// With scores of 30 and more, rounding them to bf16 would change probabilities by a tenth.
    #[test]
    fn scores_are_not_rounded_to_the_type_of_the_network() {
        let inputs = inputs(65, Kind::BFloat16, 3.0);
        let exact = computed(&inputs, Kind::Double, fused);
        let region = || computed(&inputs, Kind::BFloat16, attend_one);
        let ours = torch_ext::autocast(Device::Cpu, Some(Kind::BFloat16), region).unwrap();
        let (ours, theirs) =
            (errors(&ours, &exact), errors(&computed(&inputs, Kind::BFloat16, fused), &exact));
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!(*ours < 1.5 * theirs + 4e-3, "{ours}, the fused kernel {theirs}");
        }
    }

    #[test]
    fn heads_do_not_see_one_another() {
        let [q, kv] = inputs(5, Kind::Float, 1.0);
        let heads = |x: &Tensor| x.view([3, -1, 4, 24]).transpose(1, 2);
        let (k, v) = (kv.narrow(2, 0, 96), kv.narrow(2, 96, 96));
        let before = attend_one(&heads(&q), &heads(&k.contiguous()), &heads(&v.contiguous()));
        let other = v.copy();
        let _ = other.narrow(2, 24, 24).fill_(7.0); // the second head's values
        let after = attend_one(&heads(&q), &heads(&k.contiguous()), &heads(&other));
        assert_eq!(before.narrow(2, 0, 24), after.narrow(2, 0, 24));
        assert_eq!(before.narrow(2, 48, 48), after.narrow(2, 48, 48));
        let second = after.narrow(2, 24, 24);
        assert!((second - 7.0).abs().max().double_value(&[]) < 1e-5);
    }
}
