// Compiles norm.cu, norm_backward.cu, and columns.cu for a GPU and a width, and launches their kernels.
#include "kernels.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#ifdef SIMDINO_KERNELS
#include "driver.h"
#include "kernels_source.h" // KERNELS_SOURCE, the kernels' text, written by build.rs
#include "norm_sizes.h"
#endif

namespace simdino::fused {

#ifdef SIMDINO_KERNELS
namespace {
constexpr uint32_t COLUMN_WARPS = 8, LANES = 32, WIDE = 8;
constexpr int64_t WIDEST = 1536; // beyond, a lane would hold more than fits its registers

// A kernel, the threads of a block and their shared memory, and how many blocks the device runs at once: more of
// them would have to wait for the others, and then run without them.
struct Kernel {
  const char* name;
  uint32_t threads, bytes = 0;
  CUfunction function = nullptr;
  uint32_t resident = 1;

  Kernel(const char* its_name, uint32_t warps) : name(its_name), threads(LANES * warps) {}
  Kernel(const char* its_name, const NormRing& ring)
      : name(its_name), threads(LANES * ring.warps), bytes(ring.bytes()) {}

  void load(const Api& api, CUmodule module, int processors) {
    api.check(api.cuModuleGetFunction(&function, module, name), name);
    if (bytes != 0) {
      set(api, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, static_cast<int>(bytes));
      // In percent of a processor's memory: rings are worth more than what the L1 cache would keep.
      set(api, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
    }
    int of_a_processor = 0;
    const auto status = api.cuOccupancyMaxActiveBlocksPerMultiprocessor(
        &of_a_processor, function, static_cast<int>(threads), bytes);
    api.check(status, name);
    resident = static_cast<uint32_t>(std::max(1, of_a_processor) * processors);
  }

 private:
  void set(const Api& api, CUfunction_attribute attribute, int value) const {
    api.check(api.cuFuncSetAttribute(function, attribute, value), name);
  }
};

// The kernels of one device and width.
struct Kernels {
  const Api& api;
  CUmodule module = nullptr;
  uint32_t rows_of_a_block; // of `forward`
  // The first of two is for a stream in float, the second for bfloat16.
  std::array<Kernel, 2> forward, backward, backward_branch, backward_gamma;
  Kernel forward_ring;
  Kernel sum{"sum_of_parts", SUM_WARPS};
  Kernel gelu{"bias_gelu_forward", COLUMN_WARPS};
  Kernel gelu_backward{"bias_gelu_backward", COLUMN_WARPS};
  Kernel merge{"merge_heads_backward", COLUMN_WARPS};

  // Of a width, and of shared memory that a block may have.
  Kernels(uint32_t dim, uint32_t shared_bytes)
      : api(Api::get()),
        rows_of_a_block(NORM_WARPS / norm_team(dim)),
        forward{{{"add_norm_forward_float", NORM_WARPS}, {"add_norm_forward_bf16", NORM_WARPS}}},
        backward{
            {{"norm_backward_float", add_norm_backward_ring(dim, 4, false, shared_bytes)},
             {"norm_backward_bf16", add_norm_backward_ring(dim, 2, false, shared_bytes)}}},
        backward_branch{
            {{"add_norm_backward_plain_float", add_norm_backward_ring(dim, 4, false, shared_bytes)},
             {"add_norm_backward_plain_bf16", add_norm_backward_ring(dim, 2, false, shared_bytes)}}},
        backward_gamma{
            {{"add_norm_backward_gamma_float", add_norm_backward_ring(dim, 4, true, shared_bytes)},
             {"add_norm_backward_gamma_bf16", add_norm_backward_ring(dim, 2, true, shared_bytes)}}},
        forward_ring{"add_norm_forward_ring", add_norm_ring(dim)} {}

  static std::unique_ptr<Kernels> compiled(int index, int64_t dim) {
    const auto* gpu = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
    TORCH_CHECK(gpu->major >= 8, gpu->name, " has no bfloat16");
    TORCH_CHECK(dim % WIDE == 0 && dim <= WIDEST, "a width of ", dim, " is not a multiple of 8 up to ", WIDEST);
    const On device(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)));
    const auto shared_bytes = static_cast<uint32_t>(gpu->sharedMemPerBlockOptin);
    auto made = std::make_unique<Kernels>(static_cast<uint32_t>(dim), shared_bytes);
    const auto code = compile(
        made->api, *gpu, KERNELS_SOURCE, "-DDIM=" + std::to_string(dim),
        "-DSHARED_LIMIT=" + std::to_string(shared_bytes));
    made->api.check(made->api.cuModuleLoadData(&made->module, code.data()), "the kernels");
    for (auto* pair : {&made->forward, &made->backward, &made->backward_branch, &made->backward_gamma}) {
      for (Kernel& kernel : *pair) {
        kernel.load(made->api, made->module, gpu->multiProcessorCount);
      }
    }
    for (Kernel* kernel :
         {&made->forward_ring, &made->sum, &made->gelu, &made->gelu_backward, &made->merge}) {
      kernel->load(made->api, made->module, gpu->multiProcessorCount);
    }
    return made;
  }

