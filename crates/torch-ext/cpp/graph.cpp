// CUDA graphs: a function and its backward pass, recorded once and then launched as a whole.
//
// A recording is a list of kernels with the addresses that they read and write. Therefore, inputs
// are copied to where the recording reads them, outputs and gradients always use the same memory,
// and parameters must not move. Random numbers are new in each replay, because the recording reads
// the seed and offset of the default generator from memory.
#include "device.h"
#include "shim.h"

#include <atomic>

namespace {
std::atomic<int> recordings{0};
}

bool has_graphs() {
  return recordings > 0;
}

#ifdef SIMDINO_KERNELS
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

// Declared in ATen/autocast_mode.h, which is slow to compile; see autocast.cpp.
namespace at::autocast {
void clear_cache();
}

namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::vector<Tensor> list_of(const tensor_ptr* tensors, size_t len) {
  std::vector<Tensor> list;
  for (size_t i = 0; i < len; ++i) {
    list.push_back(*tensors[i]);
  }
  return list;
}

// Returns a recorded gradient in the form that its parameter will keep: with the strides of the
// parameter, which the optimizer's kernels require, and in storage that is not in `taken`, because
// gradients are scaled in place. Adds its storage to `taken`.
Tensor kept(const Tensor& gradient, const Tensor& param, std::set<const void*>& taken) {
  if (!gradient.defined()) {
    return gradient;
  }
  const bool alone = taken.insert(gradient.storage().unsafeGetStorageImpl()).second;
  if (alone && gradient.strides() == param.strides()) {
    return gradient;
  }
  return at::empty_like(param).copy_(gradient);
}

// Other threads copy images to the device during a recording, so its restrictions must apply to
// this thread only.
void begin(at::cuda::CUDAGraph& graph, at::cuda::MempoolId_t pool) {
  graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
}

struct Recording {
  c10::Device device;
  c10::cuda::CUDAStream caller, stream;
  at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
  std::vector<Tensor> inputs, outputs, d_outputs, params, d_params;
  std::vector<const void*> addresses; // of `fixed`, at the time of recording
  std::vector<Tensor> fixed; // all tensors that must not move
  std::vector<bool> needs_gradient; // for each output
  Tensor anchor; // an input that requires a gradient, so that autograd calls our backward pass
  // Last, so that they are freed before the memory that they use.
  at::cuda::CUDAGraph forward, backward;
  at::cuda::CUDAGraph* recording = nullptr; // the graph that is being recorded
  bool away = false; // whether the current stream is ours instead of the caller's

