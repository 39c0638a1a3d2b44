// Averages gradients over processes with c10d's Reducer, the engine of DistributedDataParallel.
#include "dist.h"

#include <algorithm>
#include <memory>
#include <unordered_map>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/reducer.hpp>

namespace {

// While this exists, newly created reducers report parameters by name rather than by index.
class NamesInMessages {
 public:
  NamesInMessages() : before_(c10d::debug_level()) {
    c10d::setDebugLevel(std::max(before_, c10d::DebugLevel::Info));
  }
  ~NamesInMessages() {
    c10d::setDebugLevel(before_);
  }
  NamesInMessages(const NamesInMessages&) = delete;
  NamesInMessages& operator=(const NamesInMessages&) = delete;

 private:
  c10d::DebugLevel before_;
};

// Fixes the layout of the buckets, with the last parameters first. c10d lays them out once, after
// the first backward pass, in the order in which gradients arrived. With more than two processes,
// the order of additions depends on the buckets, so a resumed run would not be bitwise equal to an
// uninterrupted one. We therefore run a pass in which all gradients are 0 and arrive in the reverse
// order of the parameters, which is close to the order of a real pass.
void lay_out(c10d::Reducer& reducer, const std::vector<at::Tensor>& params) {
  at::AutoGradMode with_gradients(true);
  reducer.prepare_for_forward();
  auto nothing = at::zeros({}, params.front().options().requires_grad(false));
  for (const auto& param : params) {
    nothing = nothing + param.sum().to(nothing.options()) * 0;
  }
  reducer.prepare_for_backward({});
  torch::autograd::backward({nothing}, {});
  reducer.check_finalized();
  reducer.rebuild_buckets();
}

} // namespace

struct SimdinoReducer {
  std::vector<at::Tensor> params;
  std::unique_ptr<c10d::Reducer> reducer;
};

const char* simdino_reducer_new(
    SimdinoGroup* group, const SimdinoReducerSpec* spec, SimdinoReducer** out) noexcept {
  return guarded([&] {
    auto params = tensors_of(spec->params, spec->len);
    std::unordered_map<size_t, std::string> names;
    for (size_t i = 0; i < spec->len; ++i) {
      names.emplace(i, spec->names[i]);
    }
    const bool find_unused = spec->find_unused != 0;
    const std::vector<bool> sparse(spec->len, false);
    const auto rest = static_cast<size_t>(spec->bucket_bytes);
    const auto first = std::min(rest, static_cast<size_t>(c10d::kDefaultFirstBucketBytes));
    const std::vector<size_t> limits{first, rest};
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(params, limits, sparse));
    std::vector<std::vector<size_t>> reversed(buckets.rbegin(), buckets.rend());
    NamesInMessages names_in_messages;
    auto reducer = std::make_unique<c10d::Reducer>(
        params, std::move(reversed), c10::intrusive_ptr<c10d::ProcessGroup>(group->group), sparse, spec->bucket_bytes, find_unused,
        /*gradient_as_bucket_view=*/true, std::move(names), static_cast<int64_t>(first),
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
        std::vector<int64_t>{});
    if (!find_unused) {
      lay_out(*reducer, params);
    }
    *out = new SimdinoReducer{std::move(params), std::move(reducer)};
  });
}

void simdino_reducer_free(SimdinoReducer* reducer) noexcept {
  try {
    delete reducer;
  } catch (...) {
    // It reports an interrupted backward pass, which its caller already knows about.
  }
}

const char* simdino_reducer_prepare_forward(SimdinoReducer* reducer) noexcept {
  return guarded([&] { reducer->reducer->prepare_for_forward(); });
}

const char* simdino_reducer_prepare_backward(
    SimdinoReducer* reducer, const tensor_ptr* outputs, size_t len) noexcept {
  return guarded([&] { reducer->reducer->prepare_for_backward(tensors_of(outputs, len)); });
}

const char* simdino_reducer_unused(SimdinoReducer* reducer, int* unused) noexcept {
  *unused = 0;
  try {
    reducer->reducer->check_finalized();
    return nullptr;
  } catch (const c10::Error& error) {
    // "... Parameters which did not receive grad for rank 0: NAMES\n..."
    const std::string text = error.what_without_backtrace();
    const std::string before = "did not receive grad for rank ";
    const auto found = text.find(before);
    const auto names = found == std::string::npos ? found : text.find(": ", found);
    if (names == std::string::npos) {
      return simdino_message(text.c_str());
    }
    *unused = 1;
    const auto start = names + 2;
    return simdino_message(text.substr(start, text.find('\n', start) - start).c_str());
  } catch (const std::exception& error) {
    return simdino_message(error.what());
  }
}

const char* simdino_reducer_zero_grad(SimdinoReducer* reducer) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    for (const auto& param : reducer->params) {
      if (param.grad().defined()) {
        param.mutable_grad().zero_();
      }
    }
  });
}

namespace {

// y is the sum of x over processes. The losses of all processes depend on y, so the gradient of x
// is the sum of the gradients of y over processes.
struct SumOverProcesses : torch::autograd::Function<SumOverProcesses> {
  using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

  static at::Tensor summed(const at::Tensor& tensor, const Group& group) {
    std::vector<at::Tensor> sum{tensor.clone(at::MemoryFormat::Contiguous)};
    group->allreduce(sum)->wait();
    return sum[0];
  }

  static at::Tensor forward(
      torch::autograd::AutogradContext* context, const at::Tensor& x, const Group& group) {
    context->saved_data["group"] = c10::IValue::make_capsule(group);
    return summed(x, group);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, torch::autograd::variable_list grads) {
    auto group = c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(
        context->saved_data["group"].toCapsule());
    return {summed(grads[0], group), at::Tensor()};
  }
};

} // namespace

const char* simdino_group_differentiable_sum(
    SimdinoGroup* group, tensor_ptr tensor, tensor_ptr* out) noexcept {
  return guarded([&] {
    const SumOverProcesses::Group all = group->group;
    *out = new at::Tensor(SumOverProcesses::apply(*tensor, all));
  });
}
