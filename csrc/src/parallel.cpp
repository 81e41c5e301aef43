#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

namespace kangaroo {
namespace {

// Longer than Python takes between two calls of a round, some 200 us: to wake a sleeper costs the
// next call 10 to 30 us.
constexpr auto kSpin = std::chrono::microseconds(500);
// A chunk for each thread, and up to so many where each is work enough: claiming one costs some 100
// ns, and with many the threads end together.
constexpr int64_t kLongChunk = 600000;
constexpr int64_t kMostPerThread = 32;
constexpr int32_t kMaxHelpers = 255;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  sched_yield();
#endif
}

// One job at a time. Its state is one word, (job number, chunks left): whoever lowers it by one
// owns a chunk, so a helper that comes late finds nothing and is never waited for.
class Pool {
 public:
  void run(int64_t num_chunks, int32_t num_threads, ChunkFunction function, const void* context) {
    grow(std::min(num_threads - 1, kMaxHelpers));
    function_.store(function, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    num_chunks_.store(num_chunks, std::memory_order_relaxed);
    allowed_.store(num_threads - 1, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    state_.store((uint64_t{++job_} << 32) | static_cast<uint64_t>(num_chunks));
    if (sleepers_.load() > 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    work(-1);
    for (int spins = 0; done_.load(std::memory_order_acquire) < num_chunks; ++spins) {
      if (spins < 4096) {
        relax();
      } else {
        sched_yield();
      }
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  bool take() { return !taken_.exchange(true, std::memory_order_acquire); }
  void release() { taken_.store(false, std::memory_order_release); }

 private:
  // Chunks of the current job until none is left; returns the number of that job.
  uint32_t work(int32_t helper) {
    uint64_t state = state_.load(std::memory_order_acquire);
    for (;;) {
      const auto left = static_cast<int64_t>(state & 0xffffffff);
      if (left == 0 || helper >= allowed_.load(std::memory_order_relaxed)) break;
      // Read before the claim: the job's description holds as long as its state is unchanged.
      const ChunkFunction function = function_.load(std::memory_order_relaxed);
      const void* context = context_.load(std::memory_order_relaxed);
      const int64_t chunk = num_chunks_.load(std::memory_order_relaxed) - left;
      if (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        continue;
      }
      try {
        function(context, chunk);
      } catch (...) {  // on whatever thread: the caller gets it
        const std::lock_guard<std::mutex> lock(failing_);
        if (!failure_) failure_ = std::current_exception();
      }
      done_.fetch_add(1, std::memory_order_release);
      state = state_.load(std::memory_order_acquire);
    }
    return static_cast<uint32_t>(state >> 32);
  }

  bool newer_than(uint32_t job) const { return static_cast<uint32_t>(state_.load() >> 32) != job; }

  void serve(int32_t helper) {
    for (uint32_t seen = 0;;) {
      const auto deadline = std::chrono::steady_clock::now() + kSpin;
      while (!newer_than(seen) && std::chrono::steady_clock::now() < deadline) {
        for (int i = 0; i < 16 && !newer_than(seen); ++i) relax();
      }
      if (!newer_than(seen)) {
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [&] { return newer_than(seen); });
        sleepers_.fetch_sub(1);
      }
      seen = work(helper);
    }
  }

  // Helpers are never joined: the pool lives as long as the process.
  void grow(int32_t num_helpers) {
    if (num_helpers <= num_helpers_) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are the application's own affair
    try {
      while (num_helpers_ < num_helpers) {
        std::thread(&Pool::serve, this, num_helpers_).detach();
        ++num_helpers_;
      }
    } catch (const std::exception&) {  // no thread, or no memory for one
      // The helpers that exist, or the caller alone, do all the work.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<ChunkFunction> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<int64_t> num_chunks_{0};
  std::atomic<int32_t> allowed_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int32_t> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::mutex failing_;
  std::exception_ptr failure_;  // of the current job
  uint32_t job_ = 0;
  int32_t num_helpers_ = 0;
  std::atomic<bool> taken_{false};
};

alignas(Pool) unsigned char storage[sizeof(Pool)];

// Never destroyed: helpers may still look at it while the process exits. A forked child has no
// helpers, and perhaps a job that nobody will finish: it starts afresh.
Pool& pool() {
  static Pool* const only = [] {
    pthread_atfork(nullptr, nullptr, [] { new (storage) Pool(); });
    return new (storage) Pool();
  }();
  return *only;
}

}  // namespace

void run_chunks(int64_t num_chunks, int32_t num_threads, ChunkFunction function,
                const void* context) {
  if (num_chunks <= 1 || num_threads <= 1 || num_chunks > 0xffffffff || !pool().take()) {
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) function(context, chunk);
    return;
  }
  const struct Taken {
    ~Taken() { pool().release(); }
  } taken;
  pool().run(num_chunks, num_threads, function, context);
}

int64_t grain_for(int64_t count, int64_t work_per_item, int64_t step, int32_t num_threads) {
  const int64_t worthwhile = kInlineWork / std::max<int64_t>(work_per_item, 1) + 1;
  const int64_t threads = std::max<int64_t>(num_threads, 1);
  const int64_t turns = count * work_per_item / threads / kLongChunk;
  const int64_t chunks = threads * std::clamp<int64_t>(turns, 1, kMostPerThread);
  const int64_t grain = std::max(worthwhile, (count + chunks - 1) / chunks);
  return (grain + step - 1) / step * step;
}

}  // namespace kangaroo
