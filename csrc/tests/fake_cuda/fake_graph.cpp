// Graphs of the fake: copying, comparing, running and describing them.
#include "fake_graph.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "fake_cuda.h"

namespace fake {
namespace {

std::map<const void*, Kernel>& kernels() {
  static std::map<const void*, Kernel> known;
  return known;
}

std::map<cudaGraphConditionalHandle, unsigned>& conditions() {
  static std::map<cudaGraphConditionalHandle, unsigned> values;
  return values;
}

std::size_t place_of(const CUgraph_st& graph, cudaGraphNode_t node) {
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].get() == node) return i;
  }
  misuse("a node depends on one of another graph");
}

void assign_defaults(const CUgraph_st& graph) {
  for (const auto handle : graph.handles) conditions()[handle] = 0;
  for (const auto& node : graph.nodes) {
    if (node->body) assign_defaults(*node->body);
  }
}

void run_nodes(const CUgraph_st& graph);

void run_node(const CUgraphNode_st& node) {
  if (node.type == cudaGraphNodeTypeKernel) {
    kernel_of(node.function).call(node.function, node.param.data());
  } else if (node.body && conditions().at(node.handle) != 0) {
    run_nodes(*node.body);
  }
}

void run_nodes(const CUgraph_st& graph) {
  std::set<cudaGraphNode_t> finished;
  while (finished.size() < graph.nodes.size()) {
    const auto ready = std::find_if(graph.nodes.rbegin(), graph.nodes.rend(), [&](const auto& n) {
      return finished.count(n.get()) == 0 &&
             std::all_of(n->behind.begin(), n->behind.end(),
                         [&](cudaGraphNode_t before) { return finished.count(before) == 1; });
    });
    if (ready == graph.nodes.rend()) misuse("a graph has a circle");
    run_node(**ready);
    finished.insert(ready->get());
  }
}

bool allowed(const CUgraphNode_st& node, bool is_body) {
  return !is_body || node.type != cudaGraphNodeTypeHost;
}

}  // namespace

void misuse(const std::string& what) {
  std::printf("misuse of CUDA: %s\n", what.c_str());
  std::fflush(stdout);
  std::abort();
}

void add_kernel(const char* name, const void* function, std::size_t param_bytes, Call call) {
  kernels()[function] = {name, param_bytes, call};
}

const Kernel& kernel_of(const void* function) {
  const auto found = kernels().find(function);
  if (found == kernels().end()) misuse("a kernel that no test has made known");
  return found->second;
}

std::unique_ptr<CUgraph_st> clone(const CUgraph_st& graph) {
  auto copy = std::make_unique<CUgraph_st>();
  copy->handles = graph.handles;
  copy->is_body = graph.is_body;
  for (const auto& node : graph.nodes) {
    auto& made = copy->nodes.emplace_back(std::make_unique<CUgraphNode_st>());
    made->type = node->type;
    made->function = node->function;
    made->param = node->param;
    made->handle = node->handle;
    if (node->body) made->body = clone(*node->body);
    for (const auto before : node->behind) {
      made->behind.push_back(copy->nodes[place_of(graph, before)].get());
    }
  }
  return copy;
}

bool same_topology(const CUgraph_st& a, const CUgraph_st& b) {
  if (a.nodes.size() != b.nodes.size()) return false;
  for (std::size_t i = 0; i < a.nodes.size(); ++i) {
    const CUgraphNode_st& x = *a.nodes[i];
    const CUgraphNode_st& y = *b.nodes[i];
    if (x.type != y.type || x.behind.size() != y.behind.size()) return false;
    for (std::size_t j = 0; j < x.behind.size(); ++j) {
      if (place_of(a, x.behind[j]) != place_of(b, y.behind[j])) return false;
    }
    if (x.body && !same_topology(*x.body, *y.body)) return false;
  }
  return true;
}

bool has_conditions(const CUgraph_st& graph) { return !graph.handles.empty(); }

bool valid(const CUgraph_st& graph) {
  std::set<cudaGraphConditionalHandle> used;
  for (const auto& node : graph.nodes) {
    if (!allowed(*node, graph.is_body)) return false;
    if (!node->body) continue;
    if (!used.insert(node->handle).second) return false;
    if (node->body->nodes.empty()) misuse("an empty body, on which drivers before 12.8 hang");
    if (!valid(*node->body)) return false;
  }
  return used == std::set<cudaGraphConditionalHandle>(graph.handles.begin(), graph.handles.end());
}

void execute(const CUgraph_st& graph) {
  conditions().clear();
  assign_defaults(graph);
  run_nodes(graph);
}

std::string describe(const CUgraph_st& graph) {
  std::string text;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const CUgraphNode_st& node = *graph.nodes[i];
    if (i > 0) text += ' ';
    text += node.type == cudaGraphNodeTypeKernel ? kernel_of(node.function).name
            : node.body                          ? "if(" + describe(*node.body) + ")"
            : node.type == cudaGraphNodeTypeHost ? "host"
                                                 : "empty";
    const bool chained =
        i == 0 ? node.behind.empty()
               : node.behind.size() == 1 && node.behind[0] == graph.nodes[i - 1].get();
    if (chained) continue;
    text += '<';
    for (const auto before : node.behind) text += std::to_string(place_of(graph, before)) + ',';
    text += '>';
  }
  return text;
}

}  // namespace fake

void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value) {
  const auto found = fake::conditions().find(handle);
  if (found == fake::conditions().end()) fake::misuse("a condition of another graph is set");
  found->second = value;
}
