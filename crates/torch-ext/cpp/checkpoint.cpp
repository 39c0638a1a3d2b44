// Activation checkpointing: a part of a network saves only its input and is recomputed in the
// backward pass.
#include "shim.h"

#include <memory>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

// Declared in ATen/autocast_mode.h; see autocast.cpp.
namespace at::autocast {
bool is_autocast_enabled(c10::DeviceType device_type);
c10::ScalarType get_autocast_dtype(c10::DeviceType device_type);
}  // namespace at::autocast

namespace {
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// The part of the network, which the autograd graph owns and frees.
struct Body {
  SimdinoBody body;
  // The autocast state of the forward pass; the backward pass runs outside of autocast.
  bool cuda = false;
  int dtype = -1;

  explicit Body(SimdinoBody given) : body(given) {}
  Body(const Body&) = delete;
  Body& operator=(const Body&) = delete;
  ~Body() { body.drop(body.data); }

  at::Tensor call(const at::Tensor& x, bool again) const {
    at::Tensor input = x;
    tensor_ptr out = nullptr;
    const char* problem = body.call(body.data, &input, again ? 1 : 0, &out);
    TORCH_CHECK(problem == nullptr, problem);
    std::unique_ptr<at::Tensor> owned(out);
    return std::move(*owned);
  }
};

// Restores the autocast state of the forward pass for the lifetime of this object.
class AutocastAgain {
 public:
  explicit AutocastAgain(const Body& body) : cuda_(body.cuda ? 1 : 0) {
    const char* problem = simdino_autocast_enter(cuda_, body.dtype, &before_);
    TORCH_CHECK(problem == nullptr, problem);
  }
  AutocastAgain(const AutocastAgain&) = delete;
  AutocastAgain& operator=(const AutocastAgain&) = delete;
  ~AutocastAgain() { simdino_autocast_exit(cuda_, &before_); }

 private:
  int cuda_;
  SimdinoAutocast before_{};
};

// Inputs are x and the parameters, so that the autograd engine accumulates their gradients as
// usual.
struct Checkpoint : public torch::autograd::Function<Checkpoint> {
  static Variable forward(
      AutogradContext* ctx, const Variable& x, at::TensorList params,
      const std::shared_ptr<Body>& body) {
    variable_list saved{x};
    saved.insert(saved.end(), params.begin(), params.end());
    ctx->save_for_backward(std::move(saved)); // detects parameters modified before backward
    ctx->saved_data["body"] = c10::IValue::make_capsule(
        c10::make_intrusive<Holder>(body));
    return body->call(x, false);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto holder = ctx->saved_data["body"].toCapsule();
    const Body& body = *static_cast<const Holder&>(*holder).body;
    at::AutoGradMode with_gradients(true);
    Variable x = saved[0].detach();
    x.set_requires_grad(saved[0].requires_grad());
    at::Tensor out;
    {
      AutocastAgain autocast(body);
      out = body.call(x, true);
    }
    variable_list wanted, found;
    for (size_t i = 0; i < saved.size(); ++i) {
      const Variable& input = i == 0 ? x : saved[i];
      if (input.requires_grad()) {
        wanted.push_back(input);
      }
    }
    found = torch::autograd::grad({out}, wanted, {grads[0]}, std::nullopt, false, true);
    variable_list result;
    size_t next = 0;
    for (size_t i = 0; i < saved.size(); ++i) {
      const Variable& input = i == 0 ? x : saved[i];
      result.push_back(input.requires_grad() ? found[next++] : Variable());
    }
    result.emplace_back(); // no gradient for `body`
    return result;
  }

  struct Holder : public torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<Body> given) : body(std::move(given)) {}
    std::shared_ptr<Body> body;
  };
};
}  // namespace

const char* simdino_checkpoint(
    tensor_ptr x, const tensor_ptr* params, size_t len, const SimdinoBody* body,
    tensor_ptr* out) noexcept {
  return guarded([&] {
    auto owned = std::make_shared<Body>(*body); // frees its data even if an exception is thrown
    owned->cuda = x->is_cuda();
    const auto device = x->device().type();
    if (at::autocast::is_autocast_enabled(device)) {
      owned->dtype = static_cast<int>(at::autocast::get_autocast_dtype(device));
    }
    variable_list list;
    for (size_t i = 0; i < len; ++i) {
      list.push_back(*params[i]);
    }
    *out = new at::Tensor(Checkpoint::apply(*x, at::TensorList(list), owned));
  });
}
