// Chooses a cuBLASLt kernel for a matrix product, and launches it.
#include "linear.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#ifdef SIMDINO_KERNELS
#include <cublasLt.h>

#include "driver.h"
#include "linear_tiles.h"
#endif

namespace simdino::fused {

#ifdef SIMDINO_KERNELS
namespace {

// Functions of the cuBLASLt library that libtorch has loaded, whose handles we use.
struct Lt {
  void* library = loaded();
#define SIMDINO_SYMBOL(name) decltype(::name)* name = symbol<decltype(::name)>(library, #name)
  SIMDINO_SYMBOL(cublasLtMatmulDescCreate);
  SIMDINO_SYMBOL(cublasLtMatmulDescDestroy);
  SIMDINO_SYMBOL(cublasLtMatmulDescSetAttribute);
  SIMDINO_SYMBOL(cublasLtMatrixLayoutCreate);
  SIMDINO_SYMBOL(cublasLtMatrixLayoutDestroy);
  SIMDINO_SYMBOL(cublasLtMatmulPreferenceCreate);
  SIMDINO_SYMBOL(cublasLtMatmulPreferenceDestroy);
  SIMDINO_SYMBOL(cublasLtMatmulPreferenceSetAttribute);
  SIMDINO_SYMBOL(cublasLtMatmulAlgoGetHeuristic);
  SIMDINO_SYMBOL(cublasLtMatmulAlgoConfigGetAttribute);
  SIMDINO_SYMBOL(cublasLtMatmulAlgoConfigSetAttribute);
  SIMDINO_SYMBOL(cublasLtMatmulAlgoCheck);
  SIMDINO_SYMBOL(cublasLtMatmul);
#undef SIMDINO_SYMBOL

  static void* loaded() {
    const auto name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* library = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    TORCH_CHECK(library != nullptr, "libtorch does not use ", name);
    return library;
  }

  static const Lt& get() {
    static const Lt lt; // if this throws, the next call tries again
    return lt;
  }
};

void check(cublasStatus_t status, const char* what) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, what, ": status ", static_cast<int>(status), " of cuBLASLt");
}

// cuBLASLt's descriptors of a product.
struct Description {
  template <class T>
  using Owned = std::unique_ptr<T, cublasStatus_t (*)(T*)>;

  Owned<cublasLtMatmulDescOpaque_t> operation;
  Owned<cublasLtMatrixLayoutOpaque_t> weight, rows, out;

