// Autocast with a choice of data type, per thread and device type.
#include "shim.h"

#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

// Declared in ATen/autocast_mode.h, which would include all of ATen.
namespace at::autocast {
bool is_autocast_enabled(c10::DeviceType device_type);
void set_autocast_enabled(c10::DeviceType device_type, bool enabled);
c10::ScalarType get_autocast_dtype(c10::DeviceType device_type);
void set_autocast_dtype(c10::DeviceType device_type, c10::ScalarType dtype);
void clear_cache();
int increment_nesting();
int decrement_nesting();
}  // namespace at::autocast

namespace {
c10::DeviceType device_type(int cuda) {
  return cuda != 0 ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
}
}  // namespace

const char* simdino_autocast_state(int cuda, SimdinoAutocast* now) noexcept {
  return guarded([&] {
    const auto device = device_type(cuda);
    now->enabled = at::autocast::is_autocast_enabled(device) ? 1 : 0;
    now->dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(device));
  });
}

const char* simdino_autocast_enter(int cuda, int dtype, SimdinoAutocast* before) noexcept {
  return guarded([&] {
    const auto device = device_type(cuda);
    before->enabled = at::autocast::is_autocast_enabled(device) ? 1 : 0;
    before->dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(device));
    if (dtype >= 0) {
      at::autocast::set_autocast_dtype(device, static_cast<c10::ScalarType>(dtype));
    }
    at::autocast::set_autocast_enabled(device, dtype >= 0);
    at::autocast::increment_nesting();
  });
}

const char* simdino_autocast_exit(int cuda, const SimdinoAutocast* before) noexcept {
  return guarded([&] {
    const auto device = device_type(cuda);
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_dtype(device, static_cast<c10::ScalarType>(before->dtype));
    at::autocast::set_autocast_enabled(device, before->enabled != 0);
  });
}
