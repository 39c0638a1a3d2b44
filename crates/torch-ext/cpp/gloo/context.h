// The part of Gloo's context that ProcessGroupGloo.hpp uses; libtorch has the definition.
#pragma once

#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
} // namespace gloo
