// tree_attention against a double loop, for chains and trees; slots out of sight hold NaN; a node
// alone, with the later ones unwritten, has the bits that it has among them.
#include "kangaroo/tree_attention.h"

#include "exact.h"

using testing::Exact;
using testing::Exacts;
using testing::noise;
using testing::Tensor;

namespace {

constexpr int64_t kBatch = 2, kSlots = 192, kKvHeads = 2, kGroup = 3, kQHeads = kKvHeads * kGroup;
constexpr double kScale = 0.25;  // a power of two: scaling the queries rounds nothing

struct Case {
  kangaroo_dtype dtype;
  int64_t head_dim, num_nodes;
  int32_t committed;  // of sequence 0; sequence 1 has half of it
  bool tree;
  bool slots_first;  // caches in the order [batch, slots, heads, head_dim]

  int32_t seqlen(int64_t b) const { return b ? committed / 2 : committed; }
  // Every second node hangs on the root alone, the others see all even ones before them.
  int64_t ancestors(int64_t node) const {
    const uint64_t self = uint64_t{1} << node;
    return static_cast<int64_t>(node % 2 ? self | 1 : self | (0x5555555555555555 & (self - 1)));
  }
  bool sees(int64_t b, int64_t node, int64_t slot) const {
    const int64_t other = slot - seqlen(b);
    if (other < 0) return true;
    return tree ? other < 64 && ((ancestors(node) >> other) & 1) : other <= node;
  }
};

struct Inputs : Case {
  explicit Inputs(const Case& c) : Case(c) {}
  int64_t row_width = kQHeads * head_dim;
  Tensor q = noise(dtype, kBatch * num_nodes * row_width, 1);
  Tensor k = noise(dtype, kBatch * kKvHeads * kSlots * head_dim, 2, 0.5f);
  Tensor v = noise(dtype, kBatch * kKvHeads * kSlots * head_dim, 3);

  int64_t head_stride() const { return slots_first ? head_dim : kSlots * head_dim; }
  int64_t slot_stride() const { return slots_first ? kKvHeads * head_dim : head_dim; }
  int64_t place(int64_t b, int64_t head, int64_t slot) const {
    return b * kKvHeads * kSlots * head_dim + head * head_stride() + slot * slot_stride();
  }
  void hide_after(int64_t node) {
    const Tensor hidden(dtype, head_dim, NAN);
    for (int64_t row = 0; row < kBatch * kKvHeads * kSlots; ++row) {
      const int64_t b = row / (kKvHeads * kSlots), slot = row % kSlots;
      if (slot <= seqlen(b) + node) continue;
      k.put(place(b, row / kSlots % kKvHeads, slot), hidden, 0, head_dim);
      v.put(place(b, row / kSlots % kKvHeads, slot), hidden, 0, head_dim);
    }
  }
};

// Nodes [first, first + count) of every sequence; heads stand two values further apart than they
// need to where `apart`, in queries and results.
Tensor run(const Inputs& in, int64_t first, int64_t count, int32_t threads, bool apart = false) {
  const int64_t d = in.head_dim, pitch = apart ? d + 2 : d;
  Tensor q(in.dtype, kBatch * count * kQHeads * pitch);
  const Tensor untouched = q;
  Tensor out = q;
  std::vector<int64_t> ancestors;
  const auto each_head = [&](auto body) {
    for (int64_t i = 0; i < kBatch * count * kQHeads; ++i) {
      const int64_t b = i / kQHeads / count, node = first + i / kQHeads % count;
      body(i, (b * in.num_nodes + node) * in.row_width + i % kQHeads * d);
    }
  };
  each_head([&](int64_t i, int64_t from) { q.put(i * pitch, in.q, from, d); });
  for (int64_t i = 0; i < kBatch * count; ++i) ancestors.push_back(in.ancestors(first + i % count));
  const int32_t seqlens[kBatch] = {in.seqlen(0), in.seqlen(1)};
  kangaroo_tree_attention_params p = {};
  p.q = kangaroo_heads_of(q.address(), in.dtype, kBatch, count, kQHeads, pitch);
  p.q.head_dim = d;
  p.kv = kangaroo_kv_of(data_of(in.k), data_of(in.v), in.dtype, kBatch, kKvHeads, kSlots, d);
  p.kv.head_stride = in.head_stride();
  p.kv.slot_stride = in.slot_stride();
  p.out = p.q;
  p.out.data = out.address();
  p.nodes = {nullptr, seqlens, in.tree ? ancestors.data() : nullptr, kBatch, count, 0, first};
  p.scale = static_cast<float>(kScale);
  p.num_threads = threads;
  EXPECT(kangaroo_tree_attention(&p) == KANGAROO_OK);
  Tensor heads(in.dtype, kBatch * count * in.row_width);
  for (int64_t i = 0; i < kBatch * count * kQHeads; ++i) heads.put(i * d, out, i * pitch, d);
  for (int64_t i = 0; i < kBatch * count * kQHeads; ++i) out.put(i * pitch, untouched, 0, d);
  EXPECT(out == untouched);
  return heads;
}

// Scores are products over head_dim, and exp turns their absolute errors into relative ones of the
// weights; e^x itself is right within 2 ulp, subtracting the largest score rounds once, and every
// chunk of slots scales what came before it. Weights and weighted values are added slot by slot
// (by AMX with 16 bits of a weight, right within 2^-17), and the quotient has the errors of both
// sums.
void attend(const Inputs& in, int64_t b, int64_t node, int64_t head, Exact* out) {
  const int64_t d = in.head_dim, from = (b * in.num_nodes + node) * in.row_width + head * d;
  std::vector<double> scores(static_cast<std::size_t>(kSlots), -INFINITY);
  double largest = 0.0, score_error = 0.0, total = 0.0;
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    if (!in.sees(b, node, slot)) continue;
    const int64_t at = in.place(b, head / kGroup, slot);
    double score = 0.0, magnitude = 0.0;
    for (int64_t i = 0; i < d; ++i) {
      const double term = kScale * in.q.at(from + i) * in.k.at(at + i);
      score += term;
      magnitude += std::fabs(term);
    }
    scores[slot] = score;
    largest = std::fmax(largest, std::fabs(score));
    score_error = std::fmax(score_error, testing::accumulation(d) * magnitude);
  }
  std::vector<double> magnitudes(static_cast<std::size_t>(d));
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    const double weight = std::exp(scores[slot]);
    if (weight == 0.0) continue;
    total += weight;
    const int64_t at = in.place(b, head / kGroup, slot);
    for (int64_t i = 0; i < d; ++i) {
      out[i].value += weight * in.v.at(at + i);
      magnitudes[i] += weight * std::fabs(in.v.at(at + i));
    }
  }
  const double e = testing::kFloatHalfUlp;
  const double weight_error = std::expm1(2 * score_error + 2 * largest * e) + (kSlots + 24) * e;
  for (int64_t i = 0; i < d; ++i) {
    out[i].value /= total;
    out[i].error = 2 * weight_error * magnitudes[i] / total;
    out[i] = out[i].kept(in.dtype);
  }
}

