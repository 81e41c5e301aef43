// The fake's other side: what a test tells it and asks of it.
//
// It is strict where the real runtime is silent: a graph with conditions that is instantiated
// twice, a body that is destroyed, an executable that is destroyed while a launch is pending, an
// unknown kernel or handle end the test. Nodes that nothing orders run in the reverse of the order
// in which they were added, so that a dependency that is missing shows.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <string>
#include <vector>

namespace fake {

using Call = void (*)(const void* function, const void* param);
void add_kernel(const char* name, const void* function, std::size_t param_bytes, Call call);

// Makes a kernel with one parameter known, under a name for `describe`.
template <class Param>
void add_kernel(const char* name, void (*kernel)(Param)) {
  const Call call = [](const void* function, const void* param) {
    Param copy;
    std::memcpy(&copy, param, sizeof copy);
    reinterpret_cast<void (*)(Param)>(const_cast<void*>(function))(copy);
  };
  add_kernel(name, reinterpret_cast<const void*>(kernel), sizeof(Param), call);
}

// Forgets errors, calls and faults; the test must have given everything back.
void reset();

cudaStream_t new_stream();
void free_stream(cudaStream_t stream);
// What a host function, which no IF body may hold, adds to a capture.
void capture_host_node(cudaStream_t stream);
// What an illegal call during a capture does to it.
void invalidate(cudaStream_t stream);
// Work on two streams that join again, both of this kernel.
void capture_fork(cudaStream_t stream, const void* function, void* param);

// Runs the oldest launch that is pending; false where there is none.
bool run_one();
void run_all();
std::size_t pending();

// The call-th call from now on fails, counted from 1; 0: none.
void fail_call(int call);
// The call that failed so; empty where there were not that many.
const std::string& failed_call();
const std::vector<std::string>& calls();

void set_driver(int version);
void set_device(int device);
void refuse_updates(bool refuse);
// What cudaStreamQuery says of a stream that has faulted; cudaSuccess: it has not.
void break_stream(cudaError_t error);
// Drops what is pending, as if it had never brought anything.
void lose_pending();

// Memory, graphs, executables and captures that were not given back.
int num_live();
// Nodes of the newest executable by name, in order, bodies in brackets; what hangs off anything but
// the node before it names what it depends on.
std::string describe();

}  // namespace fake
