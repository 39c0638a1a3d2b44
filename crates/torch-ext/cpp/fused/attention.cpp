// Compiles attention.cu for a GPU and a number of tiles, and launches it.
#include "attention.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#ifdef SIMDINO_KERNELS
#include "attention_sizes.h"
#include "attention_source.h" // ATTENTION_SOURCE, the kernels' text, written by build.rs
#include "driver.h"
#endif

namespace simdino::fused {

#ifdef SIMDINO_KERNELS
namespace {
constexpr unsigned LANES = 32;
using bf16 = at::BFloat16;

// The kernels of one device and number of tiles.
struct AttentionKernels {
  struct Kernel {
    const char* name;
    unsigned threads, bytes;
    CUfunction function = nullptr;
  };

  const Api& api;
  CUmodule module = nullptr;
  Kernel forward, backward, bias{"attention_bias", LANES * SUM_WARPS, 0};

  AttentionKernels(int index, unsigned tiles)
      : api(Api::get()),
        forward{"attention_forward", LANES * forward_warps(tiles), forward_bytes(tiles)},
        backward{"attention_backward", LANES * backward_warps(tiles), backward_bytes(tiles)} {
    const auto* gpu = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
    TORCH_CHECK(gpu->major >= 8, gpu->name, " has no bfloat16");
    TORCH_CHECK(
        backward.bytes <= gpu->sharedMemPerBlockOptin, "attention of ", tiles * TILE,
        " tokens needs ", backward.bytes, " bytes of shared memory, and ", gpu->name, " has ",
        gpu->sharedMemPerBlockOptin);
    const On device(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)));
    const auto code = compile(api, *gpu, ATTENTION_SOURCE, "-DTILES=" + std::to_string(tiles));
    api.check(api.cuModuleLoadData(&module, code.data()), "the kernels of attention");
    for (Kernel* kernel : {&forward, &backward, &bias}) {
      api.check(api.cuModuleGetFunction(&kernel->function, module, kernel->name), kernel->name);
      const auto status = api.cuFuncSetAttribute(
          kernel->function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
          static_cast<int>(kernel->bytes));
      api.check(status, kernel->name);
    }
  }

  // Those for a device and so many tokens, compiled at the first call. They live as long as the process.
  static const AttentionKernels& of(int index, int64_t tokens) {
    static std::mutex mutex;
    static std::map<std::pair<int, unsigned>, std::unique_ptr<AttentionKernels>> all;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto tiles = static_cast<unsigned>((tokens + TILE - 1) / TILE);
    auto& found = all[{index, tiles}];
    if (!found) {
      found = std::make_unique<AttentionKernels>(index, tiles);
    }
    return *found;
  }

  template <class... Arguments>
  void launch(const Kernel& kernel, int64_t blocks, Arguments... arguments) const {
    TORCH_CHECK(blocks < (int64_t{1} << 31), "too many heads for ", kernel.name, ": ", blocks);
    void* pointers[] = {&arguments...};
    const auto stream = c10::cuda::getCurrentCUDAStream().stream();
    const auto status = api.cuLaunchKernel(
        kernel.function, static_cast<unsigned>(blocks), 1, 1, kernel.threads, 1, 1, kernel.bytes, stream,
        pointers, nullptr);
    api.check(status, kernel.name);
  }
};

std::string tried(int index, int64_t tokens, int64_t width) {
  const char* set = std::getenv("SIMDINO_FUSED_ATTENTION");
  if (set != nullptr && std::string(set) == "0") {
    return "SIMDINO_FUSED_ATTENTION=0 switches them off";
  }
  const int64_t most = MOST_TILES * TILE;
  if (width != HEAD_WIDTH || tokens < 1 || tokens > most) {
    return "the kernels of attention are for heads of " + std::to_string(HEAD_WIDTH) +
        " columns and up to " + std::to_string(most) + " tokens";
  }
  try {
    AttentionKernels::of(index, tokens);
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "";
}
}  // namespace

std::string attention_why_not(int index, int64_t tokens, int64_t width) {
  static std::mutex mutex;
  static std::map<std::tuple<int, int64_t, int64_t>, std::string> all;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [found, first] = all.try_emplace({index, tokens, width});
  if (first) { // tried once: a network asks in each of its blocks
    found->second = tried(index, tokens, width);
  }
  return found->second;
}

std::pair<at::Tensor, at::Tensor> attention(const at::Tensor& qkv, int64_t heads) {
  const On device(qkv.device());
  const auto images = qkv.size(0), tokens = qkv.size(1), dim = qkv.size(2) / 3;
  auto out = at::empty({images, tokens, dim}, qkv.options());
  auto log_sums = at::empty({images, heads, tokens}, qkv.options().dtype(at::kFloat));
  if (images > 0) {
    const auto& k = AttentionKernels::of(qkv.device().index(), tokens);
    k.launch(
        k.forward, images * heads, qkv.const_data_ptr<bf16>(), static_cast<unsigned>(tokens),
        static_cast<unsigned>(heads), out.mutable_data_ptr<bf16>(), log_sums.mutable_data_ptr<float>());
  }
  return {out, log_sums};
}

AttentionGradients attention_backward(
    const at::Tensor& d_out, const at::Tensor& qkv, const at::Tensor& out, const at::Tensor& log_sums,
    int64_t heads, bool bias) {
  const On device(qkv.device());
  const auto images = qkv.size(0), tokens = qkv.size(1), dim = out.size(2);
  const auto in_float = log_sums.options();
  AttentionGradients made{at::empty_like(qkv), {}};
  if (images == 0) {
    made.bias = bias ? at::zeros({3 * dim}, in_float) : at::Tensor();
    return made;
  }
  const auto& k = AttentionKernels::of(qkv.device().index(), tokens);
  // Of queries and values; that of keys is zero.
  const auto parts = bias ? at::empty({images, 2 * dim}, in_float) : at::Tensor();
  k.launch(
      k.backward, images * heads, qkv.const_data_ptr<bf16>(), out.const_data_ptr<bf16>(),
      d_out.const_data_ptr<bf16>(), log_sums.const_data_ptr<float>(), static_cast<unsigned>(tokens),
      static_cast<unsigned>(heads), made.qkv.mutable_data_ptr<bf16>(),
      bias ? parts.mutable_data_ptr<float>() : nullptr);
  if (bias) {
    made.bias = at::empty({3 * dim}, in_float);
    k.launch(
        k.bias, 3 * dim / LANES, parts.const_data_ptr<float>(), static_cast<unsigned>(images),
        static_cast<unsigned>(dim), made.bias.mutable_data_ptr<float>());
  }
  return made;
}

#else // without CUDA's headers

namespace {
constexpr const char* WITHOUT = "this program was built without CUDA";
}

std::string attention_why_not(int, int64_t, int64_t) {
  return WITHOUT;
}
std::pair<at::Tensor, at::Tensor> attention(const at::Tensor&, int64_t) {
  TORCH_CHECK(false, WITHOUT);
}
AttentionGradients attention_backward(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, bool) {
  TORCH_CHECK(false, WITHOUT);
}
#endif

}  // namespace simdino::fused
