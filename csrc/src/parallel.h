// A small pool of threads of our own: OpenMP would bring a second one beside PyTorch's.
#pragma once

#include <cstdint>

namespace kangaroo {

// Multiply-adds below which waking another thread costs more than it saves.
constexpr int64_t kInlineWork = 20000;

using ChunkFunction = void (*)(const void* context, int64_t chunk);

// Calls function(context, c) once for every c in [0, num_chunks), on at most num_threads threads,
// the caller among them; returns when all are done. Runs inline when the pool is taken: nested
// and concurrent calls are safe. What a call throws is thrown again when all are done, the first of
// several; inline at once.
void run_chunks(int64_t num_chunks, int32_t num_threads, ChunkFunction function,
                const void* context);

// body(begin, end) over [0, count) in stretches of `grain`.
template <class Body>
void parallel_for(int64_t count, int64_t grain, int32_t num_threads, const Body& body) {
  struct Context {
    const Body& body;
    int64_t count;
    int64_t grain;
  } context = {body, count, grain};
  const auto run = [](const void* opaque, int64_t chunk) {
    const Context& c = *static_cast<const Context*>(opaque);
    const int64_t begin = chunk * c.grain;
    c.body(begin, begin + c.grain < c.count ? begin + c.grain : c.count);
  };
  run_chunks((count + grain - 1) / grain, num_threads, run, &context);
}

// Items per chunk, a multiple of `step`: chunks worth a hand-over, a few for every thread.
int64_t grain_for(int64_t count, int64_t work_per_item, int64_t step, int32_t num_threads);

}  // namespace kangaroo