  // Those of a device and a width, compiled at the first call. They live as long as the process.
  static const Kernels& of(int index, int64_t dim) {
    static std::mutex mutex;
    static std::map<std::pair<int, int64_t>, std::unique_ptr<Kernels>> all;
    const std::lock_guard<std::mutex> lock(mutex);
    auto& found = all[{index, dim}];
    if (!found) {
      found = compiled(index, dim);
    }
    return *found;
  }

  template <class... Arguments>
  void launch(const Kernel& kernel, uint32_t x, uint32_t y, Arguments... arguments) const {
    void* pointers[] = {&arguments...};
    const auto stream = c10::cuda::getCurrentCUDAStream().stream();
    const auto status = api.cuLaunchKernel(
        kernel.function, x, y, 1, kernel.threads, 1, 1, kernel.bytes, stream, pointers, nullptr);
    api.check(status, kernel.name);
  }

  // Adds up [count, stride] to [columns].
  at::Tensor sum_parts(const at::Tensor& parts, int64_t offset, int64_t columns) const {
    auto to = at::empty({columns}, parts.options());
    const auto count = static_cast<uint32_t>(parts.size(0));
    const auto stride = static_cast<uint32_t>(parts.stride(0));
    launch(
        sum, (static_cast<uint32_t>(columns) + LANES - 1) / LANES, 1, parts.const_data_ptr<float>() + offset, count, stride, static_cast<uint32_t>(columns),
        to.mutable_data_ptr<float>());
    return to;
  }
};

using bf16 = at::BFloat16;

template <class T>
const T* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<T>() : nullptr;
}

uint32_t rows_of(const at::Tensor& x) {
  const auto rows = x.numel() / x.size(-1);
  TORCH_CHECK(rows < (int64_t{1} << 31), "too many rows for the fused kernels: ", rows);
  return static_cast<uint32_t>(rows);
}

// The rows of one image of x [B, T, D].
uint32_t rows_per_image(const at::Tensor& x) {
  return static_cast<uint32_t>(x.size(-2));
}

// Of a pair of kernels, the one for a stream of this type.
const Kernel& of_stream(const std::array<Kernel, 2>& kernels, const at::Tensor& stream) {
  return kernels[stream.scalar_type() == at::kBFloat16 ? 1 : 0];
}

// Whether the gradient of a branch is that of the stream, bit by bit. Then autograd gets one tensor for both, as
// from libtorch's own addition: it adds in place only to what nothing else refers to.
bool same_gradient(const at::Tensor& stream, const Branch& branch) {
  return stream.scalar_type() == branch.kind && !branch.gamma.defined() && !branch.factor.defined() &&
      !branch.places.defined();
}

// The sizes of x [B, T, D] for another number of images.
std::vector<int64_t> sized(const at::Tensor& x, int64_t images) {
  return {images, x.size(1), x.size(2)};
}

// Blocks along the columns and along the rows, for kernels that take LANES * WIDE columns a block.
std::pair<uint32_t, uint32_t> tiles(const Kernel& kernel, uint32_t rows, int64_t columns) {
  const auto across = (static_cast<uint32_t>(columns) + LANES * WIDE - 1) / (LANES * WIDE);
  const auto wanted = std::max(1u, kernel.resident / across);
  return {across, std::clamp((rows + COLUMN_WARPS - 1) / COLUMN_WARPS, 1u, wanted)};
}
}  // namespace

std::string why_not(int index, int64_t dim) {
  static std::mutex mutex;
  static std::map<std::pair<int, int64_t>, std::string> all;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [found, first] = all.try_emplace({index, dim});
  if (first) { // tried once: a network asks in each of its passes
    const char* set = std::getenv("SIMDINO_FUSED_KERNELS");
    if (set != nullptr && std::string(set) == "0") {
      found->second = "SIMDINO_FUSED_KERNELS=0 switches them off";
      return found->second;
    }
    try {
      Kernels::of(index, dim);
    } catch (const c10::Error& error) {
      found->second = error.what_without_backtrace();
    }
  }
  return found->second;
}

