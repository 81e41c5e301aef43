// The CUDA runtime that tests link instead of the real one; single-threaded.
#include "fake_cuda.h"

#include <algorithm>
#include <cstdlib>

#include "fake_runtime.h"

using namespace fake;

namespace {

void give_back(std::set<void*>& owners, void* data) {
  if (data && owners.erase(data) == 0) fake::misuse("memory is freed that was not allocated");
  std::free(data);
}

}  // namespace

namespace fake {

Runtime& runtime() {
  static Runtime the;
  return the;
}

cudaError_t say(cudaError_t error) {
  if (error != cudaSuccess) runtime().last_error = error;
  return error;
}

bool fails(const char* call) {
  Runtime& r = runtime();
  r.calls.push_back(call);
  if (r.calls_to_failure == 0 || --r.calls_to_failure > 0) return false;
  r.failed_call = call;
  say(cudaErrorUnknown);
  return true;
}

void reset() {
  Runtime& r = runtime();
  if (num_live() > 0) misuse("a test left something behind");
  if (r.mode != cudaStreamCaptureModeGlobal &&
      r.failed_call != "cudaThreadExchangeStreamCaptureMode") {
    misuse("a test left another capture mode");
  }
  const auto streams = r.streams;
  r = Runtime();
  r.streams = streams;
}

cudaStream_t new_stream() { return *runtime().streams.insert(new CUstream_st).first; }

void free_stream(cudaStream_t stream) {
  runtime().streams.erase(stream);
  delete stream;
}

void capture_host_node(cudaStream_t stream) {
  const auto& tip = stream->tip;
  stream->tip = {add(stream->capture, cudaGraphNodeTypeHost, tip.data(), tip.size())};
}

void invalidate(cudaStream_t stream) { stream->invalidated = true; }

void capture_fork(cudaStream_t stream, const void* function, void* param) {
  void* params[] = {param};
  const auto tip = stream->tip;
  stream->tip.clear();
  for (int branch = 0; branch < 2; ++branch) {
    stream->tip.push_back(
        add_kernel_node(stream->capture, function, params, tip.data(), tip.size()));
  }
}

bool run_one() {
  for (const auto exec : runtime().ending) --exec->num_pending;
  runtime().ending.clear();
  auto& pending = runtime().pending;
  if (pending.empty()) return false;
  const auto work = pending.front();
  pending.pop_front();
  work();
  return true;
}

void run_all() {
  while (run_one()) {
  }
}

std::size_t pending() { return runtime().pending.size(); }
void fail_call(int call) {
  runtime().calls_to_failure = call;
  runtime().failed_call.clear();
}
const std::string& failed_call() { return runtime().failed_call; }
const std::vector<std::string>& calls() { return runtime().calls; }
void set_driver(int version) { runtime().driver = version; }
void set_device(int device) { runtime().device = device; }
void refuse_updates(bool refuse) { runtime().refuse_updates = refuse; }
void break_stream(cudaError_t error) { runtime().broken = error; }

void lose_pending() {
  runtime().pending.clear();
  runtime().ending.clear();
  for (const auto exec : runtime().execs) exec->num_pending = 0;
}

int num_live() {
  const Runtime& r = runtime();
  const auto capturing = std::count_if(r.streams.begin(), r.streams.end(),
                                       [](cudaStream_t stream) { return stream->capture; });
  return static_cast<int>(r.memory.size() + r.pinned.size() + r.graphs.size() + r.execs.size()) +
         static_cast<int>(capturing);
}

std::string describe() { return describe(*runtime().newest->graph); }

}  // namespace fake

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorUnknown ? "unknown error" : "an error of the fake";
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = runtime().last_error;
  runtime().last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDevice(int* device) {
  if (fails("cudaGetDevice")) return cudaErrorUnknown;
  *device = runtime().device;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  if (fails("cudaDriverGetVersion")) return cudaErrorUnknown;
  *version = runtime().driver;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  if (fails("cudaMalloc")) return cudaErrorUnknown;
  runtime().memory.insert(*data = std::malloc(bytes));
  return cudaSuccess;
}

// Calls that give something back do so even where they report a failure, as the real ones do.

cudaError_t cudaFree(void* data) {
  give_back(runtime().memory, data);
  return fails("cudaFree") ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned flags) {
  if (fails("cudaHostAlloc")) return cudaErrorUnknown;
  if ((flags & cudaHostAllocMapped) == 0) fake::misuse("the device cannot see this memory");
  runtime().pinned.insert(*data = std::malloc(bytes));
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* data) {
  give_back(runtime().pinned, data);
  return fails("cudaFreeHost") ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  if (fails("cudaHostGetDevicePointer")) return cudaErrorUnknown;
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  if (fails("cudaMemcpy")) return cudaErrorUnknown;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  fake::run_all();
  return fails("cudaStreamSynchronize") ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t) {
  if (fails("cudaStreamQuery")) return cudaErrorUnknown;
  if (runtime().broken != cudaSuccess) return say(runtime().broken);
  return fake::run_one() ? say(cudaErrorNotReady) : cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void* function, dim3, dim3, void** params, std::size_t,
                             cudaStream_t stream) {
  if (fails("cudaLaunchKernel")) return cudaErrorUnknown;
  if (stream && stream->capture) {
    const auto& tip = stream->tip;
    stream->tip = {add_kernel_node(stream->capture, function, params, tip.data(), tip.size())};
    return cudaSuccess;
  }
  const auto* const bytes = static_cast<const unsigned char*>(params[0]);
  const std::vector<unsigned char> param(bytes, bytes + fake::kernel_of(function).param_bytes);
  runtime().pending.push_back(
      [function, param] { fake::kernel_of(function).call(function, param.data()); });
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  if (fails("cudaThreadExchangeStreamCaptureMode")) return cudaErrorUnknown;
  std::swap(*mode, runtime().mode);
  return cudaSuccess;
}
