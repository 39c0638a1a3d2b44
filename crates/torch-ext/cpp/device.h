// Device functions that several files of the shim use.
#pragma once

#include <c10/core/Device.h>

// Returns CUDA device `index`, ready for use. Throws if it does not exist.
c10::Device cuda_device(int index);

// Returns whether any recorded CUDA graph exists.
bool has_graphs();
