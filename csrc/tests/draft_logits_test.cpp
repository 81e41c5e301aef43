// draft_logits against a double loop, of all tokens and of some, of heads in int8 too; the same
// bits for every number of rows and threads, and for rows apart.
#include "kangaroo/draft_logits.h"

#include "heads.h"

using testing::Exacts;
using testing::Head;
using testing::noise;
using testing::Tensor;

namespace {

constexpr float kEps = 1e-5f;

Tensor run(const kangaroo_states& h, const Head& head, const std::vector<int32_t>& ids,
           const Tensor& norm, int32_t threads) {
  const auto count = ids.empty() ? head.vocab : static_cast<int64_t>(ids.size());
  const Tensor out(KANGAROO_FLOAT32, h.batch * h.nodes * count);
  kangaroo_draft_logits_params p = {};
  p.h = h;
  p.head = head.view(ids);
  p.norm = vector_of(norm);
  p.out = states_of(out, h.batch, h.nodes);
  p.eps = kEps;
  p.num_threads = threads;
  EXPECT(kangaroo_draft_logits(&p) == KANGAROO_OK);
  return out;
}

void check(kangaroo_dtype dtype, bool int8, int64_t width, int64_t rows,
           const std::vector<int32_t>& ids) {
  const Head head = testing::make_head(dtype, 600, width, int8);
  const Tensor h = noise(dtype, rows * width, 1);
  const Tensor norm(dtype, width, 0.5f);
  const Tensor out = run(states_of(h, 1, rows), head, ids, norm, 1);
  const Exacts all = head.logits(testing::exact(testing::normed(h, norm, kEps)));
  const int64_t count = out.size() / rows;
  Exacts expected;
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t token = ids.empty() ? i % count : ids[static_cast<std::size_t>(i % count)];
    expected.push_back(all[static_cast<std::size_t>(i / count * head.vocab + token)]);
  }
  EXPECT(within(out, expected));
  EXPECT(out == run(states_of(h, 1, rows), head, ids, norm, 3));
  for (int64_t row = 0; row < rows; ++row) {
    const Tensor one = h.slice(row * width, width);
    EXPECT(run(states_of(one, 1, 1), head, ids, norm, 2) == out.slice(row * count, count));
  }
  if (rows % 2) return;
  const testing::Spread apart = testing::spread(h, 2, rows / 2);
  EXPECT(run(apart.view, head, ids, norm, 2) == out);
}

}  // namespace

int main() {
  std::vector<int32_t> some;
  for (int32_t id = 2; id < 600; id += id % 4 == 0 ? 7 : 1) some.push_back(id);
  testing::for_each_isa([&some] {
    for (const kangaroo_dtype dtype : testing::kDtypes) {
      for (const bool int8 : {false, true}) {
        for (const int64_t width : {7, 33, 64}) {
          for (const int64_t rows : {1, 2, 5, 18}) {
            check(dtype, int8, width, rows, {});
            check(dtype, int8, width, rows, some);
          }
        }
        check(dtype, int8, 2100, 3, some);
      }
    }
  });
  return testing::result();
}
