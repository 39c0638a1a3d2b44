// Operations on lists of tensors (EMA, norms, scaling, AdamW), with one kernel for many tensors.
#include "shim.h"

#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty_like.h>

namespace {
using Tensors = std::vector<at::Tensor>;

Tensors collect(const tensor_ptr* tensors, size_t len, const char* what) {
  Tensors list;
  list.reserve(len);
  for (size_t i = 0; i < len; ++i) {
    TORCH_CHECK(tensors[i] != nullptr && tensors[i]->defined(), what, "[", i, "] is undefined");
    list.push_back(*tensors[i]);
  }
  return list;
}

// Throws if tensors differ: foreach's slow paths would broadcast them silently, and the fused CPU
// kernels would read out of bounds.
void check_alike(const Tensors& a, const Tensors& b, const char* what_a, const char* what_b) {
  for (size_t i = 0; i < a.size(); ++i) {
    TORCH_CHECK(a[i].sizes() == b[i].sizes(), what_b, "[", i, "] has shape ", b[i].sizes(), ", ",
                what_a, "[", i, "] has ", a[i].sizes());
    TORCH_CHECK(a[i].scalar_type() == b[i].scalar_type(), what_b, "[", i, "] is ",
                b[i].scalar_type(), ", ", what_a, "[", i, "] is ", a[i].scalar_type());
    TORCH_CHECK(a[i].device() == b[i].device(), what_b, "[", i, "] is on ", b[i].device(), ", ",
                what_a, "[", i, "] is on ", a[i].device());
  }
}

// Returns gradients with the strides of the parameters, because the fused kernel processes all
// lists in storage order.
Tensors with_strides_of(const Tensors& params, const Tensors& grads) {
  Tensors same;
  same.reserve(grads.size());
  for (size_t i = 0; i < grads.size(); ++i) {
    const bool equal = grads[i].strides() == params[i].strides();
    same.push_back(equal ? grads[i] : at::empty_like(params[i]).copy_(grads[i]));
  }
  return same;
}

void check_adamw(const Tensors& params, const Tensors& state, const char* what) {
  check_alike(params, state, "params", what);
  for (size_t i = 0; i < params.size(); ++i) {
    TORCH_CHECK(params[i].is_non_overlapping_and_dense(), "params[", i, "] is not dense");
    TORCH_CHECK(params[i].strides() == state[i].strides(), what, "[", i, "] has strides ",
                state[i].strides(), ", params[", i, "] has ", params[i].strides());
  }
}

void check_steps(const Tensors& params, const Tensors& steps) {
  for (size_t i = 0; i < steps.size(); ++i) {
    TORCH_CHECK(steps[i].dim() == 0 && steps[i].scalar_type() == at::kFloat, "steps[", i,
                "] must be one 0-dimensional float");
    TORCH_CHECK(steps[i].device() == params[i].device(), "steps[", i, "] is on ",
                steps[i].device(), ", params[", i, "] is on ", params[i].device());
  }
}
}  // namespace

const char* simdino_foreach_lerp(
    const tensor_ptr* targets, const tensor_ptr* sources, size_t len, double weight) noexcept {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    const auto to = collect(targets, len, "targets");
    const auto from = collect(sources, len, "sources");
    check_alike(to, from, "targets", "sources");
    at::_foreach_lerp_(to, from, weight);
  });
}

const char* simdino_foreach_norm(const tensor_ptr* tensors, size_t len, tensor_ptr* out) noexcept {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    const auto list = collect(tensors, len, "tensors");
    auto norms = at::_foreach_norm(list, 2);
    for (size_t i = 0; i < len; ++i) {
      out[i] = new at::Tensor(std::move(norms[i]));
    }
  });
}

const char* simdino_foreach_mul(
    const tensor_ptr* tensors, const double* factors, size_t len) noexcept {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    const auto list = collect(tensors, len, "tensors");
    at::_foreach_mul_(list, std::vector<at::Scalar>(factors, factors + len));
  });
}

const char* simdino_drop_gradients(const tensor_ptr* tensors, size_t len) noexcept {
  return guarded([&] {
    for (auto& tensor : collect(tensors, len, "tensors")) {
      tensor.mutable_grad() = at::Tensor();
    }
  });
}

const char* simdino_fused_adamw(const SimdinoAdamW* step) noexcept {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    const auto params = collect(step->params, step->len, "params");
    auto grads = collect(step->grads, step->len, "grads");
    const auto exp_avgs = collect(step->exp_avgs, step->len, "exp_avgs");
    const auto exp_avg_sqs = collect(step->exp_avg_sqs, step->len, "exp_avg_sqs");
    const auto steps = collect(step->steps, step->len, "steps");
    check_alike(params, grads, "params", "grads");
    check_adamw(params, exp_avgs, "exp_avgs");
    check_adamw(params, exp_avg_sqs, "exp_avg_sqs");
    check_steps(params, steps);
    grads = with_strides_of(params, grads);
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(params, grads, exp_avgs, exp_avg_sqs, /*max_exp_avg_sqs=*/{}, steps,
                      step->lr, step->beta1, step->beta2, step->weight_decay, step->eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}
