// What the parts of the fake share.
#pragma once

#include <cuda_runtime.h>

#include <deque>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "fake_graph.h"

struct CUstream_st {
  cudaGraph_t capture = nullptr;
  std::vector<cudaGraphNode_t> tip;
  bool invalidated = false;
};

namespace fake {

struct Runtime {
  std::set<void*> memory;
  std::set<void*> pinned;
  std::set<cudaGraph_t> graphs;  // bodies too
  std::set<cudaGraphExec_t> execs;
  std::set<cudaStream_t> streams;
  std::deque<std::function<void()>> pending;
  std::vector<cudaGraphExec_t> ending;  // whose last kernel has written, and may not have returned
  std::vector<std::string> calls;
  std::string failed_call;
  int calls_to_failure = 0;
  int driver = 13000;
  int device = 0;
  bool refuse_updates = false;
  cudaError_t broken = cudaSuccess;
  cudaError_t last_error = cudaSuccess;
  cudaGraphExec_t newest = nullptr;
  cudaGraphConditionalHandle next_handle = 1;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
};

Runtime& runtime();

// Keeps the error for cudaGetLastError.
cudaError_t say(cudaError_t error);
// Counts a call; whether it is the one that was to fail.
bool fails(const char* call);
cudaGraphNode_t add(cudaGraph_t graph, cudaGraphNodeType type, const cudaGraphNode_t* behind,
                    std::size_t count);
cudaGraphNode_t add_kernel_node(cudaGraph_t graph, const void* function, void** params,
                                const cudaGraphNode_t* behind, std::size_t count);

}  // namespace fake
