// Calls back from libtorch's threads.
#include "shim.h"

#include "in_parallel.h"

const char* simdino_in_parallel(int64_t count, void (*work)(const void*, int64_t), const void* data) noexcept {
  return guarded([&] { in_parallel(count, [&](int64_t i) { work(data, i); }); });
}
