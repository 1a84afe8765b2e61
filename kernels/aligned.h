// Arrays of float32 aligned to a cache line. Internal to kernels/.
//
// Errors: std::bad_alloc where there is no memory.
#pragma once

#include <cstdint>
#include <new>

#include "hwy/aligned_allocator.h"

namespace longwave {

using AlignedFloats = hwy::AlignedFreeUniquePtr<float[]>;

// Contents undefined.
inline AlignedFloats AllocateFloats(int64_t count) {
  AlignedFloats data = hwy::AllocateAligned<float>(static_cast<size_t>(count));
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

}  // namespace longwave
