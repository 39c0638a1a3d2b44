// Autograd function for a linear layer. Its product and that of the gradient of its input use
// linear.cpp where that is faster; everything else uses the operators that libtorch's own linear
// layer calls.
#include "function.h"

#include <ATen/autocast_mode.h>

#include "linear.h"

namespace simdino::fused {
namespace {

struct Linear : public torch::autograd::Function<Linear> {
  // All in bfloat16: x [.., K], weight [N, K], bias [N].
  static Tensor forward(
      AutogradContext* ctx, const Tensor& x, const Tensor& weight, const Optional& bias) {
    const WithoutAutocast plain_types;
    const auto rows = ready(x.flatten(0, -2)), dense = ready(weight), added = ready(bias);
    auto y = product(rows, dense, true, added);
    if (!y.defined()) {
      y = bias ? at::addmm(added, rows, dense.t()) : at::mm(rows, dense.t());
    }
    ctx->save_for_backward({rows, dense});
    ctx->saved_data["sizes"] = x.sizes();
    ctx->saved_data["bias"] = bias.has_value();
    auto sizes = x.sizes().vec();
    sizes.back() = weight.size(0);
    return at::_unsafe_view(y, sizes);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const WithoutAutocast plain_types;
    const auto saved = ctx->get_saved_variables();
    const auto &rows = saved[0], &weight = saved[1];
    const auto d_y = ready(grads[0].flatten(0, -2));
    variable_list d(3);
    if (ctx->needs_input_grad(0)) {
      d[0] = product(d_y, weight, false, {});
      if (!d[0].defined()) {
        d[0] = at::mm(d_y, weight);
      }
      d[0] = at::_unsafe_view(d[0], ctx->saved_data["sizes"].toIntVector());
    }
    if (ctx->needs_input_grad(1)) {
      // A long sum over all tokens, which libtorch's kernels already distribute well over the
      // multiprocessors.
      d[1] = at::mm(d_y.t(), rows);
    }
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) {
      d[2] = d_y.sum(0);
    }
    return d;
  }
};

// Returns the data type in which a product with this weight is computed.
c10::ScalarType kind_of(const Tensor& weight) {
  return at::autocast::is_autocast_enabled(at::kCUDA) ? at::autocast::get_autocast_dtype(at::kCUDA)
                                                      : weight.scalar_type();
}

// Casts a parameter through autocast's cache, so that all of its uses in a region share one cast,
// in the backward pass, too.
Tensor in_bfloat16(const Tensor& parameter) {
  return parameter.scalar_type() == at::kBFloat16
      ? parameter
      : at::autocast::cached_cast(at::kBFloat16, parameter, at::kCUDA);
}

bool by_us(const Tensor& x, const Tensor& weight, const Optional& bias) {
  const auto fits = [](const Tensor& t) {
    return t.is_cuda() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
  };
  return x.is_cuda() && x.scalar_type() == at::kBFloat16 && x.dim() >= 2 && x.numel() > 0 &&
      weight.dim() == 2 && weight.size(1) == x.size(-1) && fits(weight) &&
      (!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0) && fits(*bias))) &&
      kind_of(weight) == at::kBFloat16;
}

Tensor linear_layer(const Tensor& x, const Tensor& weight, const Optional& bias) {
  if (!by_us(x, weight, bias)) {
    return at::linear(x, weight, bias);
  }
  return Linear::apply(x, in_bfloat16(weight), bias ? Optional(in_bfloat16(*bias)) : Optional());
}
}  // namespace
}  // namespace simdino::fused

const char* simdino_fused_linear_why_not(
    int cuda_index, int64_t tokens, int64_t outputs, int64_t inputs) noexcept {
  return guarded([&] {
    const auto why = simdino::fused::product_why_not(cuda_index, {true, false, outputs, tokens, inputs});
    TORCH_CHECK(why.empty(), why);
  });
}

const char* simdino_fused_linear(
    tensor_ptr x, tensor_ptr weight, tensor_ptr bias, tensor_ptr* out) noexcept {
  using namespace simdino::fused;
  return guarded([&] { hand_over({linear_layer(*x, *weight, optional(bias))}, out); });
}
