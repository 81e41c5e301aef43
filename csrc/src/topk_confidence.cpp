#include "kangaroo/topk_confidence.h"

#include <algorithm>
#include <limits>

#include "draft_head.h"
#include "ops.h"
#include "parallel.h"
#include "scratch.h"
#include "stages.h"

namespace kangaroo {
namespace {

using Params = kangaroo_topk_confidence_params;

constexpr float kLowest = std::numeric_limits<float>::lowest();

struct Candidate {
  float logit;
  int64_t token;
};

int64_t num_rows(const Params& p) { return p.h.batch * p.h.nodes; }

int64_t num_blocks(const Params& p) { return (num_ids(p.head) + kHeadBlock - 1) / kHeadBlock; }

// Keeps the k best of what was inserted, sorted; the earlier of two equals stands first.
void insert(Candidate candidate, int64_t k, Candidate* best) {
  if (!(candidate.logit > best[k - 1].logit)) return;
  int64_t at = k - 1;
  for (; at > 0 && candidate.logit > best[at - 1].logit; --at) best[at] = best[at - 1];
  best[at] = candidate;
}

// Statistics and candidates of one block of the vocabulary, for all rows; the logits stay in this
// thread's cache.
void block_parts(const Params& p, const char* panel, int64_t block, SoftmaxPart* parts,
                 Candidate* candidates) {
  const int64_t begin = block * kHeadBlock;
  const int64_t count = std::min(kHeadBlock, num_ids(p.head) - begin);
  float* const logits = scratch<float>(Scratch::kTile, num_rows(p), kHeadBlock);
  const Rows rows = rows_of(logits, num_rows(p), 0, kHeadBlock, KANGAROO_FLOAT32);
  head_logits(p.head, p.h, panel, begin, count, rows);
  for (int64_t row = 0; row < num_rows(p); ++row) {
    const int64_t place = row * num_blocks(p) + block;
    float* own = logits + row * kHeadBlock;
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
  check_head(c, p.h, p.head, p.norm);
  if (!c.ok()) return;
  c.within("k", p.k, 1, std::min<int64_t>(KANGAROO_MAX_K, num_ids(p.head)));
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
  const char* panel = packed_for(p.head, p.h, p.norm, p.eps, p.num_threads);
  const int64_t work = num_rows(p) * p.h.width * kHeadBlock;
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
