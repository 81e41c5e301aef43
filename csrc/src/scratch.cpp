#include "scratch.h"

#include <cstdlib>
#include <new>

namespace kangaroo {
namespace {

constexpr std::size_t kAlignment = 64;

struct Buffer {
  void* data = nullptr;
  std::size_t bytes = 0;
  ~Buffer() { std::free(data); }
};

thread_local Buffer buffers[kNumScratch];

}  // namespace

void* scratch_bytes(Scratch use, std::size_t bytes) {
  Buffer& buffer = buffers[static_cast<int>(use)];
  if (bytes > buffer.bytes) {
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    std::free(buffer.data);
    buffer.bytes = 0;
    buffer.data = std::aligned_alloc(kAlignment, rounded);
    if (!buffer.data) throw std::bad_alloc();
    buffer.bytes = rounded;
  }
  return buffer.data;
}

}  // namespace kangaroo
