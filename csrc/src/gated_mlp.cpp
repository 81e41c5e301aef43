#include "kangaroo/gated_mlp.h"

#include <algorithm>

#include "error.h"
#include "parallel.h"
#include "rows.h"

namespace kangaroo {
namespace {

// Values of `up` wait here for their gates, on the stack of whoever computes both.
constexpr int64_t kTileRows = 64;
constexpr int64_t kTileOutputs = 120;

// hidden[:, begin:end] = silu(g) * u, for a stretch of at most kTileOutputs columns.
void gate_columns(const Gemm& gate, int64_t begin, int64_t end) {
  const Kernels& k = kernels();
  alignas(64) float up[kTileRows * kTileOutputs];
  Gemm gates = gate.columns(begin, end);
  Gemm ups = gates;
  ups.weight += gate.out_width * gate.width;
  ups.out = up;
  ups.out_stride = end - begin;
  for (int64_t row = 0; row < gate.num_rows; row += kTileRows) {
    gates.num_rows = ups.num_rows = std::min(kTileRows, gate.num_rows - row);
    k.gemm(gates);
    k.gemm(ups);
    for (int64_t r = 0; r < gates.num_rows; ++r) {
      k.silu_mul(gates.out + r * gates.out_stride, up + r * ups.out_stride, end - begin);
    }
    gates.x += kTileRows * gates.x_stride;
    ups.x = gates.x;
    gates.out += kTileRows * gates.out_stride;
  }
}

void run(const kangaroo_gated_mlp_params& p) {
  Gemm gate = {};
  gate.x = normalized(p.x, p.norm_weight, p.eps, p.num_rows, p.width, p.num_threads);
  gate.x_stride = p.width;
  gate.weight = p.gate_up;
  gate.out = scratch<float>(Scratch::kHidden, p.num_rows * p.hidden_width);
  gate.out_stride = p.hidden_width;
  gate.num_rows = p.num_rows;
  gate.width = p.width;
  gate.out_width = p.hidden_width;
  const int64_t work = 2 * p.num_rows * p.width;
  const int64_t grain = std::min(kTileOutputs, grain_for(p.hidden_width, work, 12, p.num_threads));
  parallel_for(p.hidden_width, grain, p.num_threads,
               [&](int64_t begin, int64_t end) { gate_columns(gate, begin, end); });

  Gemm down = {};
  down.x = gate.out;
  down.x_stride = p.hidden_width;
  down.weight = p.down;
  down.residual = p.x;
  down.out = p.out;
  down.out_stride = p.width;
  down.num_rows = p.num_rows;
  down.width = p.hidden_width;
  down.out_width = p.width;
  parallel_gemm(down, p.num_threads);
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_gated_mlp(const kangaroo_gated_mlp_params* params) {
  using namespace kangaroo;
  return guarded([&] {
    const kangaroo_gated_mlp_params& p = *params;
    const kangaroo_status status =
        check("gated_mlp",
              {{"num_rows", p.num_rows}, {"width", p.width}, {"hidden_width", p.hidden_width}},
              {{"x", p.x, p.num_rows * p.width},
               {"gate_up", p.gate_up, 2 * p.hidden_width * p.width},
               {"down", p.down, p.width * p.hidden_width},
               {"norm_weight", p.norm_weight, p.width},
               {"out", p.out, p.num_rows * p.width}});
    if (status != KANGAROO_OK) return status;
    if (p.num_rows > 0) run(p);
    return KANGAROO_OK;
  });
}