  Description(const Lt& lt, const Product& p, const void* bias)
      : operation(nullptr, lt.cublasLtMatmulDescDestroy),
        weight(p.forward ? layout(lt, p.k, p.m) : layout(lt, p.m, p.k)),
        rows(layout(lt, p.k, p.n)),
        out(layout(lt, p.m, p.n)) {
    cublasLtMatmulDesc_t made = nullptr;
    check(lt.cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
    operation.reset(made);
    const auto set = [&](cublasLtMatmulDescAttributes_t what, const auto& value) {
      check(lt.cublasLtMatmulDescSetAttribute(made, what, &value, sizeof value), "a product");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.forward ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
  }

  static Owned<cublasLtMatrixLayoutOpaque_t> layout(const Lt& lt, int64_t rows, int64_t columns) {
    cublasLtMatrixLayout_t made = nullptr;
    const auto status = lt.cublasLtMatrixLayoutCreate(
        &made, CUDA_R_16BF, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows);
    check(status, "a matrix");
    return {made, lt.cublasLtMatrixLayoutDestroy};
  }
};

constexpr size_t WORKSPACE = size_t{32} << 20; // bytes, as in libtorch
constexpr int CANDIDATES = 32;

// Bits of CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, inferred from the names of the kernels. NVIDIA does
// not document them; they affect only the speed. The third would make warp groups share a tile.
constexpr uint32_t OPTION_TURNED = 1; // the tile's rows are the tensor cores', multiples of 64
constexpr uint32_t OPTION_BY_ROWS = 2; // tiles are computed row by row

uint32_t id_of(const Tile& tile) {
  switch (tile.rows << 16 | tile.columns) {
    case 128 << 16 | 160:
      return CUBLASLT_MATMUL_TILE_128x160;
    case 144 << 16 | 128:
      return CUBLASLT_MATMUL_TILE_144x128;
    case 128 << 16 | 128:
      return CUBLASLT_MATMUL_TILE_128x128;
    default:
      TORCH_CHECK(false, "no tile of ", tile.rows, " x ", tile.columns);
  }
}

// The kernel chosen for a product.
struct Plan {
  std::string why_not; // if not empty, libtorch computes the product
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace = 0;

  static Plan without(std::string why) {
    Plan plan;
    plan.why_not = std::move(why);
    return plan;
  }
};

// Searches for the kernel of a product. Nothing is timed, because a repeated or resumed run must
// find the same kernel.
class Search {
 public:
  Search(int index, const Product& product, const Description& described)
      : p_(product), described_(described) {
    const auto* gpu = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
    if (gpu->major != 9) {
      plan_.why_not = "the kernels need a Hopper GPU";
      return;
    }
    const auto tiles = faster_tiles(product.m, product.n, product.k, gpu->multiProcessorCount);
    if (tiles.empty()) {
      plan_.why_not = "libtorch's kernels should be as fast";
      return;
    }
    ask();
    const bool found = !candidates_.empty() &&
        std::any_of(tiles.begin(), tiles.end(), [&](const Tile& tile) { return takes(tile); });
    plan_.why_not = found ? "" : "cuBLASLt has no such kernel";
  }

  const Plan& plan() const {
    return plan_;
  }

 private:
  void ask() {
    cublasLtMatmulPreference_t preference = nullptr;
    check(lt_.cublasLtMatmulPreferenceCreate(&preference), "a preference");
    const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, cublasStatus_t (*)(cublasLtMatmulPreference_t)>
        owner(preference, lt_.cublasLtMatmulPreferenceDestroy);
    const auto status = lt_.cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE);
    check(status, "a preference");
    candidates_.resize(CANDIDATES);
    int count = 0;
    const auto asked = lt_.cublasLtMatmulAlgoGetHeuristic(
        handle_, described_.operation.get(), described_.weight.get(), described_.rows.get(),
        described_.out.get(), described_.out.get(), preference, CANDIDATES, candidates_.data(), &count);
    candidates_.resize(asked == CUBLAS_STATUS_SUCCESS ? static_cast<size_t>(count) : 0);
  }

  // Returns the proposed algorithm to start from: one with this tile if there is any, because an
  // algorithm may hold more state than its attributes show.
  cublasLtMatmulAlgo_t nearest(const Tile& tile) const {
    for (const auto& candidate : candidates_) {
      uint32_t id = 0;
      size_t written = 0;
      const auto status = lt_.cublasLtMatmulAlgoConfigGetAttribute(
          &candidate.algo, CUBLASLT_ALGO_CONFIG_TILE_ID, &id, sizeof id, &written);
      if (status == CUBLAS_STATUS_SUCCESS && candidate.state == status && id == id_of(tile)) {
        return candidate.algo;
      }
    }
    return candidates_[0].algo;
  }

  // Plans the kernel with this tile that was fastest in the measurements, whether cuBLASLt proposes
  // it or not. Returns false if there is no such kernel.
  bool takes(const Tile& tile) {
    auto algorithm = nearest(tile);
    bool possible = true;
    const auto set = [&](cublasLtMatmulAlgoConfigAttributes_t what, const auto& value) {
      const auto status =
          lt_.cublasLtMatmulAlgoConfigSetAttribute(&algorithm, what, &value, sizeof value);
      possible = possible && status == CUBLAS_STATUS_SUCCESS;
    };
    const bool turned = tile.rows % 64 == 0;
    // A cluster of two tiles shares what it loads. The tiles are in one column, unless one of them
    // would lie beyond the result.
    const bool of_row = !turned || tile.along_rows(p_.m) % 2 != 0;
    const uint16_t cluster = of_row ? CUBLASLT_CLUSTER_SHAPE_1x2x1 : CUBLASLT_CLUSTER_SHAPE_2x1x1;
    set(CUBLASLT_ALGO_CONFIG_TILE_ID, id_of(tile));
    set(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, cluster);
    set(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, int32_t{1});
    set(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
    set(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION,
        (turned ? OPTION_TURNED : 0) | (of_row ? OPTION_BY_ROWS : 0));
    cublasLtMatmulHeuristicResult_t result{};
    const auto status = lt_.cublasLtMatmulAlgoCheck(
        handle_, described_.operation.get(), described_.weight.get(), described_.rows.get(),
        described_.out.get(), described_.out.get(), &algorithm, &result);
    if (!possible || status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > WORKSPACE) {
      return false;
    }
    plan_.algorithm = algorithm;
    plan_.workspace = result.workspaceSize;
    return true;
  }

  const Lt& lt_ = Lt::get();
  cublasLtHandle_t handle_ = at::cuda::getCurrentCUDABlasLtHandle();
  const Product& p_;
  const Description& described_;
  std::vector<cublasLtMatmulHeuristicResult_t> candidates_;
  Plan plan_;
};

bool switched_off() {
  const char* set = std::getenv("SIMDINO_FUSED_LINEAR");
  return set != nullptr && std::string(set) == "0";
}

Plan searched(int index, const Product& product, const void* bias) {
  if (switched_off()) {
    return Plan::without("SIMDINO_FUSED_LINEAR=0 switches them off");
  }
  if (product.m % 8 != 0 || product.k % 8 != 0) {
    return Plan::without("the kernels need multiples of 8 columns");
  }
  try {
    const Description described(Lt::get(), product, bias);
    return Search(index, product, described).plan();
  } catch (const c10::Error& error) {
    return Plan::without(error.what_without_backtrace());
  }
}

// The plans of all products so far, on all devices. The mutex is needed because forward and
// backward passes run on different threads.
class Plans {
 public:
  static Plans& get() {
    static Plans plans;
    return plans;
  }

  Plan of(int index, const Product& product, const void* bias) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto [found, first] = all_.try_emplace(key(index, product));
    if (first) {
      found->second = searched(index, product, bias);
    }
    return found->second;
  }

  void refuse(int index, const Product& product, std::string why) {
    const std::lock_guard<std::mutex> lock(mutex_);
    all_[key(index, product)] = Plan::without(std::move(why));
  }

 private:
  using Key = std::tuple<int, bool, bool, int64_t, int64_t, int64_t>;
  static Key key(int index, const Product& p) {
    return {index, p.forward, p.bias, p.m, p.n, p.k};
  }

  std::mutex mutex_;
  std::map<Key, Plan> all_;
};

// Returns whether the tensor has the alignment that cuBLASLt's heuristic assumes by default.
bool at_boundary(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 256 == 0;
}

cublasStatus_t launch(
    const Plan& plan, const Product& product, const at::Tensor& rows, const at::Tensor& weight,
    const void* bias, const at::Tensor& out) {
  const auto& lt = Lt::get();
  const Description described(lt, product, bias);
  // Allocated per call, so that it belongs to the current stream or, while recording, to the graph.
  const auto work =
      at::empty({static_cast<int64_t>(plan.workspace)}, rows.options().dtype(at::kByte));
  const float one = 1, zero = 0;
  void* made = out.mutable_data_ptr();
  return lt.cublasLtMatmul(
      at::cuda::getCurrentCUDABlasLtHandle(), described.operation.get(), &one,
      weight.const_data_ptr(), described.weight.get(), rows.const_data_ptr(), described.rows.get(), &zero,
      made, described.out.get(), made, described.out.get(), &plan.algorithm, work.mutable_data_ptr(),
      plan.workspace, c10::cuda::getCurrentCUDAStream().stream());
}
}  // namespace

