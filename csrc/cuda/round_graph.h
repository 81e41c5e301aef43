// A CUDA graph that grows behind its newest nodes: kernels, captured work, and IF nodes to go into.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

#include "kangaroo/status.h"

namespace kangaroo {

// KANGAROO_OK, or the error of the CUDA call of that name, which is then no longer CUDA's last.
kangaroo_status tried(const char* call, cudaError_t error);

struct GraphDestroy {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
struct GraphExecDestroy {
  void operator()(cudaGraphExec_t exec) const { cudaGraphExecDestroy(exec); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDestroy>;
using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, GraphExecDestroy>;

// After a failure only `abandon` may be called.
class GraphBuilder {
 public:
  GraphBuilder() = default;
  GraphBuilder(const GraphBuilder&) = delete;
  GraphBuilder& operator=(const GraphBuilder&) = delete;
  ~GraphBuilder() { abandon(); }

  // Starts an empty graph.
  kangaroo_status start();
  // A kernel of one warp with one parameter.
  kangaroo_status kernel(const void* function, void* param);
  // A condition for an IF node at this place, false unless a kernel sets it in that launch.
  kangaroo_status condition(cudaGraphConditionalHandle* handle);
  // An IF node; what follows goes into its body, until `leave`.
  kangaroo_status enter(cudaGraphConditionalHandle handle);
  kangaroo_status leave();
  // What is enqueued on `stream` between the two goes here.
  kangaroo_status begin_capture(cudaStream_t stream);
  kangaroo_status end_capture();
  // Bodies entered and not left.
  std::size_t depth() const { return levels_.size() - 1; }

  Graph finish();
  void abandon();

 private:
  struct Level {
    cudaGraph_t graph;
    std::vector<cudaGraphNode_t> tip;  // the next node depends on these
  };

  kangaroo_status read_tip();

  Graph graph_;
  std::vector<Level> levels_;
  cudaStream_t stream_ = nullptr;
  bool capturing_ = false;
};

}  // namespace kangaroo
