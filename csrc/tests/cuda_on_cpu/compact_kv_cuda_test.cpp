// compact_kv on the emulator: rows of the path move, in all caches; everything else keeps its bits;
// paths and lengths that lie move less, and touch nothing outside.
#include "arrays.h"
#include "kangaroo/cuda.h"

using testing::Array;
using testing::noise;

namespace {

constexpr int64_t kBatch = 2;
constexpr int64_t kStride = 5;

struct Cache {
  kangaroo_dtype dtype;
  int64_t planes, heads, slots, width;
  int64_t gap;  // elements behind every slot, head, sequence and plane
  Array values;

  Cache(kangaroo_dtype type, int64_t a, int64_t h, int64_t s, int64_t w, int64_t gaps = 0,
        int64_t offset = 0)
      : dtype(type),
        planes(a),
        heads(h),
        slots(s),
        width(w),
        gap(gaps),
        values(type, noise(view().plane_stride * a, 1), offset) {}

  kangaroo_slot_cache view() const {
    const int64_t slot = width + gap;
    const int64_t head = slot * slots + gap;
    const int64_t sequence = head * heads + gap;
    return {nullptr,  dtype, planes, heads, slots, width, sequence * kBatch + gap,
            sequence, head,  slot};
  }
  int64_t at(int64_t plane, int64_t b, int64_t head, int64_t slot) const {
    const kangaroo_slot_cache v = view();
    return plane * v.plane_stride + b * v.batch_stride + head * v.head_stride +
           slot * v.slot_stride;
  }
};

struct Paths {
  std::vector<int64_t> path;
  std::vector<int32_t> path_len;
  std::vector<int32_t> seqlens;
};

kangaroo_status run(std::vector<Cache>& caches, const Paths& paths) {
  std::vector<kangaroo_slot_cache> views;
  for (Cache& cache : caches) {
    views.push_back(cache.view());
    views.back().data = cache.values.data();
  }
  kangaroo_compact_kv_params p = {};
  p.caches = views.data();
  p.path = paths.path.data();
  p.path_len = paths.path_len.data();
  p.cache_seqlens = paths.seqlens.data();
  p.num_caches = static_cast<int64_t>(views.size());
  p.batch = kBatch;
  p.path_stride = kStride;
  const kangaroo_status status = kangaroo_compact_kv_cuda(&p, nullptr);
  cuda_on_cpu::synchronize();
  return status;
}

// Every element is where the path says, or where it was.
void expect_compacted(const Cache& before, const Cache& after, const Paths& paths) {
  Array expected = before.values;
  if (before.slots == 0) return;
  for (int64_t plane = 0; plane < before.planes; ++plane) {
    for (int64_t b = 0; b < kBatch; ++b) {
      for (int64_t head = 0; head < before.heads; ++head) {
        for (int64_t j = 0; j < paths.path_len[b]; ++j) {
          const int64_t to = before.at(plane, b, head, paths.seqlens[b] + j);
          const int64_t from =
              before.at(plane, b, head, paths.seqlens[b] + paths.path[b * kStride + j]);
          for (int64_t w = 0; w < before.width; ++w) {
            expected.set(to + w, before.values[from + w]);
          }
        }
      }
    }
  }
  EXPECT(after.values == expected);
}

std::vector<Cache> various() {
  return {{KANGAROO_BFLOAT16, 4, 2, 16, 64},     {KANGAROO_FLOAT32, 2, 3, 12, 4},
          {KANGAROO_BFLOAT16, 1, 1, 12, 12},     {KANGAROO_FLOAT16, 1, 2, 12, 6},
          {KANGAROO_FLOAT16, 3, 1, 13, 7},       {KANGAROO_FLOAT32, 1, 1, 12, 301},
          {KANGAROO_BFLOAT16, 2, 2, 14, 8, 8},   {KANGAROO_BFLOAT16, 2, 2, 14, 8, 3},
          {KANGAROO_FLOAT32, 1, 2, 12, 8, 0, 1}, {KANGAROO_FLOAT32, 0, 2, 12, 8},
          {KANGAROO_FLOAT32, 1, 2, 0, 8}};
}

void check(const Paths& paths) {
  const std::vector<Cache> before = various();
  std::vector<Cache> after = before;
  EXPECT(run(after, paths) == KANGAROO_OK);
  for (std::size_t c = 0; c < before.size(); ++c) expect_compacted(before[c], after[c], paths);
}

// Whatever lies: only columns of slots from cache_seqlens on may differ, and all were slots.
void check_lies(const Paths& paths, bool moves) {
  const std::vector<Cache> before = various();
  std::vector<Cache> after = before;
  EXPECT(run(after, paths) == KANGAROO_OK);
  for (std::size_t c = 0; c < before.size(); ++c) {
    if (!moves) EXPECT(after[c].values == before[c].values);
  }
}

void check_many_caches() {
  std::vector<Cache> before;
  for (int c = 0; c < 35; ++c) before.emplace_back(KANGAROO_BFLOAT16, 1, 1, 12, 8 + c % 3);
  std::vector<Cache> after = before;
  const Paths paths = {{0, 2, 3, 6, -1, 1, 2, 3, 4, 5}, {4, 5}, {3, 0}};
  const int launches = cuda_on_cpu::num_launches();
  EXPECT(run(after, paths) == KANGAROO_OK);
  EXPECT(cuda_on_cpu::num_launches() == launches + 3);
  for (std::size_t c = 0; c < before.size(); ++c) expect_compacted(before[c], after[c], paths);
}

void check_refusals() {
  EXPECT_REFUSED(kangaroo_compact_kv_cuda(nullptr, nullptr), "compact_kv: params");
  float value = 0.0f;
  int64_t path = 0;
  int32_t length = 0;
  kangaroo_slot_cache cache = {&value, KANGAROO_FLOAT32, 1, 1, 1, 1, 1, 1, 1, 1};
  kangaroo_compact_kv_params p = {&cache, &path, &length, &length, 1, 1, 1};
  EXPECT(kangaroo_compact_kv_cuda(&p, nullptr) == KANGAROO_OK);
  cuda_on_cpu::synchronize();
  p.path_len = nullptr;
  EXPECT_REFUSED(kangaroo_compact_kv_cuda(&p, nullptr), "compact_kv: path_len");
  p.path_len = &length;
  p.batch = -1;
  EXPECT_REFUSED(kangaroo_compact_kv_cuda(&p, nullptr), "compact_kv: path");
  p.batch = 1;
  cache.slots = 2;
  cache.slot_stride = 0;
  EXPECT_REFUSED(kangaroo_compact_kv_cuda(&p, nullptr), "rows that do not overlap");
  cache.dtype = static_cast<kangaroo_dtype>(3);
  EXPECT_REFUSED(kangaroo_compact_kv_cuda(&p, nullptr), "compact_kv: caches.dtype");
}

}  // namespace

