// The part of Gloo's transport that ProcessGroupGloo.hpp uses; libtorch has the definitions.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer;
} // namespace gloo::transport
