// Work in libtorch's threads.
#pragma once

#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>

// Calls work(i) for all i below `count` in libtorch's threads. An iterator over `count` bytes does so without our
// linking the OpenMP runtime that libtorch brings with it.
template <class Work>
void in_parallel(int64_t count, const Work& work) {
  at::Tensor places = at::empty({count}, at::kByte);
  const auto first = static_cast<char*>(places.data_ptr());
  auto iterator = at::TensorIterator::nullary_op(places);
  iterator.for_each(
      [&](char** data, const int64_t* strides, int64_t size, int64_t rows) {
        for (int64_t i = 0; i < size * rows; ++i) {
          work(data[0] + i % size * strides[0] + i / size * strides[1] - first);
        }
      },
      /*grain_size=*/1);
}
