#include "kangaroo/rms_norm.h"

#include "ops.h"
#include "parallel.h"
#include "stages.h"

namespace kangaroo {
namespace {

// A norm costs about this many multiply-adds an element.
constexpr int64_t kNormWork = 4;

}  // namespace

void check(Check& c, const kangaroo_rms_norm_params& p) {
  c.cpu_dtype("x", p.x.dtype);
  c.states("x", p.x);
  c.vector("weight", p.weight, p.x.width, p.x.dtype);
  c.states("out", p.out, p.x, p.x.width, p.x.dtype);
  c.eps(p.eps);
  c.threads(p.num_threads);
}

void run(const kangaroo_rms_norm_params& p) {
  const TypedKernels& k = kernels(p.x.dtype);
  const Rows x = rows_of(p.x);
  const Rows out = rows_of(p.out);
  const int64_t num_rows = p.x.batch * p.x.nodes;
  const int64_t grain = grain_for(num_rows, kNormWork * p.x.width, 1, p.num_threads);
  parallel_for(num_rows, grain, p.num_threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      k.rms_norm(x.at(row), p.weight.data, p.eps, p.x.width, out.at(row));
    }
  });
}

}  // namespace kangaroo

kangaroo_status kangaroo_rms_norm(const kangaroo_rms_norm_params* params) {
  return kangaroo::checked("rms_norm", params);
}
