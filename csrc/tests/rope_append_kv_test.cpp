// rope_append_kv against a double loop; only the nodes' slots are written, or nothing at all.
#include "kangaroo/rope_append_kv.h"

#include "exact.h"

using testing::Exact;
using testing::Exacts;
using testing::noise;
using testing::Tensor;

namespace {

constexpr int64_t kBatch = 2, kNodes = 3, kQHeads = 4, kKvHeads = 2, kSlots = 64, kPositions = 50;
constexpr int64_t kHeads = kQHeads + 2 * kKvHeads;
constexpr int32_t kSeqlens[kBatch] = {0, 59};

struct Case {
  kangaroo_dtype dtype;
  int64_t d;
  bool normed;
  bool slots_first;  // caches in the order [batch, slots, heads, head_dim]
  int32_t last_position;
};

struct State {
  explicit State(const Case& c)
      : qkv(noise(c.dtype, kBatch * kNodes * kHeads * c.d, 1)),
        table(noise(KANGAROO_FLOAT32, 2 * kPositions * (c.d / 2), 2)),
        q_norm(noise(c.dtype, c.d, 3)),
        k_norm(noise(c.dtype, c.d, 4)),
        q(c.dtype, kBatch * kNodes * kQHeads * c.d),
        k(c.dtype, kBatch * kKvHeads * kSlots * c.d),
        v(k) {}
  Tensor qkv, table, q_norm, k_norm, q, k, v;
};

kangaroo_kv kv_of(const Case& c, const State& s) {
  kangaroo_kv kv =
      kangaroo_kv_of(data_of(s.k), data_of(s.v), c.dtype, kBatch, kKvHeads, kSlots, c.d);
  if (c.slots_first) {
    kv.head_stride = c.d;
    kv.slot_stride = kKvHeads * c.d;
  }
  return kv;
}

kangaroo_status run(const Case& c, const State& s, const int32_t* positions, int64_t stride) {
  const auto* table = reinterpret_cast<const float*>(s.table.address());
  kangaroo_rope_append_kv_params p = {};
  p.qkv = states_of(s.qkv, kBatch, kNodes);
  p.q = kangaroo_heads_of(data_of(s.q), c.dtype, kBatch, kNodes, kQHeads, c.d);
  p.kv = kv_of(c, s);
  p.rope = {table, kPositions, c.d / 2};
  if (c.normed) {
    p.q_norm = vector_of(s.q_norm);
    p.k_norm = vector_of(s.k_norm);
  }
  p.nodes = {positions, kSeqlens, nullptr, kBatch, kNodes, stride, 2};
  p.eps = 1e-6f;
  p.num_threads = 2;
  return kangaroo_rope_append_kv(&p);
}

// Head `h` of row `row` as it should be kept: rotated, or a value as it came.
Exacts expected(const Case& c, const State& s, int64_t row, int64_t h, int64_t position) {
  const int64_t half = c.d / 2;
  const Tensor head = s.qkv.slice((row * kHeads + h) * c.d, c.d);
  if (h >= kQHeads + kKvHeads) return testing::exact(head);
  const Tensor& norm = h < kQHeads ? s.q_norm : s.k_norm;
  const Exacts x = c.normed ? testing::rms_norm(head, norm, 1e-6) : testing::exact(head);
  Exacts out(static_cast<std::size_t>(c.d));
  for (int64_t i = 0; i < half; ++i) {
    const Exact cos = {s.table.at(position * half + i), 0.0};
    const Exact sin = {s.table.at((kPositions + position) * half + i), 0.0};
    const Exact minus_sin = {-sin.value, 0.0};
    out[i] = sum(product(x[i], cos), product(x[half + i], minus_sin)).kept(c.dtype);
    out[half + i] = sum(product(x[half + i], cos), product(x[i], sin)).kept(c.dtype);
  }
  return out;
}

void check(const Case& c) {
  const State s(c);
  // Rows of positions stand one apart from each other.
  const int32_t positions[] = {0, 49, 7, -1, 7, 8, c.last_position};
  const bool refused = c.last_position >= kPositions;
  EXPECT(run(c, s, positions, 4) == (refused ? KANGAROO_INVALID_ARGUMENT : KANGAROO_OK));
  int64_t written = 0;
  for (int64_t i = 0; i < s.k.size(); ++i) {
    written += (std::isnan(s.k.at(i)) ? 0 : 1) + (std::isnan(s.v.at(i)) ? 0 : 1);
  }
  EXPECT(written == (refused ? 0 : 2 * kBatch * kNodes * kKvHeads * c.d));
  if (refused) return;
  const kangaroo_kv kv = kv_of(c, s);
  for (int64_t row = 0; row < kBatch * kNodes; ++row) {
    const int64_t b = row / kNodes;
    for (int64_t h = 0; h < kHeads; ++h) {
      const int64_t slot = kSeqlens[b] + 2 + row % kNodes;
      const int64_t at =
          b * kv.batch_stride + (h - kQHeads) % kKvHeads * kv.head_stride + slot * kv.slot_stride;
      const Tensor got = h < kQHeads              ? s.q.slice((row * kQHeads + h) * c.d, c.d)
                         : h < kQHeads + kKvHeads ? s.k.slice(at, c.d)
                                                  : s.v.slice(at, c.d);
      EXPECT(within(got, expected(c, s, row, h, positions[b * 4 + row % kNodes])));
    }
  }
}

}  // namespace

int main() {
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) {
      for (const int64_t d : {2, 6, 16, 36, 64}) {
        for (const bool slots_first : {false, true}) {
          check({dtype, d, false, slots_first, 3});
          check({dtype, d, true, slots_first, 3});
          check({dtype, d, false, slots_first, kPositions});
        }
      }
    }
  });
  return testing::result();
}
