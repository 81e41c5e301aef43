#include "kangaroo/commit_path.h"

#include <tuple>

#include "bindings.h"

namespace kangaroo::bindings {

namespace {

// (path, path_len, bonus)
using Verdict = std::tuple<Address, Address, Address>;
// (cache_seqlens, positions) of the target's caches, then of the adapter's
using Places = std::tuple<Address, Address, Address, Address>;
// (batch, nodes, rows of exit states, width, reach)
using Sizes = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>;

}  // namespace

void register_commit_path(pybind11::module_& module) {
  module.def("commit_path", [](int dtype, const Verdict& verdict, const Chain& chain,
                               Address exit_states, const Places& places, Address done,
                               const Sizes& sizes, int32_t lag, int32_t limit) {
    const auto [path, path_len, bonus] = verdict;
    const auto [target, target_positions, adapter, adapter_positions] = places;
    const auto [batch, nodes, rows, width, reach] = sizes;
    kangaroo_commit_path_params p = {};
    p.path = at<int64_t>(path);
    p.path_len = at<int32_t>(path_len);
    p.bonus = at<int64_t>(bonus);
    p.chain = chain_of(chain);
    p.exit_states = states(exit_states, dtype, batch, rows, width);
    p.target = {at<int32_t>(target), at<int32_t>(target_positions)};
    p.adapter = {at<int32_t>(adapter), at<int32_t>(adapter_positions)};
    p.done = at<int32_t>(done);
    p.nodes = nodes;
    p.reach = reach;
    p.lag = lag;
    p.limit = limit;
    call(kangaroo_commit_path, p);
  });
}

}  // namespace kangaroo::bindings
