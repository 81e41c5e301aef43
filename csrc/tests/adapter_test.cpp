// adapter_step is linear, rope_append_kv, tree_attention and linear; adapter_refresh the norms, a
// product and rope_append_kv: the same bits as those ops one by one, and nothing written on errors.
#include "exact.h"
#include "kangaroo/adapter_refresh.h"
#include "kangaroo/adapter_step.h"
#include "steps.h"

using testing::noise;
using testing::Place;
using testing::Spread;
using testing::Tensor;

namespace {

constexpr int64_t kBatch = 2, kWidth = 37, kQHeads = 4, kKvHeads = 2, kHeadDim = 10, kSlots = 64;
constexpr int64_t kNodes = 3, kRows = kBatch * kNodes;
constexpr int64_t kQWidth = kQHeads * kHeadDim, kKvWidth = kKvHeads * kHeadDim;
constexpr float kEps = 1e-5f;

struct State {
  explicit State(kangaroo_dtype type) : dtype(type) {}
  kangaroo_dtype dtype;
  Tensor h = noise(dtype, kRows* kWidth, 1), h_deep = noise(dtype, kRows* kWidth, 2);
  Tensor successor = noise(dtype, kRows* kWidth, 11), successor_norm = noise(dtype, kWidth, 12);
  Tensor norm = noise(dtype, kWidth, 3), deep_norm = noise(dtype, kWidth, 4);
  Tensor qkv = noise(dtype, (kQWidth + 2 * kKvWidth) * kWidth, 5);
  Tensor o = noise(dtype, kWidth* kQWidth, 6);
  Tensor deep_kv = noise(dtype, 2 * kKvWidth * 3 * kWidth, 7);
  Tensor k = noise(dtype, kBatch * kKvHeads * kSlots * kHeadDim, 8);
  Tensor v = noise(dtype, kBatch * kKvHeads * kSlots * kHeadDim, 9);
  Tensor table = noise(KANGAROO_FLOAT32, kSlots* kHeadDim, 10);
  std::vector<int32_t> positions = {20, 21, 22, 31, 32, 33}, seqlens = {19, 30};

  // The caches stand in the order [batch, slots, heads, head_dim].
  Place place() const {
    Place at = {};
    at.kv = kangaroo_kv_of(data_of(k), data_of(v), dtype, kBatch, kKvHeads, kSlots, kHeadDim);
    at.kv.head_stride = kHeadDim;
    at.kv.slot_stride = kKvWidth;
    at.rope = {reinterpret_cast<const float*>(table.address()), kSlots, kHeadDim / 2};
    at.nodes = {positions.data(), seqlens.data(), nullptr, kBatch, kNodes, kNodes, 1};
    at.eps = kEps;
    return at;
  }
  bool same_cache(const State& other) const { return k == other.k && v == other.v; }
};

Tensor step_by_ops(const State& s) {
  const Place at = s.place();
  const Tensor qkv = linear(at, s.h, s.qkv, {&s.norm, nullptr, nullptr});
  const Tensor heads = attend(at, append(at, qkv, kQHeads, nullptr, nullptr));
  return linear(at, heads, s.o, {nullptr, nullptr, &s.h});
}

kangaroo_adapter_step_params step_params(const State& s, const kangaroo_states& h,
                                         const kangaroo_states& out, int32_t threads) {
  const Place at = s.place();
  kangaroo_adapter_step_params p = {};
  p.h = h;
  p.input_norm = vector_of(s.norm);
  p.qkv = matrix_of(s.qkv, kQWidth + 2 * kKvWidth);
  p.o = matrix_of(s.o, kWidth);
  p.kv = at.kv;
  p.rope = at.rope;
  p.nodes = at.nodes;
  p.out = out;
  p.eps = kEps;
  p.num_threads = threads;
  return p;
}

void test_step(kangaroo_dtype dtype) {
  const State by_ops(dtype);
  const Tensor expected = step_by_ops(by_ops);
  for (const int32_t threads : {1, 3}) {
    const State s(dtype);
    const Spread h = testing::spread(s.h, kBatch, kNodes);
    const Spread out = testing::spread(Tensor(dtype, kRows * kWidth), kBatch, kNodes);
    const kangaroo_adapter_step_params p = step_params(s, h.view, out.view, threads);
    EXPECT(kangaroo_adapter_step(&p) == KANGAROO_OK);
    EXPECT(holds(out, expected));
    EXPECT(s.same_cache(by_ops));
  }
}

void test_refusals_write_nothing(kangaroo_dtype dtype) {
  State s(dtype);
  const State before(dtype);
  const Tensor out(dtype, kRows * kWidth);
  const auto valid =
      step_params(s, states_of(s.h, kBatch, kNodes), states_of(out, kBatch, kNodes), 1);
  kangaroo_adapter_step_params p = valid;
  p.o.width = p.o.row_stride = 3 * kHeadDim;  // 3 query heads, 2 key heads
  p.qkv.rows = 3 * kHeadDim + 2 * kKvWidth;
  EXPECT(kangaroo_adapter_step(&p) == KANGAROO_INVALID_ARGUMENT);
  p = valid;
  p.kv.slots = 40;  // no whole chunks
  EXPECT(kangaroo_adapter_step(&p) == KANGAROO_INVALID_ARGUMENT);
  s.positions[4] = static_cast<int32_t>(kSlots);
  EXPECT(kangaroo_adapter_step(&valid) == KANGAROO_INVALID_ARGUMENT);
  EXPECT(s.same_cache(before));
  EXPECT(out == Tensor(dtype, kRows * kWidth));
}

void test_refresh(kangaroo_dtype dtype) {
  const State by_ops(dtype);
  const Tensor x = testing::normed(by_ops.h, by_ops.norm, kEps);
  const Tensor y = testing::normed(by_ops.h_deep, by_ops.deep_norm, kEps);
  const Tensor z = testing::normed(by_ops.successor, by_ops.successor_norm, kEps);
  Tensor rows(dtype, 3 * kRows * kWidth);
  for (int64_t row = 0; row < kRows; ++row) {
    rows.put(3 * row * kWidth, x, row * kWidth, kWidth);
    rows.put((3 * row + 1) * kWidth, y, row * kWidth, kWidth);
    rows.put((3 * row + 2) * kWidth, z, row * kWidth, kWidth);
  }
  append(by_ops.place(), linear(by_ops.place(), rows, by_ops.deep_kv, {}), 0, nullptr, nullptr);
  for (const int32_t threads : {1, 3}) {
    const State s(dtype);
    const Place at = s.place();
    const Spread deep = testing::spread(s.h_deep, kBatch, kNodes);
    kangaroo_adapter_refresh_params p = {};
    p.h = states_of(s.h, kBatch, kNodes);
    p.h_deep = deep.view;
    p.successor = states_of(s.successor, kBatch, kNodes);
    p.input_norm = vector_of(s.norm);
    p.deep_norm = vector_of(s.deep_norm);
    p.successor_norm = vector_of(s.successor_norm);
    p.deep_kv = matrix_of(s.deep_kv, 2 * kKvWidth);
    p.kv = at.kv;
    p.rope = at.rope;
    p.nodes = at.nodes;
    p.eps = kEps;
    p.num_threads = threads;
    EXPECT(kangaroo_adapter_refresh(&p) == KANGAROO_OK);
    EXPECT(s.same_cache(by_ops));
  }
}

}  // namespace

int main() {
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) {
      test_step(dtype);
      test_refusals_write_nothing(dtype);
      test_refresh(dtype);
    }
  });
  return testing::result();
}
