#include <string>
#include <utility>

#include "error.h"
#include "round_graph.h"
#include "round_kernels.h"

namespace kangaroo {
namespace {

// CUDA 13 gave edges their data in the plain names.

cudaError_t add_node(cudaGraphNode_t* node, cudaGraph_t graph,
                     const std::vector<cudaGraphNode_t>& behind, cudaGraphNodeParams* params) {
#if CUDART_VERSION >= 13000
  return cudaGraphAddNode(node, graph, behind.data(), nullptr, behind.size(), params);
#else
  return cudaGraphAddNode(node, graph, behind.data(), behind.size(), params);
#endif
}

cudaError_t capture_info(cudaStream_t stream, cudaStreamCaptureStatus* status,
                         const cudaGraphNode_t** tip, const cudaGraphEdgeData** edges,
                         std::size_t* count) {
#if CUDART_VERSION >= 13000
  return cudaStreamGetCaptureInfo(stream, status, nullptr, nullptr, tip, edges, count);
#else
  return cudaStreamGetCaptureInfo_v3(stream, status, nullptr, nullptr, tip, edges, count);
#endif
}

bool allowed_in_a_body(cudaGraphNodeType type) {
  return type == cudaGraphNodeTypeKernel || type == cudaGraphNodeTypeMemcpy ||
         type == cudaGraphNodeTypeMemset || type == cudaGraphNodeTypeGraph ||
         type == cudaGraphNodeTypeEmpty || type == cudaGraphNodeTypeConditional;
}

// Instantiation would refuse it too, but not say why.
kangaroo_status check_body(cudaGraph_t body) {
  std::size_t count = 0;
  if (auto bad = tried("cudaGraphGetNodes", cudaGraphGetNodes(body, nullptr, &count))) return bad;
  std::vector<cudaGraphNode_t> nodes(count);
  if (count == 0) return KANGAROO_OK;
  if (auto bad = tried("cudaGraphGetNodes", cudaGraphGetNodes(body, nodes.data(), &count))) {
    return bad;
  }
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type = cudaGraphNodeTypeKernel;
    if (auto bad = tried("cudaGraphNodeGetType", cudaGraphNodeGetType(node, &type))) return bad;
    if (allowed_in_a_body(type)) continue;
    return invalid(
        "round: expected kernels, copies and fills in the body of an IF node, got "
        "a node of cudaGraphNodeType %d",
        static_cast<int>(type));
  }
  return KANGAROO_OK;
}

}  // namespace

kangaroo_status tried(const char* call, cudaError_t error) {
  if (error == cudaSuccess) return KANGAROO_OK;
  cudaGetLastError();  // reported here: whoever asks CUDA next must not meet it again
  return cuda_error((std::string("round: ") + call).c_str(), cudaGetErrorString(error));
}

kangaroo_status GraphBuilder::start() {
  cudaGraph_t graph = nullptr;
  if (auto bad = tried("cudaGraphCreate", cudaGraphCreate(&graph, 0))) return bad;
  graph_.reset(graph);
  levels_.assign(1, {graph, {}});
  return KANGAROO_OK;
}

kangaroo_status GraphBuilder::kernel(const void* function, void* param) {
  Level& here = levels_.back();
  void* params[] = {param};
  cudaKernelNodeParams p = {};
  p.func = const_cast<void*>(function);
  p.gridDim = dim3(1);
  p.blockDim = dim3(kRoundThreads);
  p.kernelParams = params;
  cudaGraphNode_t node = nullptr;
  const auto error =
      cudaGraphAddKernelNode(&node, here.graph, here.tip.data(), here.tip.size(), &p);
  here.tip.assign(1, node);
  return tried("cudaGraphAddKernelNode", error);
}

kangaroo_status GraphBuilder::condition(cudaGraphConditionalHandle* handle) {
  return tried("cudaGraphConditionalHandleCreate",
               cudaGraphConditionalHandleCreate(handle, levels_.back().graph, 0,
                                                cudaGraphCondAssignDefault));
}

kangaroo_status GraphBuilder::enter(cudaGraphConditionalHandle handle) {
  Level& here = levels_.back();
  cudaGraphNodeParams p = {};
  p.type = cudaGraphNodeTypeConditional;
  p.conditional.handle = handle;
  p.conditional.type = cudaGraphCondTypeIf;
  p.conditional.size = 1;
  cudaGraphNode_t node = nullptr;
  if (auto bad = tried("cudaGraphAddNode", add_node(&node, here.graph, here.tip, &p))) return bad;
  here.tip.assign(1, node);
  levels_.push_back({p.conditional.phGraph_out[0], {}});
  return KANGAROO_OK;
}

kangaroo_status GraphBuilder::leave() {
  const Level& body = levels_.back();
  if (body.tip.empty()) {  // drivers before 12.8 hang on a body without nodes
    cudaGraphNode_t node = nullptr;
    const auto error = cudaGraphAddEmptyNode(&node, body.graph, nullptr, 0);
    if (auto bad = tried("cudaGraphAddEmptyNode", error)) return bad;
  }
  if (auto bad = check_body(body.graph)) return bad;
  levels_.pop_back();
  return KANGAROO_OK;
}

kangaroo_status GraphBuilder::begin_capture(cudaStream_t stream) {
  const Level& here = levels_.back();
  const auto error =
      cudaStreamBeginCaptureToGraph(stream, here.graph, here.tip.data(), nullptr, here.tip.size(),
                                    cudaStreamCaptureModeThreadLocal);
  if (auto bad = tried("cudaStreamBeginCaptureToGraph", error)) return bad;
  stream_ = stream;
  capturing_ = true;
  return KANGAROO_OK;
}

// Later nodes wait for the whole of what was captured, so that the data of the edges may be
// dropped.
kangaroo_status GraphBuilder::read_tip() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* tip = nullptr;
  const cudaGraphEdgeData* edges = nullptr;
  std::size_t count = 0;
  const auto error = capture_info(stream_, &status, &tip, &edges, &count);
  if (auto bad = tried("cudaStreamGetCaptureInfo", error)) return bad;
  if (status == cudaStreamCaptureStatusInvalidated) {
    return tried("a call between begin and end", cudaErrorStreamCaptureInvalidated);
  }
  if (status != cudaStreamCaptureStatusActive) {
    capturing_ = false;
    return invalid("round: expected a stream that is still capturing, got one whose capture ended");
  }
  levels_.back().tip.assign(tip, tip + count);
  return KANGAROO_OK;
}

kangaroo_status GraphBuilder::end_capture() {
  if (auto bad = read_tip()) return bad;
  cudaGraph_t same = nullptr;
  capturing_ = false;
  return tried("cudaStreamEndCapture", cudaStreamEndCapture(stream_, &same));
}

Graph GraphBuilder::finish() {
  levels_.clear();
  return std::move(graph_);
}

void GraphBuilder::abandon() {
  if (capturing_) {
    cudaGraph_t same = nullptr;
    cudaStreamEndCapture(stream_, &same);
    cudaGetLastError();
    capturing_ = false;
  }
  levels_.clear();
  graph_.reset();
}

}  // namespace kangaroo
