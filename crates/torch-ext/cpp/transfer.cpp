// Copies from page-locked memory on a separate stream. No CUDA header is needed, because streams
// and events come from c10's device-independent interface.
#include "device.h"
#include "shim.h"

#include <utility>

#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

struct SimdinoStream {
  c10::Stream stream;
};
struct SimdinoEvent {
  c10::Event event;
};

const char* simdino_stream_new(int index, SimdinoStream** out) noexcept {
  return guarded([&] {
    const auto device = cuda_device(index);
    const c10::impl::VirtualGuardImpl guard(device.type());
    *out = new SimdinoStream{guard.getStreamFromGlobalPool(device, /*isHighPriority=*/false)};
  });
}

void simdino_stream_free(SimdinoStream* stream) noexcept {
  delete stream;
}

const char* simdino_pinned_bytes(int64_t len, tensor_ptr* out) noexcept {
  return guarded([&] {
    auto memory = at::empty({len}, at::TensorOptions(at::kByte).pinned_memory(true));
    *out = new at::Tensor(memory.zero_());
  });
}

void simdino_event_free(SimdinoEvent* event) noexcept {
  delete event;
}

const char* simdino_stream_upload(
    SimdinoStream* stream, tensor_ptr host, tensor_ptr* out, SimdinoEvent** made) noexcept {
  return guarded([&] {
    const auto& side = stream->stream;
    // Memory allocated here belongs to the side stream, so no computation is still using it.
    const c10::StreamGuard on_side(side);
    auto copy = at::empty(host->sizes(), host->options().device(side.device()));
    copy.copy_(*host, /*non_blocking=*/true);
    if (*made == nullptr) {
      *made = new SimdinoEvent{c10::Event(side.device_type())};
    }
    (*made)->event.record(side);
    *out = new at::Tensor(std::move(copy));
  });
}

const char* simdino_event_done(SimdinoEvent* event, int* out) noexcept {
  return guarded([&] {
    // Otherwise, a thread that has not used a device would initialize the first one and allocate
    // memory there.
    const c10::DeviceGuard guard(event->event.device());
    *out = event->event.query() ? 1 : 0;
  });
}

const char* simdino_event_wait(SimdinoEvent* event) noexcept {
  return guarded([&] {
    const c10::DeviceGuard guard(event->event.device());
    event->event.synchronize();
  });
}

const char* simdino_event_join(SimdinoEvent* event, tensor_ptr tensor) noexcept {
  return guarded([&] {
    const auto device = tensor->device();
    const auto current = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
    event->event.block(current);
    tensor->record_stream(current);
  });
}
