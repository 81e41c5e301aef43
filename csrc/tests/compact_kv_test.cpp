// compact_kv: rows of the path move, in all caches; everything else keeps its bits; bad paths write
// nothing.
#include "kangaroo/compact_kv.h"

#include "testing.h"

using testing::Floats;

namespace {

constexpr int64_t kBatch = 2;
constexpr int64_t kStride = 5;
const int32_t kSeqlens[kBatch] = {3, 0};

struct Cache {
  int64_t planes, heads, num_slots, width;
  Floats values = testing::noise(planes * kBatch * heads * num_slots * width, 1);

  int64_t at(int64_t plane, int64_t b, int64_t head, int64_t slot) const {
    return (((plane * kBatch + b) * heads + head) * num_slots + slot) * width;
  }
};

kangaroo_status run(Cache& a, Cache& b, const int64_t* path, const int32_t* path_len) {
  const kangaroo_slot_cache caches[] = {{a.values.data(), a.planes, a.heads, a.num_slots, a.width},
                                        {b.values.data(), b.planes, b.heads, b.num_slots, b.width}};
  kangaroo_compact_kv_params p = {};
  p.caches = caches;
  p.path = path;
  p.path_len = path_len;
  p.cache_seqlens = kSeqlens;
  p.num_caches = 2;
  p.batch = kBatch;
  p.path_stride = kStride;
  return kangaroo_compact_kv(&p);
}

void expect_compacted(const Cache& before, const Cache& after, const int64_t* path,
                      const int32_t* path_len) {
  for (int64_t plane = 0; plane < before.planes; ++plane) {
    for (int64_t b = 0; b < kBatch; ++b) {
      for (int64_t head = 0; head < before.heads; ++head) {
        for (int64_t slot = 0; slot < before.num_slots; ++slot) {
          const int64_t j = slot - kSeqlens[b];
          const bool kept = j >= 0 && j < path_len[b];
          const int64_t from = kept ? kSeqlens[b] + path[b * kStride + j] : slot;
          EXPECT(testing::same_bits(after.values.data() + after.at(plane, b, head, slot),
                                    before.values.data() + before.at(plane, b, head, from),
                                    before.width));
        }
      }
    }
  }
}

void check(const int64_t (&path)[kBatch * kStride], const int32_t (&path_len)[kBatch]) {
  const Cache before[] = {{4, 2, 16, 3}, {1, 1, 12, 8}};
  Cache a = before[0];
  Cache b = before[1];
  EXPECT(run(a, b, path, path_len) == KANGAROO_OK);
  expect_compacted(before[0], a, path, path_len);
  expect_compacted(before[1], b, path, path_len);
}

void check_refused(const int64_t (&path)[kBatch * kStride], const int32_t (&path_len)[kBatch]) {
  const Cache before[] = {{4, 2, 16, 3}, {1, 1, 12, 8}};
  Cache a = before[0];
  Cache b = before[1];
  EXPECT(run(a, b, path, path_len) == KANGAROO_INVALID_ARGUMENT);
  EXPECT(a.values == before[0].values);
  EXPECT(b.values == before[1].values);
}

}  // namespace

int main() {
  check({0, 2, 3, 6, -1, 0, 1, 2, 3, 4}, {4, 5});     // a branch; a chain, which stays where it is
  check({0, 4, 5, 7, 8, 3, 5, 7, 9, 11}, {5, 5});     // up to the last slot
  check({0, -1, -1, -1, -1, 9, 9, 9, 9, 9}, {1, 0});  // entries behind the path are not read
  check_refused({0, 2, 2, 3, 4, 0, 1, 2, 3, 4}, {5, 5});
  check_refused({0, 1, 2, 3, 4, -1, 1, 2, 3, 4}, {5, 5});
  check_refused({0, 1, 2, 3, 9, 0, 1, 2, 3, 4}, {5, 5});  // slot 12 of a cache of 12
  check_refused({0, 1, 2, 3, 4, 0, 1, 2, 3, 4}, {5, 6});
  return testing::result();
}
