#include "kangaroo/grow_tree.h"

#include <tuple>

#include "bindings.h"

namespace kangaroo::bindings {

namespace {

// (tokens, positions, parents, ancestors, paths, sure, candidates, waiting, places)
using Seedbed =
    std::tuple<Address, Address, Address, Address, Address, Address, Address, Address, int64_t>;
// (max_nodes, first, width, passes_left, sharpness)
using Rule = std::tuple<int64_t, int64_t, int64_t, int64_t, double>;

kangaroo_seedbed seedbed_of(const Seedbed& seedbed) {
  const auto [tokens, positions, parents, ancestors, paths, sure, candidates, waiting, places] =
      seedbed;
  return {at<int64_t>(tokens),     at<int32_t>(positions), at<int64_t>(parents),
          at<int64_t>(ancestors),  at<double>(paths),      at<int32_t>(sure),
          at<int64_t>(candidates), at<double>(waiting),    places};
}

}  // namespace

void register_grow_tree(pybind11::module_& module) {
  module.def("grow_tree", [](Address tokens, Address probabilities, const Seedbed& seedbed,
                             const Trees& trees, int64_t newest, int64_t k, const Rule& rule) {
    const auto [max_nodes, first, width, passes_left, sharpness] = rule;
    kangaroo_grow_tree_params p = {};
    p.tokens = at<int64_t>(tokens);
    p.probabilities = at<float>(probabilities);
    p.seedbed = seedbed_of(seedbed);
    p.trees = trees_of(trees);
    p.max_nodes = max_nodes;
    p.newest = newest;
    p.k = k;
    p.first = first;
    p.width = width;
    p.passes_left = passes_left;
    p.sharpness = sharpness;
    call(kangaroo_grow_tree, p);
  });
}

}  // namespace kangaroo::bindings
