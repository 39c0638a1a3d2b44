// Functions about devices that several files of the shim use.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

// Returns CUDA device `index`, ready for use. Throws if it does not exist.
c10::Device cuda_device(int index);

// Bytes that recorded CUDA graphs use in their replays and that belong to no tensor.
uint64_t graph_bytes();
