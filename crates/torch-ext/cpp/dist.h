// Declarations shared by the files about process groups. c10d's headers are slow to compile, so no
// other file includes this one.
#pragma once

#include "shim.h"

#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

struct SimdinoStore {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

// Counts the calls and bytes of collective operations. c10d's reducer calls them, too, from any
// thread.
class CountingGroup : public c10d::ProcessGroup {
 public:
  using c10d::ProcessGroup::ProcessGroup;

  c10::intrusive_ptr<c10d::Work> allreduce(
      std::vector<at::Tensor>& tensors,
      const c10d::AllreduceOptions& options = c10d::AllreduceOptions()) override {
    count(reduced, tensors);
    return c10d::ProcessGroup::allreduce(tensors, options);
  }

  c10::intrusive_ptr<c10d::Work> broadcast(
      std::vector<at::Tensor>& tensors,
      const c10d::BroadcastOptions& options = c10d::BroadcastOptions()) override {
    count(broadcasted, tensors);
    return c10d::ProcessGroup::broadcast(tensors, options);
  }

  c10::intrusive_ptr<c10d::Work> allgather(
      std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
      const c10d::AllgatherOptions& options = c10d::AllgatherOptions()) override {
    count(gathered, inputs);
    return c10d::ProcessGroup::allgather(outputs, inputs, options);
  }

  struct Count {
    std::atomic<uint64_t> calls{0}, bytes{0};
  };
  Count reduced, broadcasted, gathered;

 private:
  static void count(Count& of, const std::vector<at::Tensor>& tensors) {
    ++of.calls;
    for (const auto& tensor : tensors) {
      of.bytes += tensor.nbytes();
    }
  }
};

struct SimdinoGroup {
  c10::intrusive_ptr<CountingGroup> group;
};

// Returns a view of the store that holds the keys of one backend of a group.
inline c10::intrusive_ptr<c10d::Store> keys_of(const SimdinoMember& member, const char* backend) {
  return c10::make_intrusive<c10d::PrefixStore>(
      std::string(member.prefix) + backend, member.store->store);
}

inline std::vector<at::Tensor> tensors_of(const tensor_ptr* pointers, size_t len) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(len);
  for (size_t i = 0; i < len; ++i) {
    tensors.push_back(*pointers[i]);
  }
  return tensors;
}
