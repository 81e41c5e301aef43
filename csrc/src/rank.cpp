#include "rank.h"

#include <algorithm>
#include <limits>

#include "error.h"
#include "parallel.h"
#include "rows.h"

namespace kangaroo {
namespace {

using Params = kangaroo_topk_confidence_params;

// Logits are summed in blocks of this many tokens, at absolute multiples, and combined in order.
constexpr int64_t kBlock = 240;  // a multiple of every tile width of the GEMM
constexpr int64_t kTileRows = 16;
constexpr float kLowest = std::numeric_limits<float>::lowest();

struct Candidate {
  float logit;
  int64_t token;
};

int64_t num_ids(const Params& p) { return p.head.token_ids ? p.head.num_ids : p.head.vocab; }

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
void multiply(const Params& p, Gemm gemm, int64_t begin, int64_t count) {
  const int32_t* ids = p.head.token_ids;
  float* logits = gemm.out;
  for (int64_t done = 0; done < count;) {
    const int64_t first = ids ? ids[begin + done] : begin + done;
    int64_t next = done + 1;
    while (next < count && (!ids || ids[begin + next] == first + next - done)) ++next;
    gemm.weight = p.head.weight + first * p.width;
    gemm.out = logits + done;
    gemm.out_width = next - done;
    kernels().gemm(gemm);
    done = next;
  }
}

// Statistics and candidates of one block of the vocabulary, for all rows; logits live on the stack.
void block_parts(const Params& p, const float* rows, int64_t block, SoftmaxPart* parts,
                 Candidate* candidates) {
  const int64_t begin = block * kBlock;
  const int64_t count = std::min(kBlock, num_ids(p) - begin);
  alignas(64) float logits[kTileRows * kBlock];
  Gemm gemm = {};
  gemm.x_stride = p.width;
  gemm.out = logits;
  gemm.out_stride = kBlock;
  gemm.width = p.width;
  for (int64_t row = 0; row < p.num_rows; row += kTileRows) {
    gemm.x = rows + row * p.width;
    gemm.num_rows = std::min(kTileRows, p.num_rows - row);
    multiply(p, gemm, begin, count);
    for (int64_t r = 0; r < gemm.num_rows; ++r) {
      const int64_t place = (row + r) * num_blocks(p) + block;
      float* own = logits + r * kBlock;
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
}

void combine(const Params& p, const SoftmaxPart* parts, const Candidate* candidates) {
  const Kernels& k = kernels();
  for (int64_t row = 0; row < p.num_rows; ++row) {
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

kangaroo_status check_rank(const char* op, const Params& p) {
  const kangaroo_status status = check(op,
                                       {{"num_rows", p.num_rows},
                                        {"width", p.width},
                                        {"head.vocab", p.head.vocab - 1},
                                        {"head.num_ids", p.head.num_ids}},
                                       {{"h", p.h, p.num_rows * p.width},
                                        {"head.weight", p.head.weight, p.head.vocab * p.width},
                                        {"norm_weight", p.norm_weight, p.width},
                                        {"tokens", p.tokens, p.num_rows},
                                        {"confidence", p.confidence, p.num_rows}});
  if (status != KANGAROO_OK) return status;
  for (int64_t j = 0; p.head.token_ids && j < p.head.num_ids; ++j) {
    const int64_t before = j == 0 ? -1 : p.head.token_ids[j - 1];
    if (p.head.token_ids[j] <= before || p.head.token_ids[j] >= p.head.vocab) {
      return invalid("%s: head.token_ids: expected increasing ids below %lld, got %d behind %lld",
                     op, static_cast<long long>(p.head.vocab), p.head.token_ids[j],
                     static_cast<long long>(before));
    }
  }
  const int64_t most = std::min<int64_t>(KANGAROO_MAX_K, num_ids(p));
  if (p.k < 1 || p.k > most) {
    return invalid("%s: k: expected 1 to %lld, got %lld", op, static_cast<long long>(most),
                   static_cast<long long>(p.k));
  }
  return KANGAROO_OK;
}

void rank(const Params& p) {
  const float* rows = normalized(p.h, p.norm_weight, p.eps, p.num_rows, p.width, p.num_threads);
  const int64_t blocks = num_blocks(p);
  auto* parts = scratch<SoftmaxPart>(Scratch::kParts, p.num_rows * blocks);
  auto* candidates = scratch<Candidate>(Scratch::kCandidates, p.num_rows * blocks * p.k);
  const int64_t work = p.num_rows * p.width * kBlock;
  parallel_for(blocks, grain_for(blocks, work, 1, p.num_threads), p.num_threads,
               [&](int64_t begin, int64_t end) {
                 for (int64_t block = begin; block < end; ++block) {
                   block_parts(p, rows, block, parts, candidates);
                 }
               });
  combine(p, parts, candidates);
}

}  // namespace kangaroo
