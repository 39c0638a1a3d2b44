// Functions about devices that several files of the shim use.
#pragma once

#include <c10/core/Device.h>

// Returns CUDA device `index`, ready for use. Throws if it does not exist.
c10::Device cuda_device(int index);

// Whether there are recorded CUDA graphs.
bool has_graphs();
