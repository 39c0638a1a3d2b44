// What ProcessGroupGloo.hpp names of Gloo's transport; libtorch holds the definitions.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer;
} // namespace gloo::transport
