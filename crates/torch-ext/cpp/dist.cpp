// Process groups of c10d: a TCP store for the meeting, Gloo for tensors of the CPU.
//
// In a file of its own, because c10d's headers take most of the time of compiling the shim.
#include "shim.h"

#include <chrono>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

struct SimdinoGroup {
  c10::intrusive_ptr<c10d::TCPStore> store;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

const char* simdino_group_new(const SimdinoMeeting* meeting, SimdinoGroup** out) noexcept {
  return guarded([&] {
    const auto timeout = std::chrono::milliseconds(meeting->timeout_ms);
    c10d::TCPStoreOptions options;
    options.port = meeting->port;
    options.isServer = meeting->hosts != 0;
    options.numWorkers = static_cast<size_t>(meeting->size);
    options.timeout = timeout;
    auto store = c10::make_intrusive<c10d::TCPStore>(meeting->host, options);
    auto group = c10::make_intrusive<c10d::ProcessGroup>(store, meeting->rank, meeting->size);
    auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
        store, meeting->rank, meeting->size,
        c10d::ProcessGroupGloo::Options::create_default(timeout));
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    *out = new SimdinoGroup{std::move(store), std::move(group)};
  });
}

void simdino_group_free(SimdinoGroup* group) noexcept {
  try {
    delete group;
  } catch (...) {
    // Other processes may be gone already; there is nobody to tell.
  }
}

const char* simdino_group_all_reduce(SimdinoGroup* group, tensor_ptr tensor, int op) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = op == 0 ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    group->group->allreduce(tensors, options)->wait();
  });
}

const char* simdino_group_broadcast(SimdinoGroup* group, tensor_ptr tensor, int root) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->group->broadcast(tensors, options)->wait();
  });
}

const char* simdino_group_barrier(SimdinoGroup* group) noexcept {
  return guarded([&] { group->group->barrier()->wait(); });
}
