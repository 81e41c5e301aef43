#include "kangaroo/topk_confidence.h"

#include <algorithm>
#include <limits>

#include "ops.h"
#include "parallel.h"
#include "scratch.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_topk_confidence_params;

// Logits are summed in blocks of this many tokens, at absolute multiples, and combined in order.
constexpr int64_t kBlock = 240;  // a multiple of every tile width of the GEMM
constexpr float kLowest = std::numeric_limits<float>::lowest();

struct Candidate {
  float logit;
  int64_t token;
};

int64_t num_rows(const Params& p) { return p.h.batch * p.h.nodes; }

int64_t num_ids(const Params& p) { return p.head.token_ids ? p.head.num_ids : p.head.weight.rows; }

int64_t num_blocks(const Params& p) { return (num_ids(p) + kBlock - 1) / kBlock; }

// Keeps the k best of what was inserted, sorted; the earlier of two equals stands first.
void insert(Candidate candidate, int64_t k, Candidate* best) {
  if (!(candidate.logit > best[k - 1].logit)) return;
  int64_t at = k - 1;
  for (; at > 0 && candidate.logit > best[at - 1].logit; --at) best[at] = best[at - 1];
  best[at] = candidate;
}

// logits[:, :count] of tokens [begin, begin + count) of the head, a run of neighbouring ids at
// once.
void block_logits(const Params& p, const char* panel, int64_t begin, int64_t count, float* logits) {
  const int32_t* ids = p.head.token_ids;
  Gemm gemm = {};
  gemm.panel = panel;
  gemm.num_rows = num_rows(p);
  gemm.width = p.h.width;
  gemm.weight = p.head.weight.data;
  gemm.weight_stride = p.head.weight.row_stride;
  gemm.residual = no_rows();
  for (int64_t done = 0; done < count;) {
    const int64_t first = ids ? ids[begin + done] : begin + done;
    int64_t next = done + 1;
    while (next < count && (!ids || ids[begin + next] == first + next - done)) ++next;
    gemm.begin = first;
    gemm.end = first + next - done;
    gemm.out = rows_of(logits + done - first, gemm.num_rows, 0, kBlock, KANGAROO_FLOAT32);
    kernels(p.h.dtype).gemm_to_float(gemm);
    done = next;
  }
}

// Statistics and candidates of one block of the vocabulary, for all rows; the logits stay in this
// thread's cache.
void block_parts(const Params& p, const char* panel, int64_t block, SoftmaxPart* parts,
                 Candidate* candidates) {
  const int64_t begin = block * kBlock;
  const int64_t count = std::min(kBlock, num_ids(p) - begin);
  float* const logits = scratch<float>(Scratch::kTile, num_rows(p), kBlock);
  block_logits(p, panel, begin, count, logits);
  for (int64_t row = 0; row < num_rows(p); ++row) {
    const int64_t place = row * num_blocks(p) + block;
    float* own = logits + row * kBlock;
    // What is no number, or -inf, ranks below all others: -inf itself stands for no candidate.
    for (int64_t j = 0; j < count; ++j) own[j] = own[j] > kLowest ? own[j] : kLowest;
    parts[place] = kernels().softmax_part(own, count);
    Candidate* best = candidates + place * p.k;
    const int64_t top = parts[place].place;
    best[0] = {parts[place].largest, begin + top};
    for (int64_t j = 1; j < p.k; ++j) best[j] = {-__builtin_inff(), 0};
    if (p.k == 1) continue;
    for (int64_t j = 0; j < count; ++j) {
      if (j != top) insert({own[j], begin + j}, p.k - 1, best + 1);
    }
  }
}

void combine(const Params& p, const SoftmaxPart* parts, const Candidate* candidates) {
  const Kernels& k = kernels();
  for (int64_t row = 0; row < num_rows(p); ++row) {
    const Candidate* first = candidates + row * num_blocks(p) * p.k;
    Candidate best[KANGAROO_MAX_K];
    std::copy(first, first + p.k, best);
    for (int64_t j = p.k; j < num_blocks(p) * p.k; ++j) insert(first[j], p.k, best);
    float sum = 0.0f;
    for (int64_t block = 0; block < num_blocks(p); ++block) {
      const SoftmaxPart& part = parts[row * num_blocks(p) + block];
      sum += part.sum * k.exp(part.largest - best[0].logit);
    }
    for (int64_t j = 0; j < p.k; ++j) {
      const int64_t token = best[j].token;
      p.tokens[row * p.k + j] = p.head.token_ids ? p.head.token_ids[token] : token;
      p.confidence[row * p.k + j] = k.exp(best[j].logit - best[0].logit) / sum;
    }
  }
}

}  // namespace

void check(Check& c, const Params& p) {
  c.cpu_dtype("h", p.h.dtype);
  c.states("h", p.h);
  c.at_least("head.weight.rows", p.head.weight.rows, 1);
  c.matrix("head.weight", p.head.weight, p.head.weight.rows, p.h.width, p.h.dtype);
  c.vector("norm", p.norm, p.h.width, p.h.dtype);
  c.at_least("head.num_ids", p.head.num_ids, 0);
  if (p.head.token_ids) {
    c.array("head.token_ids", p.head.token_ids, p.head.num_ids, 1, sizeof(int32_t));
  }
  for (int64_t j = 0; c.ok() && p.head.token_ids && j < p.head.num_ids; ++j) {
    const int64_t least = j == 0 ? 0 : int64_t{p.head.token_ids[j - 1]} + 1;
    c.within("head.token_ids", p.head.token_ids[j], least, p.head.weight.rows - 1);
  }
  if (!c.ok()) return;
  c.within("k", p.k, 1, std::min<int64_t>(KANGAROO_MAX_K, num_ids(p)));
  if (!c.ok()) return;
  c.array("tokens", p.tokens, num_rows(p), p.k, sizeof(int64_t));
  c.array("confidence", p.confidence, num_rows(p), p.k, sizeof(float));
  c.eps(p.eps);
  c.threads(p.num_threads);
}

void run(const Params& p) {
  if (num_rows(p) == 0) return;
  const int64_t blocks = num_blocks(p);
  auto* parts = scratch<SoftmaxPart>(Scratch::kParts, num_rows(p), blocks);
  auto* candidates = scratch<Candidate>(Scratch::kCandidates, num_rows(p), blocks * p.k);
  const char* panel = packed(p.h, p.norm.data, p.eps, p.num_threads);
  const int64_t work = num_rows(p) * p.h.width * kBlock;
  parallel_for(blocks, grain_for(blocks, work, 1, p.num_threads), p.num_threads,
               [&](int64_t begin, int64_t end) {
                 for (int64_t block = begin; block < end; ++block) {
                   block_parts(p, panel, block, parts, candidates);
                 }
               });
  combine(p, parts, candidates);
}

}  // namespace kangaroo

kangaroo_status kangaroo_topk_confidence(const kangaroo_topk_confidence_params* params) {
  return kangaroo::checked("topk_confidence", params);
}
