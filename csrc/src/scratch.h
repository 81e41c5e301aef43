// Memory that a thread keeps between calls, so that a warm call allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kangaroo {

enum class Scratch { kRows, kHidden, kParts, kCandidates, kAdapter };
constexpr int kNumScratch = 5;

// At least `bytes` bytes, 64-byte aligned; the contents of the last call for this use are lost.
void* scratch_bytes(Scratch use, std::size_t bytes);

template <class T>
T* scratch(Scratch use, int64_t count) {
  return static_cast<T*>(scratch_bytes(use, static_cast<std::size_t>(count) * sizeof(T)));
}

}  // namespace kangaroo
