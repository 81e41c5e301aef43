#include "kangaroo/copy_draft.h"

#include <tuple>

#include "bindings.h"

namespace kangaroo::bindings {

namespace {

// (path, path_len)
using Path = std::tuple<Address, Address>;
// (slots, size, count)
using Sizes = std::tuple<int64_t, int64_t, int64_t>;

}  // namespace

void register_copy_draft(pybind11::module_& module) {
  module.def("copy_draft", [](Address text, const Path& verdict, const Trees& trees,
                              Address cache_seqlens, Address found, const Sizes& sizes) {
    const auto [path, path_len] = verdict;
    const auto [slots, size, count] = sizes;
    kangaroo_copy_draft_params p = {};
    p.text = at<int32_t>(text);
    p.path = at<int64_t>(path);
    p.path_len = at<int32_t>(path_len);
    p.trees = trees_of(trees);
    p.cache_seqlens = at<int32_t>(cache_seqlens);
    p.found = at<int32_t>(found);
    p.slots = slots;
    p.size = size;
    p.count = count;
    call(kangaroo_copy_draft, p);
  });
}

}  // namespace kangaroo::bindings
