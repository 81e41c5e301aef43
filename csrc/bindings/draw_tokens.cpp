#include "kangaroo/draw_tokens.h"

#include <pybind11/stl.h>

#include <optional>
#include <tuple>

#include "bindings.h"

namespace kangaroo::bindings {

namespace {

// (temperature, top_k, top_p, min_p, seed, sequence)
using Draws = std::tuple<Address, Address, Address, Address, Address, Address>;

kangaroo_draws draws_of(const Draws& draws) {
  const auto [temperature, top_k, top_p, min_p, seed, sequence] = draws;
  return {at<double>(temperature), at<int32_t>(top_k), at<double>(top_p),
          at<double>(min_p),       at<int64_t>(seed),  at<int64_t>(sequence)};
}

}  // namespace

void register_draw_tokens(pybind11::module_& module) {
  module.def("draw_tokens",
             [](Address logits, const Draws& draws, Address positions, Address token_ids,
                Address tokens, Address shares, const std::optional<Chain>& chain, int64_t batch,
                int64_t nodes, int64_t width, int64_t k, int32_t num_threads) {
               kangaroo_draft_chain appended = {};
               if (chain) appended = chain_of(*chain);
               kangaroo_draw_tokens_params p = {};
               p.logits = states(logits, KANGAROO_FLOAT32, batch, nodes, width);
               p.draws = draws_of(draws);
               p.positions = at<int32_t>(positions);
               p.token_ids = at<int32_t>(token_ids);
               p.tokens = at<int64_t>(tokens);
               p.shares = at<float>(shares);
               p.k = k;
               p.chain = chain ? &appended : nullptr;
               p.num_threads = num_threads;
               call(kangaroo_draw_tokens, p);
             });
}

}  // namespace kangaroo::bindings