Normed add_norm(
    const at::Tensor& x, const Branch& branch, const Selection& selection, const at::Tensor& weight,
    const at::Tensor& shift, double eps) {
  const On device(x.device());
  const auto& k = Kernels::of(x.device().index(), x.size(-1));
  const auto rows = rows_of(x);
  Normed made;
  made.normed = at::empty(sized(x, selection.count), x.options().dtype(at::kBFloat16));
  made.mean = at::empty({static_cast<int64_t>(rows)}, x.options().dtype(at::kFloat));
  made.inverse = at::empty_like(made.mean);
  made.out = branch.output.defined() ? at::empty_like(x) : x;
  if (rows == 0) {
    return made;
  }
  // Rings are faster for these, and slower for others.
  if (branch.output.defined() && !branch.gamma.defined() && x.scalar_type() == at::kBFloat16) {
    k.launch(
        k.forward_ring, std::min(rows, k.forward_ring.resident), 1, x.const_data_ptr<bf16>(),
        branch.output.const_data_ptr<bf16>(), data_or_null<float>(branch.bias),
        data_or_null<float>(branch.factor), data_or_null<int>(branch.places),
        data_or_null<int>(selection.places), rows_per_image(x), weight.const_data_ptr<float>(),
        shift.const_data_ptr<float>(), static_cast<float>(eps), rows,
        made.out.mutable_data_ptr<bf16>(), made.normed.mutable_data_ptr<bf16>(),
        made.mean.mutable_data_ptr<float>(), made.inverse.mutable_data_ptr<float>());
    return made;
  }
  k.launch(
      of_stream(k.forward, x), (rows + k.rows_of_a_block - 1) / k.rows_of_a_block, 1,
      x.const_data_ptr(), data_or_null<bf16>(branch.output), data_or_null<float>(branch.bias),
      data_or_null<float>(branch.gamma), data_or_null<float>(branch.factor),
      data_or_null<int>(branch.places), data_or_null<int>(selection.places), rows_per_image(x),
      weight.const_data_ptr<float>(), shift.const_data_ptr<float>(), static_cast<float>(eps), rows,
      branch.output.defined() ? made.out.mutable_data_ptr() : nullptr,
      made.normed.mutable_data_ptr<bf16>(), made.mean.mutable_data_ptr<float>(),
      made.inverse.mutable_data_ptr<float>());
  return made;
}

AddNormGradients add_norm_backward(
    const at::Tensor& d_normed, const at::Tensor& d_out, const Normed& saved, const Branch& branch,
    const Selection& selection, const at::Tensor& weight) {
  const On device(saved.out.device());
  const auto dim = saved.out.size(-1);
  const auto& k = Kernels::of(saved.out.device().index(), dim);
  const auto rows = rows_of(saved.out);
  const bool gamma = branch.gamma.defined();
  const bool has_branch = branch.kind != c10::ScalarType::Undefined;
  const auto& kernel =
      of_stream(gamma ? k.backward_gamma : has_branch ? k.backward_branch : k.backward, saved.out);
  const auto blocks = std::clamp(rows, 1u, kernel.resident);
  const auto options = saved.out.options();
  const auto parts = at::empty({static_cast<int64_t>(blocks), 4 * dim}, options.dtype(at::kFloat));
  AddNormGradients made;
  made.x = at::empty_like(saved.out);
  const bool one_for_both = has_branch && same_gradient(saved.out, branch);
  if (has_branch) {
    made.branch =
        one_for_both ? made.x : at::empty(sized(saved.out, branch.images), options.dtype(branch.kind));
  }
  k.launch(
      kernel, blocks, 1, d_normed.const_data_ptr<bf16>(),
      d_out.defined() ? d_out.const_data_ptr() : nullptr, saved.out.const_data_ptr(),
      saved.mean.const_data_ptr<float>(), saved.inverse.const_data_ptr<float>(),
      weight.const_data_ptr<float>(), data_or_null<bf16>(branch.output),
      data_or_null<float>(branch.bias), data_or_null<float>(branch.gamma),
      data_or_null<float>(branch.factor), data_or_null<int>(branch.places),
      data_or_null<int>(selection.places), rows_per_image(saved.out), rows,
      made.x.mutable_data_ptr(),
      has_branch && !one_for_both ? made.branch.mutable_data_ptr<bf16>() : nullptr,
      parts.mutable_data_ptr<float>());
  const auto sums = k.sum_parts(parts, 0, (gamma ? 4 : has_branch ? 3 : 2) * dim);
  made.weight = sums.narrow(0, 0, dim);
  made.shift = sums.narrow(0, dim, dim);
  made.bias = branch.bias.defined() ? sums.narrow(0, 2 * dim, dim) : at::Tensor();
  made.gamma = gamma ? sums.narrow(0, 3 * dim, dim) : at::Tensor();
  return made;
}

