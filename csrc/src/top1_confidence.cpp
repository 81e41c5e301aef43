#include "kangaroo/top1_confidence.h"

#include <algorithm>

#include "error.h"
#include "parallel.h"
#include "rows.h"

namespace kangaroo {
namespace {

using Params = kangaroo_top1_confidence_params;

// Logits are summed in blocks of this many tokens, at absolute multiples, and combined in order.
constexpr int64_t kBlock = 240;  // a multiple of every tile width of the GEMM
constexpr int64_t kTileRows = 16;

// Statistics of one block of the vocabulary, for all rows; logits live on the stack.
void block_parts(const Params& p, const float* rows, int64_t block, SoftmaxPart* parts) {
  const Kernels& k = kernels();
  const int64_t num_blocks = (p.vocab + kBlock - 1) / kBlock;
  const int64_t begin = block * kBlock;
  alignas(64) float logits[kTileRows * kBlock];
  Gemm gemm = {};
  gemm.x_stride = p.width;
  gemm.weight = p.head + begin * p.width;
  gemm.out = logits;
  gemm.out_stride = kBlock;
  gemm.width = p.width;
  gemm.out_width = std::min(kBlock, p.vocab - begin);
  for (int64_t row = 0; row < p.num_rows; row += kTileRows) {
    gemm.x = rows + row * p.width;
    gemm.num_rows = std::min(kTileRows, p.num_rows - row);
    k.gemm(gemm);
    for (int64_t r = 0; r < gemm.num_rows; ++r) {
      SoftmaxPart& part = parts[(row + r) * num_blocks + block];
      part = k.softmax_part(logits + r * kBlock, gemm.out_width);
      part.place += begin;
    }
  }
}

void combine(const Params& p, const SoftmaxPart* parts) {
  const Kernels& k = kernels();
  const int64_t num_blocks = (p.vocab + kBlock - 1) / kBlock;
  for (int64_t row = 0; row < p.num_rows; ++row) {
    const SoftmaxPart* part = parts + row * num_blocks;
    const SoftmaxPart* best = part;
    for (int64_t block = 1; block < num_blocks; ++block) {
      if (part[block].largest > best->largest) best = part + block;
    }
    float sum = 0.0f;
    for (int64_t block = 0; block < num_blocks; ++block) {
      sum += part[block].sum * k.exp(part[block].largest - best->largest);
    }
    p.tokens[row] = best->place;
    p.confidence[row] = 1.0f / sum;
  }
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_top1_confidence(const kangaroo_top1_confidence_params* params) {
  using namespace kangaroo;
  return guarded([&] {
    const Params& p = *params;
    const kangaroo_status status = check(
        "top1_confidence", {{"num_rows", p.num_rows}, {"width", p.width}, {"vocab", p.vocab - 1}},
        {{"h", p.h, p.num_rows * p.width},
         {"head", p.head, p.vocab * p.width},
         {"norm_weight", p.norm_weight, p.width},
         {"tokens", p.tokens, p.num_rows},
         {"confidence", p.confidence, p.num_rows}});
    if (status != KANGAROO_OK || p.num_rows == 0) return status;
    const float* rows = normalized(p.h, p.norm_weight, p.eps, p.num_rows, p.width, p.num_threads);
    const int64_t num_blocks = (p.vocab + kBlock - 1) / kBlock;
    auto* parts = scratch<SoftmaxPart>(Scratch::kParts, p.num_rows * num_blocks);
    const int64_t work = p.num_rows * p.width * kBlock;
    parallel_for(num_blocks, grain_for(num_blocks, work, 1, p.num_threads), p.num_threads,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) {
                     block_parts(p, rows, block, parts);
                   }
                 });
    combine(p, parts);
    return KANGAROO_OK;
  });
}
