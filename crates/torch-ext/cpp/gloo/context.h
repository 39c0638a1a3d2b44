// What ProcessGroupGloo.hpp names of Gloo's context; libtorch holds the definition.
#pragma once

#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
} // namespace gloo