int main() {
  constexpr int64_t kFar = int64_t{1} << 40;
  check({{0, 2, 3, 6, -1, 0, 1, 2, 3, 4}, {4, 5}, {3, 0}});     // a branch; a chain stays
  check({{0, 4, 5, 7, 8, 3, 5, 7, 9, 11}, {5, 5}, {3, 0}});     // up to the last slot
  check({{0, -1, -1, -1, -1, 9, 9, 9, 9, 9}, {1, 0}, {3, 0}});  // behind the path: not read
  check_lies({{0, 1, 2, 3, 4, -9, -kFar, 0, kFar, INT64_MAX}, {5, 5}, {3, 0}}, false);
  check_lies({{1, 2, 3, 4, 5, 1, 2, 3, 4, 5}, {5, 5}, {-1, 1 << 30}}, false);
  check_lies({{1, 2, 3, 4, 5, 1, 2, 3, 4, 5}, {-1, INT32_MIN}, {0, 0}}, false);
  check_lies({{1, 2, 3, 4, 5, 1, 2, 3, 4, 5}, {6, INT32_MAX}, {0, 10}}, true);
  check_lies({{9, 8, 7, 6, 5, 11, 11, 2, 2, 11}, {5, 5}, {0, 0}}, true);
  check_many_caches();
  check_refusals();
  return testing::result();
}
