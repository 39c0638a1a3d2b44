// What several files of the shim ask of devices.
#pragma once

#include <c10/core/Device.h>

// CUDA device `index`, ready to be used. Throws where it does not exist.
c10::Device cuda_device(int index);
