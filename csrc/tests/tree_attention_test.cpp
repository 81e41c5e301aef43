// tree_attention against a double loop, for chains and trees; slots out of sight hold NaN; a node
// alone, with the later ones unwritten, has the bits that it has among them.
#include "kangaroo/tree_attention.h"

#include "testing.h"

using testing::Floats;
using testing::noise;

namespace {

constexpr int64_t kSlots = 192, kKvHeads = 2, kGroup = 3, kQHeads = kKvHeads * kGroup;

struct Inputs {
  int64_t head_dim, num_nodes;
  int32_t committed;
  bool tree;
  Floats q = noise(num_nodes * kQHeads * head_dim, 1);
  Floats k = noise(kKvHeads * kSlots * head_dim, 2);
  Floats v = noise(kKvHeads * kSlots * head_dim, 3);

  // Every second node hangs on the root alone, the others see all even ones before them.
  int64_t ancestors(int64_t node) const {
    const int64_t self = int64_t{1} << node;
    return node % 2 ? self | 1 : self | (0x5555555555555555 & (self - 1));
  }
  bool sees(int64_t node, int64_t slot) const {
    const int64_t other = slot - committed;
    if (other < 0) return true;
    return tree ? other < 64 && ((ancestors(node) >> other) & 1) : other <= node;
  }
  void hide_after(int64_t node) {
    for (int64_t row = 0; row < kKvHeads * kSlots; ++row) {
      if (row % kSlots <= committed + node) continue;
      for (int64_t i = 0; i < head_dim; ++i) k[row * head_dim + i] = v[row * head_dim + i] = NAN;
    }
  }
};

Floats run(const Inputs& in, int64_t first, int64_t count, int32_t threads) {
  Floats out(static_cast<std::size_t>(count * kQHeads * in.head_dim), NAN);
  std::vector<int64_t> ancestors;
  for (int64_t i = 0; i < count; ++i) ancestors.push_back(in.ancestors(first + i));
  kangaroo_tree_attention_params p = {};
  p.q = in.q.data() + first * kQHeads * in.head_dim;
  p.k_cache = in.k.data();
  p.v_cache = in.v.data();
  p.out = out.data();
  p.cache_seqlens = &in.committed;
  p.ancestors = in.tree ? ancestors.data() : nullptr;
  p.batch = 1;
  p.num_nodes = count;
  p.q_heads = kQHeads;
  p.kv_heads = kKvHeads;
  p.head_dim = in.head_dim;
  p.num_slots = kSlots;
  p.first_node = first;
  p.scale = 0.3f;
  p.num_threads = threads;
  EXPECT(kangaroo_tree_attention(&p) == KANGAROO_OK);
  return out;
}

std::vector<double> naive(const Inputs& in) {
  const int64_t d = in.head_dim;
  std::vector<double> out(in.q.size());
  for (int64_t row = 0; row < in.num_nodes * kQHeads; ++row) {
    const int64_t first_slot = row % kQHeads / kGroup * kSlots;
    double total = 0.0;
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      if (!in.sees(row / kQHeads, slot)) continue;
      double score = 0.0;
      for (int64_t i = 0; i < d; ++i) {
        score += double{in.q[row * d + i]} * in.k[(first_slot + slot) * d + i];
      }
      const double weight = std::exp(0.3 * score);
      total += weight;
      for (int64_t i = 0; i < d; ++i) {
        out[row * d + i] += weight * in.v[(first_slot + slot) * d + i];
      }
    }
    for (int64_t i = 0; i < d; ++i) out[row * d + i] /= total;
  }
  return out;
}

void check(int64_t head_dim, int64_t num_nodes, int32_t committed, bool tree) {
  Inputs in = {head_dim, num_nodes, committed, tree};
  in.hide_after(num_nodes - 1);
  const Floats out = run(in, 0, num_nodes, 1);
  EXPECT(testing::error(out, naive(in)) < 2e-6);
  EXPECT(out == run(in, 0, num_nodes, 3));
  for (int64_t node = num_nodes - 1; node >= 0; --node) {
    in.hide_after(node);
    const Floats alone = run(in, node, 1, 2);
    const int64_t width = kQHeads * head_dim;
    EXPECT(testing::same_bits(alone.data(), out.data() + node * width, width));
  }
}

}  // namespace

int main() {
  for (const int64_t head_dim : {6, 8, 32, 36, 64, 128, 256}) {
    for (const int32_t committed : {0, 1, 63, 64, 100, 128}) {
      for (const int64_t num_nodes : {1, 2, 7, 40, 64}) {
        check(head_dim, num_nodes, committed, false);
        check(head_dim, num_nodes, committed, true);
      }
    }
  }
  return testing::result();
}