std::string product_why_not(int index, const Product& product) {
  const On device(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)));
  return Plans::get().of(index, product, nullptr).why_not;
}

at::Tensor product(
    const at::Tensor& rows, const at::Tensor& weight, bool forward, const at::Tensor& bias) {
  const On device(rows.device());
  const int index = rows.device().index();
  const Product p{
      forward, bias.defined(), weight.size(forward ? 0 : 1), rows.size(0), weight.size(forward ? 1 : 0)};
  if (!at_boundary(rows) || !at_boundary(weight) || (p.bias && !at_boundary(bias))) {
    return {};
  }
  const void* added = p.bias ? bias.const_data_ptr() : nullptr;
  const auto plan = Plans::get().of(index, p, added);
  if (!plan.why_not.empty()) {
    return {};
  }
  auto out = at::empty({p.n, p.m}, rows.options());
  const auto status = launch(plan, p, rows, weight, added, out);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    Plans::get().refuse(index, p, "cuBLASLt does not launch the kernel"); // deterministic
    return {};
  }
  check(status, "a product");
  return out;
}

#else // without CUDA's headers

std::string product_why_not(int, const Product&) {
  return "this program was built without CUDA";
}
at::Tensor product(const at::Tensor&, const at::Tensor&, bool, const at::Tensor&) {
  return {};
}
#endif

}  // namespace simdino::fused
