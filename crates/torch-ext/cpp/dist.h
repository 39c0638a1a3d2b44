// Declarations that the files about process groups share. c10d's headers are slow to compile, so
// no other file includes this one.
#pragma once

#include "shim.h"

#include <chrono>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

struct SimdinoStore {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

struct SimdinoGroup {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

// A view of the store with the keys of one backend of a group.
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
