// Memory that a thread keeps between calls, so that a warm call allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace kangaroo {

// What is needed at the same time has a name of its own.
enum class Scratch { kPanel, kHidden, kTile, kParts, kCandidates, kBlock, kLayers, kDraft };
constexpr int kNumScratch = 8;

// At least `bytes` bytes, 64-byte aligned; the contents of the last call for this use are lost.
void* scratch_bytes(Scratch use, std::size_t bytes);

template <class T>
T* scratch(Scratch use, int64_t rows, int64_t width) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(rows, width, &bytes) ||
      __builtin_mul_overflow(bytes, int64_t{sizeof(T)}, &bytes)) {
    throw std::bad_alloc();
  }
  return static_cast<T*>(scratch_bytes(use, static_cast<std::size_t>(bytes)));
}

}  // namespace kangaroo
