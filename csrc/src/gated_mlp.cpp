#include "kangaroo/gated_mlp.h"

#include <algorithm>

#include "ops.h"
#include "parallel.h"
#include "scratch.h"
#include "stages.h"

namespace kangaroo {
namespace {

// Gates and ups of so many columns wait for each other in whoever computes both.
constexpr int64_t kMaxColumns = 128;

// hidden[:, begin:end] = silu(g) * u.
void gate_columns(const Gemm& gate, const Rows& hidden, kangaroo_dtype dtype, int64_t begin,
                  int64_t end) {
  const TypedKernels& k = kernels(dtype);
  const int64_t columns = end - begin;
  const int64_t item = dtype == KANGAROO_FLOAT32 ? 4 : 2;
  const int64_t num_values = gate.num_rows * columns;
  float* const gates = scratch<float>(Scratch::kTile, gate.num_rows, 2 * columns);
  Gemm part = gate.columns(begin, end);
  for (float* to : {gates, gates + num_values}) {
    part.out = rows_of(to - part.begin, gate.num_rows, 0, columns, KANGAROO_FLOAT32);
    k.gemm_to_float(part);
    part = gate.columns(gate.end + begin, gate.end + end);
  }
  for (int64_t row = 0; row < gate.num_rows; ++row) {
    const float* g = gates + row * columns;
    k.silu_mul(g, g + num_values, columns, hidden.at(row) + begin * item);
  }
}

}  // namespace

void check(Check& c, const kangaroo_gated_mlp_params& p) {
  c.cpu_dtype("x", p.x.dtype);
  c.states("x", p.x);
  c.within("down.width", p.down.width, 0, INT64_MAX / 2);
  if (!c.ok()) return;
  c.matrix("gate_up", p.gate_up, 2 * p.down.width, p.x.width, p.x.dtype);
  c.matrix("down", p.down, p.x.width, p.down.width, p.x.dtype);
  c.vector("norm", p.norm, p.x.width, p.x.dtype);
  c.states("out", p.out, p.x, p.x.width, p.x.dtype);
  c.eps(p.eps);
  c.threads(p.num_threads);
}

void run(const kangaroo_gated_mlp_params& p) {
  const int64_t num_rows = p.x.batch * p.x.nodes;
  if (num_rows == 0) return;
  const int64_t width = p.down.width;
  Gemm gate = {};
  gate.panel = packed(p.x, p.norm.data, p.eps, p.num_threads);
  gate.num_rows = num_rows;
  gate.width = p.x.width;
  gate.weight = p.gate_up.data;
  gate.weight_stride = p.gate_up.row_stride;
  gate.residual = no_rows();
  gate.end = width;
  void* const values = scratch<float>(Scratch::kHidden, num_rows, width);
  const kangaroo_states hidden = kangaroo_states_of(values, p.x.dtype, 1, num_rows, width);
  const int64_t work = 2 * num_rows * p.x.width;
  const int64_t step = kernels(p.x.dtype).outputs_together;
  const int64_t grain =
      std::min(kMaxColumns / step * step, grain_for(width, work, step, p.num_threads));
  parallel_for(width, grain, p.num_threads, [&](int64_t begin, int64_t end) {
    gate_columns(gate, rows_of(hidden), p.x.dtype, begin, end);
  });

  Gemm down = {};
  down.panel = packed(hidden, nullptr, 0.0f, p.num_threads);
  down.num_rows = num_rows;
  down.width = width;
  down.weight = p.down.data;
  down.weight_stride = p.down.row_stride;
  down.residual = rows_of(p.x);
  down.out = rows_of(p.out);
  down.end = p.x.width;
  multiply(down, p.x.dtype, false, p.num_threads);
}

}  // namespace kangaroo

kangaroo_status kangaroo_gated_mlp(const kangaroo_gated_mlp_params* params) {
  return kangaroo::checked("gated_mlp", params);
}
