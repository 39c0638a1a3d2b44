// Traces of libtorch's work, recorded by its own profiler, Kineto.
#include "shim.h"

#include <memory>
#include <set>

#include <torch/csrc/autograd/profiler_kineto.h>

namespace profiler = torch::autograd::profiler;
namespace impl = torch::profiler::impl;

const char* simdino_profiler_start(int cuda) noexcept {
  return guarded([&] {
    std::set<impl::ActivityType> activities{impl::ActivityType::CPU};
    if (cuda) {
      activities.insert(impl::ActivityType::CUDA);
    }
    const impl::ProfilerConfig config(impl::ProfilerState::KINETO);
    profiler::prepareProfiler(config, activities);
    // Without scopes, the profiler would record every dispatcher call in TorchScript, too.
    profiler::enableProfiler(
        config, activities, {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION});
  });
}

const char* simdino_profiler_stop(const char* path) noexcept {
  return guarded([&] {
    const auto result = profiler::disableProfiler();
    if (path != nullptr) {
      result->save(path);
    }
  });
}
