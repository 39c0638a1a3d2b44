// Autograd function for attention, from the projection to the output. It uses attention.cu where
// that is supported; elsewhere, it computes the same formulas with libtorch's operators.
#include "function.h"

#include <cmath>
#include <utility>

#include "attention.h"

namespace simdino::fused {
namespace {

bool attention_by_kernels(const Tensor& qkv, int64_t heads) {
  return qkv.is_cuda() && qkv.scalar_type() == at::kBFloat16 &&
      attention_why_not(qkv.device().index(), qkv.size(1), qkv.size(2) / 3 / heads).empty();
}

namespace plain {
// Returns queries, keys, and values, [3, B, H, T, W], in at least fp32.
Tensor heads_of(const Tensor& qkv, int64_t heads) {
  const auto wide = at::promote_types(qkv.scalar_type(), at::kFloat);
  return qkv.view({qkv.size(0), qkv.size(1), 3, heads, -1}).permute({2, 0, 3, 1, 4}).to(wide);
}

double scale_of(const Tensor& q) {
  return std::pow(static_cast<double>(q.size(-1)), -0.5);
}

Tensor probabilities(const Tensor& q, const Tensor& k) {
  return at::softmax(at::matmul(q * scale_of(q), k.transpose(-2, -1)), -1);
}

Tensor attention(const Tensor& qkv, int64_t heads) {
  const auto parts = heads_of(qkv, heads);
  const auto mixed = at::matmul(probabilities(parts[0], parts[1]), parts[2]);
  return mixed.transpose(1, 2).flatten(2).to(qkv.scalar_type()); // [B, H, T, W] -> [B, T, D]
}

AttentionGradients attention_backward(const Tensor& d_out, const Tensor& qkv, int64_t heads) {
  const auto parts = heads_of(qkv, heads);
  const auto q = parts[0], k = parts[1], v = parts[2];
  const auto d = d_out.view({d_out.size(0), d_out.size(1), heads, -1}).transpose(1, 2).to(q.scalar_type());
  const auto p = probabilities(q, k);
  const auto d_p = at::matmul(d, v.transpose(-2, -1));
  const auto d_scores = p * (d_p - (p * d_p).sum(-1, true)) * scale_of(q);
  const auto d_parts = at::stack(
      {at::matmul(d_scores, k), at::matmul(d_scores.transpose(-2, -1), q), at::matmul(p.transpose(-2, -1), d)});
  // [3, B, H, T, W] -> [B, T, 3, H, W] -> [B, T, 3 D]
  const auto d_qkv = d_parts.permute({1, 3, 0, 2, 4}).flatten(2);
  return {d_qkv.to(qkv.scalar_type()), d_qkv.flatten(0, 1).sum(0)};
}
}  // namespace plain

struct Attention : public torch::autograd::Function<Attention> {
  static Tensor forward(AutogradContext* ctx, const Tensor& qkv, const Optional& bias, int64_t heads) {
    const WithoutAutocast plain_types;
    TORCH_CHECK(
        qkv.dim() == 3 && heads > 0 && qkv.size(2) > 0 && qkv.size(2) % (3 * heads) == 0,
        "qkv must be [B, T, 3 D] for ", heads, " heads, got ", qkv.sizes());
    TORCH_CHECK(
        !bias || (bias->dim() == 1 && bias->size(0) == qkv.size(2)), "bias must be [", qkv.size(2),
        "], got ", bias->sizes());
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["bias"] = bias ? static_cast<int64_t>(bias->scalar_type()) : int64_t{-1};
    Tensor out, log_sums;
    const auto dense = qkv.is_cuda() ? ready(qkv) : qkv.contiguous();
    if (attention_by_kernels(qkv, heads)) {
      std::tie(out, log_sums) = simdino::fused::attention(dense, heads);
    } else {
      out = plain::attention(dense, heads);
    }
    // Without `log_sums`, the operators computed it, whose backward pass does not need the output.
    ctx->save_for_backward({dense, log_sums.defined() ? out : Tensor(), log_sums});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const WithoutAutocast plain_types;
    const auto saved = ctx->get_saved_variables();
    const auto &qkv = saved[0], &out = saved[1], &log_sums = saved[2];
    const auto heads = ctx->saved_data["heads"].toInt(), bias_kind = ctx->saved_data["bias"].toInt();
    const bool bias = bias_kind >= 0;
    const auto d = log_sums.defined()
        ? simdino::fused::attention_backward(ready(grads[0]), qkv, out, log_sums, heads, bias)
        : plain::attention_backward(grads[0].contiguous(), qkv, heads);
    return {d.qkv, bias ? d.bias.to(static_cast<c10::ScalarType>(bias_kind)) : Tensor(), {}};
  }
};
}  // namespace
}  // namespace simdino::fused

const char* simdino_fused_attention_why_not(int cuda_index, int64_t tokens, int64_t width) noexcept {
  return guarded([&] {
    const auto why = simdino::fused::attention_why_not(cuda_index, tokens, width);
    TORCH_CHECK(why.empty(), why);
  });
}

const char* simdino_fused_attention(
    tensor_ptr qkv, tensor_ptr bias, int64_t heads, tensor_ptr* out) noexcept {
  using namespace simdino::fused;
  return guarded([&] { hand_over({Attention::apply(*qkv, optional(bias), heads)}, out); });
}