at::Tensor bias_gelu(const at::Tensor& x, const at::Tensor& bias, int64_t dim) {
  const On device(x.device());
  const auto& k = Kernels::of(x.device().index(), dim);
  const auto rows = rows_of(x);
  auto activated = at::empty_like(x);
  if (rows == 0) {
    return activated;
  }
  const auto columns = x.size(-1);
  const auto [across, down] = tiles(k.gelu, rows, columns);
  k.launch(
      k.gelu, across, down, x.const_data_ptr<bf16>(),
      bias.const_data_ptr<float>(), rows, static_cast<uint32_t>(columns),
      activated.mutable_data_ptr<bf16>());
  return activated;
}

std::pair<at::Tensor, at::Tensor> bias_gelu_backward(
    const at::Tensor& d_activated, const at::Tensor& x, const at::Tensor& bias, int64_t dim) {
  const On device(x.device());
  const auto& k = Kernels::of(x.device().index(), dim);
  const auto rows = rows_of(x);
  const auto columns = x.size(-1);
  const auto [across, down] = tiles(k.gelu_backward, rows, columns);
  auto d_x = at::empty_like(x);
  const auto parts = at::empty({static_cast<int64_t>(down), columns}, bias.options());
  k.launch(
      k.gelu_backward, across, down, d_activated.const_data_ptr<bf16>(),
      x.const_data_ptr<bf16>(), bias.const_data_ptr<float>(), rows, static_cast<uint32_t>(columns),
      d_x.mutable_data_ptr<bf16>(), parts.mutable_data_ptr<float>());
  return {d_x, k.sum_parts(parts, 0, columns)};
}

std::pair<at::Tensor, at::Tensor> merge_heads_backward(
    const at::Tensor& d_query, const at::Tensor& d_key, const at::Tensor& d_value) {
  struct Strides {
    uint64_t batch, head, token;
  };
  const auto strides = [](const at::Tensor& t) {
    return Strides{
        static_cast<uint64_t>(t.stride(0)), static_cast<uint64_t>(t.stride(1)),
        static_cast<uint64_t>(t.stride(2))};
  };
  const On device(d_query.device());
  const auto batch = d_query.size(0), heads = d_query.size(1), tokens = d_query.size(2),
             width = d_query.size(3), dim = heads * width;
  const auto& k = Kernels::of(d_query.device().index(), dim);
  const auto rows = static_cast<uint32_t>(batch * tokens);
  const auto [across, down] = tiles(k.merge, rows, 3 * dim);
  auto merged = at::empty({batch, tokens, 3 * dim}, d_query.options());
  const auto parts = at::empty(
      {static_cast<int64_t>(down), 3 * dim}, d_query.options().dtype(at::kFloat));
  k.launch(
      k.merge, across, down, d_query.const_data_ptr<bf16>(),
      d_key.const_data_ptr<bf16>(), d_value.const_data_ptr<bf16>(), strides(d_query),
      strides(d_key), strides(d_value), static_cast<uint32_t>(tokens),
      static_cast<uint32_t>(width), rows, merged.mutable_data_ptr<bf16>(),
      parts.mutable_data_ptr<float>());
  return {merged, k.sum_parts(parts, 0, 3 * dim)};
}

#else // without CUDA's headers

namespace {
constexpr const char* WITHOUT = "this program was built without CUDA";
}

std::string why_not(int, int64_t) {
  return WITHOUT;
}
Normed add_norm(
    const at::Tensor&, const Branch&, const Selection&, const at::Tensor&, const at::Tensor&, double) {
  TORCH_CHECK(false, WITHOUT);
}
AddNormGradients add_norm_backward(
    const at::Tensor&, const at::Tensor&, const Normed&, const Branch&, const Selection&,
    const at::Tensor&) {
  TORCH_CHECK(false, WITHOUT);
}
at::Tensor bias_gelu(const at::Tensor&, const at::Tensor&, int64_t) {
  TORCH_CHECK(false, WITHOUT);
}
std::pair<at::Tensor, at::Tensor> bias_gelu_backward(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t) {
  TORCH_CHECK(false, WITHOUT);
}
std::pair<at::Tensor, at::Tensor> merge_heads_backward(
    const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  TORCH_CHECK(false, WITHOUT);
}
#endif

}  // namespace simdino::fused
