// Captures and graphs of the fake, as the runtime's calls.
#include <algorithm>

#include "fake_cuda.h"
#include "fake_runtime.h"

using namespace fake;

namespace {

void must_live(cudaGraph_t graph) {
  if (runtime().graphs.count(graph) == 0) misuse("a graph that is no more");
}

void forget(const CUgraph_st& graph) {
  for (const auto& node : graph.nodes) {
    if (!node->body) continue;
    forget(*node->body);
    runtime().graphs.erase(node->body.get());
  }
}

cudaError_t add_conditional(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* behind,
                            std::size_t count, cudaGraphNodeParams* params) {
  if (fails("cudaGraphAddNode")) return cudaErrorUnknown;
  const auto& handles = graph->handles;
  const auto handle = params->conditional.handle;
  if (params->type != cudaGraphNodeTypeConditional || params->conditional.size != 1 ||
      std::find(handles.begin(), handles.end(), handle) == handles.end()) {
    return say(cudaErrorInvalidValue);
  }
  *node = add(graph, params->type, behind, count);
  (*node)->handle = handle;
  (*node)->body = std::make_unique<CUgraph_st>();
  (*node)->body->is_body = true;
  (*node)->body_address = (*node)->body.get();
  runtime().graphs.insert((*node)->body_address);
  params->conditional.phGraph_out = &(*node)->body_address;
  return cudaSuccess;
}

cudaError_t capture_info(cudaStream_t stream, cudaStreamCaptureStatus* status,
                         const cudaGraphNode_t** tip, const cudaGraphEdgeData** edges,
                         std::size_t* count) {
  if (fails("cudaStreamGetCaptureInfo")) return cudaErrorUnknown;
  *status = !stream->capture      ? cudaStreamCaptureStatusNone
            : stream->invalidated ? cudaStreamCaptureStatusInvalidated
                                  : cudaStreamCaptureStatusActive;
  *tip = stream->tip.data();
  *edges = nullptr;
  *count = stream->tip.size();
  return cudaSuccess;
}

}  // namespace

namespace fake {

cudaGraphNode_t add(cudaGraph_t graph, cudaGraphNodeType type, const cudaGraphNode_t* behind,
                    std::size_t count) {
  must_live(graph);
  auto& node = graph->nodes.emplace_back(std::make_unique<CUgraphNode_st>());
  node->type = type;
  node->behind.assign(behind, behind + count);
  return node.get();
}

cudaGraphNode_t add_kernel_node(cudaGraph_t graph, const void* function, void** params,
                                const cudaGraphNode_t* behind, std::size_t count) {
  const cudaGraphNode_t node = add(graph, cudaGraphNodeTypeKernel, behind, count);
  const auto* const bytes = static_cast<const unsigned char*>(params[0]);
  node->function = function;
  node->param.assign(bytes, bytes + fake::kernel_of(function).param_bytes);
  return node;
}

}  // namespace fake

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                          const cudaGraphNode_t* behind, const cudaGraphEdgeData*,
                                          std::size_t count, cudaStreamCaptureMode) {
  if (fails("cudaStreamBeginCaptureToGraph")) return cudaErrorUnknown;
  must_live(graph);
  if (stream->capture) return say(cudaErrorIllegalState);
  stream->capture = graph;
  stream->tip.assign(behind, behind + count);
  stream->invalidated = false;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream->invalidated ? nullptr : stream->capture;
  const bool was_capturing = stream->capture != nullptr;
  const bool invalidated = stream->invalidated;
  *stream = {};
  if (fails("cudaStreamEndCapture")) return cudaErrorUnknown;
  if (!was_capturing) return say(cudaErrorIllegalState);
  return invalidated ? say(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  if (fails("cudaGraphCreate")) return cudaErrorUnknown;
  runtime().graphs.insert(*graph = new CUgraph_st);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  must_live(graph);
  if (graph->is_body) misuse("bodies belong to their nodes");
  for (const auto stream : runtime().streams) {
    if (stream->capture) misuse("a graph is destroyed while a stream captures");
  }
  forget(*graph);
  runtime().graphs.erase(graph);
  for (const auto exec : runtime().execs) {
    if (exec->instance_of == graph) misuse("a graph is destroyed before its executable");
  }
  delete graph;
  return fails("cudaGraphDestroy") ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                   const cudaGraphNode_t* behind, std::size_t count,
                                   const cudaKernelNodeParams* params) {
  if (fails("cudaGraphAddKernelNode")) return cudaErrorUnknown;
  *node = add_kernel_node(graph, params->func, params->kernelParams, behind, count);
  return cudaSuccess;
}

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* node, cudaGraph_t graph,
                                  const cudaGraphNode_t* behind, std::size_t count) {
  if (fails("cudaGraphAddEmptyNode")) return cudaErrorUnknown;
  *node = add(graph, cudaGraphNodeTypeEmpty, behind, count);
  return cudaSuccess;
}

cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle* handle, cudaGraph_t graph,
                                             unsigned default_value, unsigned flags) {
  if (fails("cudaGraphConditionalHandleCreate")) return cudaErrorUnknown;
  must_live(graph);
  if (default_value != 0 || flags != cudaGraphCondAssignDefault) return say(cudaErrorInvalidValue);
  graph->handles.push_back(*handle = runtime().next_handle++);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  if (fails("cudaGraphGetNodes")) return cudaErrorUnknown;
  *count = nodes ? std::min(*count, graph->nodes.size()) : graph->nodes.size();
  for (std::size_t i = 0; nodes && i < *count; ++i) nodes[i] = graph->nodes[i].get();
  return cudaSuccess;
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  if (fails("cudaGraphNodeGetType")) return cudaErrorUnknown;
  *type = node->type;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (fails("cudaGraphInstantiate")) return cudaErrorUnknown;
  must_live(graph);
  if (!valid(*graph)) return say(cudaErrorNotSupported);
  if (has_conditions(*graph) && graph->num_instances++ > 0) return say(cudaErrorNotSupported);
  *exec = new CUgraphExec_st;
  (*exec)->graph = clone(*graph);
  (*exec)->instance_of = graph;
  runtime().execs.insert(*exec);
  runtime().newest = *exec;
  return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo*) {
  if (fails("cudaGraphExecUpdate")) return cudaErrorUnknown;
  if (runtime().refuse_updates || !same_topology(*exec->graph, *graph)) {
    return say(cudaErrorGraphExecUpdateFailure);
  }
  exec->graph = clone(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  if (runtime().execs.erase(exec) == 0) misuse("an executable is destroyed twice");
  if (exec->num_pending > 0) misuse("an executable is destroyed while it is to run");
  delete exec;
  return fails("cudaGraphExecDestroy") ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  if (fails("cudaGraphLaunch")) return cudaErrorUnknown;
  ++exec->num_pending;
  runtime().pending.push_back([exec, graph = exec->graph] {  // a later update comes too late
    execute(*graph);
    runtime().ending.push_back(exec);
  });
  return cudaSuccess;
}

#if CUDART_VERSION >= 13000
cudaError_t cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph,
                             const cudaGraphNode_t* behind, const cudaGraphEdgeData*,
                             std::size_t count, cudaGraphNodeParams* params) {
  return add_conditional(node, graph, behind, count, params);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long*, cudaGraph_t*, const cudaGraphNode_t** tip,
                                     const cudaGraphEdgeData** edges, std::size_t* count) {
  return capture_info(stream, status, tip, edges, count);
}
#else
cudaError_t cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph,
                             const cudaGraphNode_t* behind, std::size_t count,
                             cudaGraphNodeParams* params) {
  return add_conditional(node, graph, behind, count, params);
}

cudaError_t cudaStreamGetCaptureInfo_v3(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                        unsigned long long*, cudaGraph_t*,
                                        const cudaGraphNode_t** tip,
                                        const cudaGraphEdgeData** edges, std::size_t* count) {
  return capture_info(stream, status, tip, edges, count);
}
#endif