  explicit Recording(c10::Device on)
      : device(on),
        caller(c10::cuda::getCurrentCUDAStream(on.index())),
        stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, on.index())) {
    ++recordings;
  }

  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    abandon();
    --recordings;
  }

  void begin_forward() {
    // The recording has its own memory pool, beside which memory cached by earlier steps would lie
    // idle.
    c10::cuda::device_synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    c10::cuda::setCurrentCUDAStream(stream);
    away = true;
    recording = &forward;
    begin(forward, pool);
  }

  void end_forward() {
    forward.capture_end();
    recording = nullptr;
  }

  // Records the gradients of `params` from those of the outputs.
  void record_backward() {
    variable_list with_gradients;
    for (const auto& output : outputs) {
      if (output.requires_grad()) {
        with_gradients.push_back(output);
        d_outputs.push_back(at::zeros_like(output, at::MemoryFormat::Contiguous));
      }
    }
    if (with_gradients.empty()) {
      return;
    }
    c10::cuda::device_synchronize();
    recording = &backward;
    begin(backward, pool);
    d_params = torch::autograd::grad(
        with_gradients, params, d_outputs, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
    const at::NoGradGuard no_grad;
    std::set<const void*> taken;
    for (const auto& given : d_outputs) {
      taken.insert(given.storage().unsafeGetStorageImpl());
    }
    for (size_t i = 0; i < params.size(); ++i) {
      d_params[i] = kept(d_params[i], params[i], taken);
    }
    backward.capture_end();
    recording = nullptr;
  }

  void finish() {
    c10::cuda::setCurrentCUDAStream(caller);
    away = false;
    for (auto& output : outputs) {
      needs_gradient.push_back(output.requires_grad());
      output = output.variable_data();
    }
    for (const auto& tensor : fixed) {
      addresses.push_back(tensor.const_data_ptr());
    }
    // Otherwise, the peak would include both eager and recorded steps.
    c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
    anchor = at::zeros({1}, at::TensorOptions().device(device)).set_requires_grad(true);
  }

  // Ends a failed recording, so that the device can be used again.
  void abandon() noexcept {
    if (!away) {
      return;
    }
    const auto attempt = [](auto&& action) {
      try {
        action();
      } catch (const std::exception&) { // there was nothing to end or restore
      }
    };
    attempt([&] {
      const c10::DeviceGuard guard(device);
      if (recording != nullptr) {
        attempt([&] { recording->capture_end(); });
        // capture_end of an invalid recording throws before it cleans up the allocators. Both would
        // then consult the destroyed graph about later allocations, and would never free its
        // memory.
        attempt([&] {
          c10::cuda::CUDACachingAllocator::endAllocateToPool(device.index(), pool);
          c10::cuda::CUDACachingAllocator::releasePool(device.index(), pool);
        });
        attempt([&] {
          auto* host = at::getHostAllocator(c10::DeviceType::CUDA);
          host->end_allocate_to_pool(pool);
          host->release_pool(pool);
        });
        attempt([&] { draw_again(); });
      }
      c10::cuda::setCurrentCUDAStream(caller);
    });
    // Drops casts of weights that were recorded but never computed, which the caller's autocast
    // region would otherwise use.
    attempt([&] { at::autocast::clear_cache(); });
    recording = nullptr;
    away = false;
  }

  // Restarts the default generator from its seed, because it would otherwise stay registered with
  // the failed recording.
  void draw_again() const {
    auto generator = at::cuda::detail::getDefaultCUDAGenerator(device.index());
    const std::lock_guard<std::mutex> lock(generator.mutex());
    auto fresh = at::cuda::detail::createCUDAGenerator(device.index());
    fresh.set_current_seed(generator.current_seed());
    generator.graphsafe_set_state(fresh);
  }

  void copy_in(const std::vector<Tensor>& from) const {
    TORCH_CHECK(from.size() == inputs.size(), "the recording has ", inputs.size(), " inputs, not ", from.size());
    for (size_t i = 0; i < from.size(); ++i) {
      TORCH_CHECK(
          from[i].sizes() == inputs[i].sizes() && from[i].scalar_type() == inputs[i].scalar_type() &&
              from[i].device() == inputs[i].device(),
          "input ", i, " was ", inputs[i].sizes(), " when recorded, but is now ", from[i].sizes());
    }
    for (size_t i = 0; i < fixed.size(); ++i) {
      TORCH_CHECK(fixed[i].const_data_ptr() == addresses[i], "a parameter has moved since the recording");
    }
    for (size_t i = 0; i < from.size(); ++i) {
      inputs[i].copy_(from[i], /*non_blocking=*/true);
    }
  }
};

struct Holder : public torch::CustomClassHolder {
  explicit Holder(std::shared_ptr<Recording> given) : recording(std::move(given)) {}
  std::shared_ptr<Recording> recording;
};

