#include "scratch.h"

#include <cstdlib>
#include <new>

namespace kangaroo {
namespace {

constexpr std::size_t kAlignment = 64;

struct Buffer {
  void* data;
  std::size_t bytes;
};

// Without a destructor, so that what runs when a thread has given them back finds them empty.
thread_local Buffer buffers[kNumScratch] = {};

struct GiveBack {
  ~GiveBack() {
    for (Buffer& buffer : buffers) {
      std::free(buffer.data);
      buffer = {};
    }
  }
};

}  // namespace

void* scratch_bytes(Scratch use, std::size_t bytes) {
  static thread_local GiveBack at_the_end;
  static_cast<void>(at_the_end);
  Buffer& buffer = buffers[static_cast<int>(use)];
  if (bytes > buffer.bytes) {
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    std::free(buffer.data);
    buffer = {};
    buffer.data = std::aligned_alloc(kAlignment, rounded);
    if (!buffer.data) throw std::bad_alloc();
    buffer.bytes = rounded;
  }
  return buffer.data;
}

}  // namespace kangaroo
