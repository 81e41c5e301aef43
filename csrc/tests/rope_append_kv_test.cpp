// rope_append_kv against a double loop; only the nodes' slots are written, or nothing at all.
#include "kangaroo/rope_append_kv.h"

#include "testing.h"

using testing::Floats;
using testing::noise;

namespace {

constexpr int64_t kBatch = 2, kNodes = 3, kQHeads = 4, kKvHeads = 2, kSlots = 64, kPositions = 50;
constexpr int64_t kHeads = kQHeads + 2 * kKvHeads;

std::vector<double> rotated(const float* head, const Floats& rope, int64_t position, int64_t d) {
  const int64_t half = d / 2;
  std::vector<double> out(static_cast<std::size_t>(d));
  for (int64_t i = 0; i < half; ++i) {
    const double c = rope[position * half + i];
    const double s = rope[(kPositions + position) * half + i];
    out[i] = head[i] * c - head[half + i] * s;
    out[half + i] = head[half + i] * c + head[i] * s;
  }
  return out;
}

void check(int64_t d, bool normed, int32_t bad_position) {
  const Floats qkv = noise(kBatch * kNodes * kHeads * d, 1);
  const Floats rope = noise(2 * kPositions * (d / 2), 2);
  const Floats norm(static_cast<std::size_t>(d), 1.0f);
  const int32_t positions[kBatch * kNodes] = {0, 49, 7, 7, 8, bad_position};
  const int32_t seqlens[kBatch] = {0, 59};
  Floats q(static_cast<std::size_t>(kBatch * kNodes * kQHeads * d), NAN);
  Floats k(static_cast<std::size_t>(kBatch * kKvHeads * kSlots * d), NAN);
  Floats v = k;
  kangaroo_rope_append_kv_params p = {};
  p.qkv = qkv.data();
  p.q_out = q.data();
  p.k_cache = k.data();
  p.v_cache = v.data();
  p.rope = rope.data();
  p.q_norm = normed ? norm.data() : nullptr;
  p.k_norm = p.q_norm;
  p.positions = positions;
  p.cache_seqlens = seqlens;
  p.batch = kBatch;
  p.num_nodes = kNodes;
  p.q_heads = kQHeads;
  p.kv_heads = kKvHeads;
  p.head_dim = d;
  p.num_slots = kSlots;
  p.num_positions = kPositions;
  p.first_node = 2;
  p.num_threads = 2;
  const bool refused = bad_position >= kPositions;
  EXPECT(kangaroo_rope_append_kv(&p) == (refused ? KANGAROO_INVALID_ARGUMENT : KANGAROO_OK));

  int64_t written = 0;
  for (const float value : k) written += std::isnan(value) ? 0 : 1;
  EXPECT(written == (refused ? 0 : kBatch * kNodes * kKvHeads * d));
  for (int64_t row = 0; !refused && row < kBatch * kNodes; ++row) {
    for (int64_t h = 0; h < kHeads; ++h) {
      const float* head = qkv.data() + (row * kHeads + h) * d;
      Floats source(head, head + d);
      const bool is_value = h >= kQHeads + kKvHeads;
      if (normed && !is_value) {
        const auto unit = testing::naive_rms_norm(source, norm, 0.0, 1, d);
        source.assign(unit.begin(), unit.end());
      }
      const int64_t b = row / kNodes;
      const int64_t slot = seqlens[b] + 2 + row % kNodes;
      const int64_t at = ((b * kKvHeads + (h - kQHeads) % kKvHeads) * kSlots + slot) * d;
      const float* got =
          h < kQHeads ? q.data() + (row * kQHeads + h) * d : (is_value ? v.data() : k.data()) + at;
      if (is_value) {
        EXPECT(testing::same_bits(got, head, d));
      } else {
        const auto expected = rotated(source.data(), rope, positions[row], d);
        EXPECT(testing::error(Floats(got, got + d), expected) < 1e-6);
      }
    }
  }
}

}  // namespace

int main() {
  for (const int64_t d : {2, 6, 16, 36, 64}) {
    check(d, false, 3);
    check(d, true, 3);
    check(d, false, kPositions);
  }
  return testing::result();
}
