// compact_kv: rows of the path move, in all caches; everything else keeps its bits; bad paths write
// nothing.
#include "kangaroo/compact_kv.h"

#include "testing.h"

using testing::Tensor;

namespace {

constexpr int64_t kBatch = 2;
constexpr int64_t kStride = 5;
constexpr int32_t kSeqlens[kBatch] = {3, 0};

using Path = int64_t[kBatch * kStride];
using Lengths = int32_t[kBatch];

struct Cache {
  kangaroo_dtype dtype;
  int64_t planes, heads, slots, width;
  bool slots_first;  // [planes, batch, slots, heads, width]
  Tensor values = testing::noise(dtype, planes * kBatch * heads * slots * width, 1);

  kangaroo_slot_cache view() const {
    const int64_t plane = heads * slots * width;
    return {data_of(values),
            dtype,
            planes,
            heads,
            slots,
            width,
            kBatch * plane,
            plane,
            slots_first ? width : slots * width,
            slots_first ? heads * width : width};
  }
};

kangaroo_status run(const Cache& a, const Cache& b, const Path& path, const Lengths& lengths) {
  const kangaroo_slot_cache caches[] = {a.view(), b.view()};
  kangaroo_compact_kv_params p = {};
  p.caches = caches;
  p.path = path;
  p.path_len = lengths;
  p.cache_seqlens = kSeqlens;
  p.num_caches = 2;
  p.batch = kBatch;
  p.path_stride = kStride;
  return kangaroo_compact_kv(&p);
}

void expect_compacted(const Cache& before, const Cache& after, const Path& path,
                      const Lengths& lengths) {
  const kangaroo_slot_cache view = before.view();
  Tensor expected = before.values;
  for (int64_t row = 0; row < before.planes * kBatch * before.heads; ++row) {
    const int64_t b = row / before.heads % kBatch;
    const int64_t first = row / before.heads / kBatch * view.plane_stride + b * view.batch_stride +
                          row % before.heads * view.head_stride;
    for (int64_t j = 0; j < lengths[b]; ++j) {
      expected.put(first + (kSeqlens[b] + j) * view.slot_stride, before.values,
                   first + (kSeqlens[b] + path[b * kStride + j]) * view.slot_stride, before.width);
    }
  }
  EXPECT(after.values == expected);
}

void check(const Path& path, const Lengths& lengths, bool refused = false) {
  for (const kangaroo_dtype dtype : testing::kDtypes) {
    const Cache before[] = {{dtype, 4, 2, 16, 3, true}, {KANGAROO_FLOAT32, 1, 1, 12, 8, false}};
    const Cache a = before[0];
    const Cache b = before[1];
    const kangaroo_status status = run(a, b, path, lengths);
    EXPECT(status == (refused ? KANGAROO_INVALID_ARGUMENT : KANGAROO_OK));
    const Lengths none = {0, 0};
    expect_compacted(before[0], a, path, refused ? none : lengths);
    expect_compacted(before[1], b, path, refused ? none : lengths);
  }
}

void check_refused(const Path& path, const Lengths& lengths) { check(path, lengths, true); }

}  // namespace

int main() {
  check({0, 2, 3, 6, -1, 0, 1, 2, 3, 4}, {4, 5});     // a branch; a chain, which stays where it is
  check({0, 4, 5, 7, 8, 3, 5, 7, 9, 11}, {5, 5});     // up to the last slot
  check({0, -1, -1, -1, -1, 9, 9, 9, 9, 9}, {1, 0});  // entries behind the path are not read
  check_refused({0, 2, 2, 3, 4, 0, 1, 2, 3, 4}, {5, 5});
  check_refused({0, 1, 2, 3, 4, -1, 1, 2, 3, 4}, {5, 5});
  check_refused({0, 1, 2, 3, 9, 0, 1, 2, 3, 4}, {5, 5});  // slot 12 of a cache of 12
  check_refused({0, 1, 2, 3, 4, 0, 1, 2, 3, 4}, {5, 6});
  check_refused({INT64_MAX, 1, 2, 3, 4, 0, 1, 2, 3, 4}, {5, 5});
  return testing::result();
}
