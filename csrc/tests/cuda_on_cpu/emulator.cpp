#undef _FORTIFY_SOURCE  // jumps from one stack to another are meant

#include "emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace cuda_on_cpu {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;

std::mt19937 dice(1);

// Where a thread goes on: a jump costs no system call, but a sanitizer would take it for an exit.
struct Place {
  ucontext_t context;
#ifndef __SANITIZE_ADDRESS__
  jmp_buf jump;
#endif
  bool fresh = true;

  // Returns when this place is left for.
  void leave_for(Place& other) {
    fresh = false;
#ifdef __SANITIZE_ADDRESS__
    swapcontext(&context, &other.context);
#else
    if (_setjmp(jump) != 0) return;
    if (!other.fresh) _longjmp(other.jump, 1);
    setcontext(&other.context);
#endif
  }
};

struct Copy {
  void* to;
  const void* from;
  int live;
  int group;
};

struct Fiber {
  Place place;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  unsigned number = 0;
  bool waited = false;
  int group = 0;
  std::vector<Copy> copies;

  void land(const Copy& copy) {
    std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.live));
    std::memset(static_cast<char*>(copy.to) + copy.live, 0,
                static_cast<std::size_t>(16 - copy.live));
  }
  // Lands what belongs to groups up to `last`, and of the rest whatever chance wants.
  void land_through(int last) {
    std::vector<Copy> left;
    for (const Copy& copy : copies) {
      if (copy.group <= last || dice() % 2 == 0) {
        land(copy);
      } else {
        left.push_back(copy);
      }
    }
    copies = std::move(left);
  }
};

struct Warp {
  const void* in[kWarpSize];
  void* out[kWarpSize];
  Combine combine;
  std::vector<Fiber*> waiting;
};

enum class State { kQueued, kRunning, kDone };

struct Entry {
  Launch launch;
  std::function<void()> work;  // where no kernel is launched
  State state = State::kQueued;
};

struct Grid {
  std::size_t number;  // in the queue
  Launch* launch;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> ready;
  bool newest_first = false;  // one warp runs ahead of all others, or all keep step
  std::vector<Fiber*> at_barrier;
  std::vector<Warp> warps;
  std::vector<uint64_t> shared;
  std::size_t live = 0;
  Place host;
  Fiber* current = nullptr;
};

std::vector<std::unique_ptr<Entry>> queue;
std::vector<std::unique_ptr<Fiber>> idle;  // their stacks have their pages
Grid* grid = nullptr;                      // whose thread runs now
int launches = 0;

void complete(std::size_t number);

// Of a thread that can go on, or of the host when all have ended.
Place& next() {
  if (grid->ready.empty()) {
    if (grid->live > 0) die("threads wait at a barrier that others do not reach");
    return grid->host;
  }
  if (!grid->newest_first) {
    std::swap(grid->ready[dice() % grid->ready.size()], grid->ready.back());
  }
  Fiber* const fiber = grid->ready.back();
  grid->ready.pop_back();
  grid->current = fiber;
  const dim3& block = grid->launch->block;
  threadIdx = dim3(fiber->number % block.x, fiber->number / block.x % block.y,
                   fiber->number / (block.x * block.y));
  return fiber->place;
}

void block_here() {
  Place& here = grid->current->place;
  Place& there = next();
  if (&there != &here) here.leave_for(there);
}

void release(std::vector<Fiber*>* waiting) {
  std::shuffle(waiting->begin(), waiting->end(), dice);
  grid->ready.insert(grid->ready.end(), waiting->begin(), waiting->end());
  waiting->clear();
}

void thread_main() {
  grid->launch->thread();
  Fiber* self = grid->current;
  if (grid->launch->programmatic && !self->waited) die("a thread never waits for the last kernel");
  self->copies.clear();
  --grid->live;
  if (!grid->at_barrier.empty() && grid->at_barrier.size() == grid->live) {
    release(&grid->at_barrier);
  }
  self->place.leave_for(next());
}

void run_block() {
  std::memset(grid->shared.data(), 0xff, grid->shared.size() * sizeof(uint64_t));
  grid->live = grid->fibers.size();
  grid->newest_first = dice() % 2 == 0;
  for (const auto& fiber : grid->fibers) {
    fiber->place.fresh = true;
    fiber->waited = false;
    fiber->group = 0;
    getcontext(&fiber->place.context);
    fiber->place.context.uc_stack.ss_sp = fiber->stack.get();
    fiber->place.context.uc_stack.ss_size = kStackBytes;
    fiber->place.context.uc_link = nullptr;
    makecontext(&fiber->place.context, thread_main, 0);
    grid->ready.push_back(fiber.get());
  }
  grid->host.leave_for(next());
}

