// NCCL for CUDA tensors. This is a separate file because it needs CUDA's headers; a build without
// them compiles stubs.
#include "shim.h"

#ifdef USE_C10D_NCCL
#include "dist.h"

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

const char* simdino_group_add_nccl(
    SimdinoGroup* group, const SimdinoMember* member, int cuda_index) noexcept {
  return guarded([&] {
    using Nccl = c10d::ProcessGroupNCCL;
    auto options = Nccl::Options::create();
    options->timeout = std::chrono::milliseconds(member->timeout_ms);
    auto store = keys_of(*member, "nccl");
    auto nccl = c10::make_intrusive<Nccl>(store, member->rank, member->size, options);
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(cuda_index));
    // The order matters: setBackend copies the group's bound device to the backend.
    group->group->setBoundDeviceId(device);
    group->group->setBackend(
        c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, nccl);
  });
}

int simdino_has_nccl() noexcept {
  return 1;
}
#else
const char* simdino_group_add_nccl(SimdinoGroup*, const SimdinoMember*, int) noexcept {
  return simdino_message("this build has no NCCL");
}

int simdino_has_nccl() noexcept {
  return 0;
}
#endif
