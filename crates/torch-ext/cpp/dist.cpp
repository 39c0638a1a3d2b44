// The TCP store, and c10d process groups with Gloo for CPU tensors.
#include "dist.h"

#include <cstring>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStoreBackend.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

namespace {
// Number of bytes that a broadcast coalesces into one message, as in DistributedDataParallel.
constexpr size_t kBroadcastBytes = size_t{250} << 20;
} // namespace

const char* simdino_store_new(
    const char* host, uint16_t port, int serves, int64_t timeout_ms, SimdinoStore** out) noexcept {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves != 0;
    options.waitWorkers = false; // our own rendezvous waits, and names missing processes
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *out = new SimdinoStore{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

void simdino_store_free(SimdinoStore* store) noexcept {
  try {
    delete store;
  } catch (...) {
    // The server may be gone already, and a destructor cannot report an error.
  }
}

void simdino_store_greeting(uint32_t nonce, uint8_t out[10]) noexcept {
  using c10d::detail::QueryType;
  const uint32_t magic = c10d::detail::validationMagicNumber;
  out[0] = static_cast<uint8_t>(QueryType::VALIDATE);
  std::memcpy(out + 1, &magic, sizeof magic);
  out[5] = static_cast<uint8_t>(QueryType::PING);
  std::memcpy(out + 6, &nonce, sizeof nonce);
}

const char* simdino_store_set(
    SimdinoStore* store, const char* key, const uint8_t* data, size_t len) noexcept {
  return guarded([&] { store->store->set(key, std::vector<uint8_t>(data, data + len)); });
}

const char* simdino_store_get(
    SimdinoStore* store, const char* key, const uint8_t** data, size_t* len) noexcept {
  thread_local std::vector<uint8_t> bytes;
  return guarded([&] {
    bytes = store->store->get(key);
    *data = bytes.data();
    *len = bytes.size();
  });
}

const char* simdino_store_add(
    SimdinoStore* store, const char* key, int64_t amount, int64_t* out) noexcept {
  return guarded([&] { *out = store->store->add(key, amount); });
}

const char* simdino_store_has(SimdinoStore* store, const char* key, int* out) noexcept {
  return guarded([&] { *out = store->store->check({key}) ? 1 : 0; });
}

const char* simdino_group_new(const SimdinoMember* member, SimdinoGroup** out) noexcept {
  return guarded([&] {
    using Gloo = c10d::ProcessGroupGloo;
    const auto timeout = std::chrono::milliseconds(member->timeout_ms);
    auto options = Gloo::Options::create_default(timeout);
    if (member->interface != nullptr) {
      options->devices = {Gloo::createDeviceForInterface(member->interface)};
    }
    auto store = keys_of(*member, "gloo");
    auto group = c10::make_intrusive<CountingGroup>(store, member->rank, member->size);
    auto gloo = c10::make_intrusive<Gloo>(store, member->rank, member->size, options);
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    *out = new SimdinoGroup{std::move(group)};
  });
}

void simdino_group_free(SimdinoGroup* group) noexcept {
  try {
    delete group;
  } catch (...) {
    // Other processes may be gone already, and a destructor cannot report an error.
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

const char* simdino_group_broadcast(
    SimdinoGroup* group, const tensor_ptr* tensors, size_t len, int root) noexcept {
  return guarded([&] {
    c10d::broadcast_coalesced(group->group, tensors_of(tensors, len), kBroadcastBytes, root);
  });
}

const char* simdino_group_all_gather(
    SimdinoGroup* group, tensor_ptr tensor, const tensor_ptr* outs, size_t len) noexcept {
  return guarded([&] {
    std::vector<std::vector<at::Tensor>> outputs{tensors_of(outs, len)};
    std::vector<at::Tensor> inputs{*tensor};
    group->group->allgather(outputs, inputs)->wait();
  });
}

void simdino_group_traffic(const SimdinoGroup* group, SimdinoTraffic* out) noexcept {
  const auto& counts = *group->group;
  const auto of = [](const CountingGroup::Count& count) {
    return SimdinoCount{count.calls.load(), count.bytes.load()};
  };
  *out = {of(counts.reduced), of(counts.broadcasted), of(counts.gathered)};
}

const char* simdino_group_barrier(SimdinoGroup* group) noexcept {
  return guarded([&] {
    c10d::BarrierOptions options;
    options.device = c10::Device(c10::DeviceType::CPU); // Gloo, which throws on a timeout
    group->group->barrier(options)->wait();
  });
}