void run_grid(std::size_t number) {
  Grid own;
  own.number = number;
  own.launch = &queue[number]->launch;
  const dim3 shape = own.launch->grid;
  const dim3 block = own.launch->block;
  const unsigned threads = block.x * block.y * block.z;
  for (unsigned thread = 0; thread < threads; ++thread) {
    if (idle.empty()) idle.push_back(std::make_unique<Fiber>());
    own.fibers.push_back(std::move(idle.back()));
    idle.pop_back();
    own.fibers.back()->number = thread;
  }
  own.warps.resize((threads + kWarpSize - 1) / kWarpSize);
  own.shared.resize(own.launch->shared_bytes / sizeof(uint64_t) + 2);
  std::vector<std::size_t> order(std::size_t{shape.x} * shape.y * shape.z);
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
    std::swap(order[i], order[dice() % (i + 1)]);
  }
  Grid* const outer = grid;
  grid = &own;
  for (const std::size_t at : order) {
    gridDim = shape;
    blockDim = block;
    blockIdx =
        dim3(static_cast<unsigned>(at % shape.x), static_cast<unsigned>(at / shape.x % shape.y),
             static_cast<unsigned>(at / shape.x / shape.y));
    run_block();
  }
  grid = outer;
  for (auto& fiber : own.fibers) idle.push_back(std::move(fiber));
}

void complete(std::size_t number) {
  Entry& entry = *queue[number];
  if (entry.state != State::kQueued) return;
  entry.state = State::kRunning;
  if (entry.launch.programmatic) {
    run_grid(number);
  } else {
    if (number > 0) complete(number - 1);
    if (entry.work) {
      entry.work();
    } else {
      run_grid(number);
    }
  }
  entry.state = State::kDone;
}

}  // namespace

void die(const char* what) {
  std::printf("cuda_on_cpu: %s\n", what);
  std::fflush(stdout);
  std::abort();
}

void enqueue(Launch launch) {
  ++launches;
  queue.push_back(std::make_unique<Entry>());
  queue.back()->launch = std::move(launch);
}

void enqueue(std::function<void()> work) {
  queue.push_back(std::make_unique<Entry>());
  queue.back()->work = std::move(work);
}

void synchronize() {
  if (!queue.empty()) complete(queue.size() - 1);
  queue.clear();
}

int num_launches() { return launches; }

void block_barrier() {
  Fiber* self = grid->current;
  self->land_through(-1);
  grid->at_barrier.push_back(self);
  if (grid->at_barrier.size() == grid->live) release(&grid->at_barrier);
  block_here();
}

void warp_collective(const void* in, void* out, Combine combine) {
  Fiber* self = grid->current;
  Warp& warp = grid->warps[self->number / kWarpSize];
  const unsigned first = self->number / kWarpSize * kWarpSize;
  if (first + kWarpSize > grid->fibers.size()) die("a collective of a warp that is not full");
  if (warp.waiting.empty()) warp.combine = combine;
  if (warp.combine != combine) die("lanes of a warp meet at different instructions");
  warp.in[self->number % kWarpSize] = in;
  warp.out[self->number % kWarpSize] = out;
  warp.waiting.push_back(self);
  if (warp.waiting.size() == kWarpSize) {
    combine(warp.in, warp.out);
    release(&warp.waiting);
  }
  block_here();
}

void wait_for_previous() {
  Fiber* self = grid->current;
  self->waited = true;
  if (grid->number == 0) return;
  const dim3 thread = threadIdx, block = blockIdx, block_shape = blockDim, grid_shape = gridDim;
  complete(grid->number - 1);
  threadIdx = thread;
  blockIdx = block;
  blockDim = block_shape;
  gridDim = grid_shape;
}

unsigned char* shared_memory() {
  auto* const bytes = reinterpret_cast<unsigned char*>(grid->shared.data());
  return bytes + reinterpret_cast<std::uintptr_t>(bytes) % 16;  // 16-byte aligned, as on a GPU
}

void copy_async(void* to, const void* from, int live) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16) die("an unaligned asynchronous copy");
  if (live > 0 && reinterpret_cast<std::uintptr_t>(from) % 16) {
    die("an unaligned asynchronous copy");
  }
  Fiber* self = grid->current;
  self->copies.push_back({to, from, live, self->group});
  if (dice() % 2 == 0) {
    self->land(self->copies.back());
    self->copies.pop_back();
  }
}

void commit_copies() { ++grid->current->group; }

void wait_for_copies(int groups_left) {
  Fiber* self = grid->current;
  self->land_through(self->group - 1 - groups_left);
}

}  // namespace cuda_on_cpu
