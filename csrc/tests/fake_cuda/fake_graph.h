// The fake's graphs.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

struct CUgraphNode_st {
  cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
  std::vector<cudaGraphNode_t> behind;
  const void* function = nullptr;
  std::vector<unsigned char> param;
  cudaGraphConditionalHandle handle = 0;
  std::unique_ptr<CUgraph_st> body;
  cudaGraph_t body_address = nullptr;  // what phGraph_out points to
};

struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
  std::vector<cudaGraphConditionalHandle> handles;  // created for this graph
  bool is_body = false;
  int num_instances = 0;
};

struct CUgraphExec_st {
  std::shared_ptr<CUgraph_st> graph;
  cudaGraph_t instance_of = nullptr;
  int num_pending = 0;
};

namespace fake {

// Ends the test: CUDA was used as it must not be.
[[noreturn]] void misuse(const std::string& what);

std::unique_ptr<CUgraph_st> clone(const CUgraph_st& graph);
bool same_topology(const CUgraph_st& a, const CUgraph_st& b);
bool has_conditions(const CUgraph_st& graph);
// Every handle belongs to one IF node of its graph, and bodies hold what they may.
bool valid(const CUgraph_st& graph);
void execute(const CUgraph_st& graph);
std::string describe(const CUgraph_st& graph);

struct Kernel {
  std::string name;
  std::size_t param_bytes;
  void (*call)(const void* function, const void* param);
};
const Kernel& kernel_of(const void* function);

}  // namespace fake