// The replay as an autograd function. It sets the gradients of parameters to the recording's own
// tensors instead of returning them, because autograd would copy each.
struct Replay : public torch::autograd::Function<Replay> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& anchor, const std::shared_ptr<Recording>& recording) {
    (void)anchor; // only there to require a gradient
    ctx->saved_data["recording"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(recording));
    ctx->set_materialize_grads(false);
    recording->forward.replay();
    variable_list made, without;
    for (size_t i = 0; i < recording->outputs.size(); ++i) {
      // A new tensor with the same memory, so that the recording's own gets no autograd history.
      made.push_back(recording->outputs[i].variable_data());
      if (!recording->needs_gradient[i]) {
        without.push_back(made.back());
      }
    }
    ctx->mark_non_differentiable(without);
    return made;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto holder = ctx->saved_data["recording"].toCapsule();
    Recording& recording = *static_cast<const Holder&>(*holder).recording;
    size_t next = 0;
    for (size_t i = 0; i < grads.size(); ++i) {
      if (!recording.needs_gradient[i]) {
        continue;
      }
      const auto& to = recording.d_outputs[next++];
      if (grads[i].defined()) {
        to.copy_(grads[i], /*non_blocking=*/true);
      } else {
        to.zero_();
      }
    }
    recording.backward.replay();
    for (size_t i = 0; i < recording.params.size(); ++i) {
      auto& gradient = recording.params[i].mutable_grad();
      TORCH_CHECK(!gradient.defined(), "a recorded step starts without gradients");
      gradient = recording.d_params[i];
    }
    return {{}, {}};
  }
};
}  // namespace

struct SimdinoGraph {
  std::shared_ptr<Recording> recording;
};

const char* simdino_graph_begin(
    const tensor_ptr* inputs, size_t len, SimdinoGraph** out, tensor_ptr* recorded) noexcept {
  return guarded([&] {
    TORCH_CHECK(len > 0, "nothing to record without an input");
    const auto device = inputs[0]->device();
    TORCH_CHECK(device.is_cuda(), "CUDA graphs need a CUDA device, but the input is on ", device);
    const c10::DeviceGuard guard(device);
    auto made = std::make_shared<Recording>(device);
    for (const auto& input : list_of(inputs, len)) {
      made->inputs.push_back(input.detach().clone(at::MemoryFormat::Contiguous));
    }
    made->begin_forward();
    for (const auto& input : made->inputs) {
      *recorded++ = new Tensor(input);
    }
    *out = new SimdinoGraph{std::move(made)};
  });
}

const char* simdino_graph_end(
    SimdinoGraph* graph, const tensor_ptr* outputs, size_t outputs_len, const tensor_ptr* params,
    size_t params_len, const tensor_ptr* constants, size_t constants_len) noexcept {
  return guarded([&] {
    auto& recording = *graph->recording;
    const c10::DeviceGuard guard(recording.device);
    recording.end_forward();
    recording.outputs = list_of(outputs, outputs_len);
    recording.params = list_of(params, params_len);
    recording.fixed = list_of(constants, constants_len);
    recording.fixed.insert(recording.fixed.end(), recording.params.begin(), recording.params.end());
    recording.record_backward();
    recording.finish();
  });
}

const char* simdino_graph_replay(
    SimdinoGraph* graph, const tensor_ptr* inputs, size_t len, tensor_ptr* out) noexcept {
  return guarded([&] {
    const c10::DeviceGuard guard(graph->recording->device);
    graph->recording->copy_in(list_of(inputs, len));
    std::vector<std::unique_ptr<Tensor>> owned;
    for (auto& tensor : Replay::apply(graph->recording->anchor, graph->recording)) {
      owned.push_back(std::make_unique<Tensor>(tensor));
    }
    for (auto& tensor : owned) {
      *out++ = tensor.release();
    }
  });
}

void simdino_graph_free(SimdinoGraph* graph) noexcept {
  delete graph;
}

#else // without CUDA's headers

struct SimdinoGraph {};

namespace {
constexpr const char* WITHOUT = "this program was built without CUDA's headers";
}

const char* simdino_graph_begin(const tensor_ptr*, size_t, SimdinoGraph**, tensor_ptr*) noexcept {
  return simdino_message(WITHOUT);
}
const char* simdino_graph_end(
    SimdinoGraph*, const tensor_ptr*, size_t, const tensor_ptr*, size_t, const tensor_ptr*, size_t) noexcept {
  return simdino_message(WITHOUT);
}
const char* simdino_graph_replay(SimdinoGraph*, const tensor_ptr*, size_t, tensor_ptr*) noexcept {
  return simdino_message(WITHOUT);
}
void simdino_graph_free(SimdinoGraph* graph) noexcept {
  delete graph;
}
#endif