Exacts expected(const Inputs& in) {
  Exacts out(static_cast<std::size_t>(in.q.size()));
  for (int64_t i = 0; i < kBatch * in.num_nodes * kQHeads; ++i) {
    const int64_t b = i / kQHeads / in.num_nodes, node = i / kQHeads % in.num_nodes;
    attend(in, b, node, i % kQHeads, out.data() + i * in.head_dim);
  }
  return out;
}

void check(const Case& c) {
  Inputs all(c);
  all.hide_after(c.num_nodes - 1);
  const Exacts reference = expected(all);
  testing::for_each_isa([&] {
    Inputs in = all;
    const Tensor out = run(in, 0, c.num_nodes, 1);
    EXPECT(within(out, reference));
    EXPECT(out == run(in, 0, c.num_nodes, 3));
    EXPECT(out == run(in, 0, c.num_nodes, 2, true));
    for (int64_t node = c.num_nodes - 1; node >= 0; node -= node > 8 ? 5 : 1) {
      in.hide_after(node);
      const Tensor alone = run(in, node, 1, 2);
      for (int64_t b = 0; b < kBatch; ++b) {
        EXPECT(alone.slice(b * in.row_width, in.row_width) ==
               out.slice((b * c.num_nodes + node) * in.row_width, in.row_width));
      }
    }
  });
}

// Ancestors are one bit each: what has no bit is refused.
void large_trees() {
  constexpr int64_t kNodes = 65;
  std::vector<float> rows(kNodes * 4), cache(128 * 4);
  std::vector<int64_t> ancestors(kNodes, 1);
  const int32_t seqlen = 3;
  kangaroo_tree_attention_params p = {};
  p.q = {rows.data(), KANGAROO_FLOAT32, 1, kNodes, 1, 4, kNodes * 4, 4, 4};
  p.out = p.q;
  p.kv = {cache.data(), cache.data(), KANGAROO_FLOAT32, 1, 1, 128, 4, 128 * 4, 128 * 4, 4};
  p.nodes = {nullptr, &seqlen, ancestors.data(), 1, kNodes, 0, 0};
  p.scale = 1.0f;
  p.num_threads = 1;
  EXPECT(kangaroo_tree_attention(&p) == KANGAROO_INVALID_ARGUMENT);
  EXPECT(std::strstr(kangaroo_last_error(), "nodes of a tree: expected 0 to 64, got 65"));
}

}  // namespace

int main() {
  bool slots_first = false;
  for (const kangaroo_dtype dtype : testing::kDtypes) {
    for (const bool tree : {false, true}) {
      for (const int32_t committed : {0, 1, 63, 64, 100, 128}) {
        for (const int64_t num_nodes : {1, 2, 7, 64}) {
          slots_first = !slots_first;
          check({dtype, num_nodes % 7 ? 6 : 36, num_nodes, committed, tree, slots_first});
        }
      }
      for (const int64_t head_dim : {8, 32, 64, 128, 256}) {
        slots_first = !slots_first;
        check({dtype, head_dim, 5, 100, tree, slots_first});
      }
    }
  }
  large_trees();
  return testing::result();
}
