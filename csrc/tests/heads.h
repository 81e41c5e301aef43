// Draft heads of either kind, and what their logits must be.
#pragma once

#include "exact.h"
#include "kangaroo/draft_head.h"

namespace testing {

// A head in the dtype of the states; or its whole numbers as int8, with a scale for every row.
struct Head {
  Tensor values;
  int64_t vocab;
  std::vector<int8_t> bytes;
  std::vector<float> scale;

  // Of these tokens; none: of all.
  kangaroo_draft_head view(const std::vector<int32_t>& ids) const {
    kangaroo_draft_head head = {};
    head.weight = matrix_of(values, vocab);
    if (!scale.empty()) {
      head.weight.data = bytes.data();
      head.weight.dtype = KANGAROO_INT8;
      head.scale = scale.data();
    }
    head.token_ids = ids.empty() ? nullptr : ids.data();
    head.num_ids = static_cast<int64_t>(ids.size());
    return head;
  }
  Exacts logits(const Exacts& x) const {
    Exacts out = product(x, values, vocab);
    for (std::size_t i = 0; i < out.size() && !scale.empty(); ++i) {
      out[i] = product(out[i], Exact{scale[i % scale.size()], 0.0});
    }
    return out;
  }
};

// Every seventh row is equal.
inline Head make_head(kangaroo_dtype dtype, int64_t vocab, int64_t width, bool int8) {
  Head head = {noise(int8 ? KANGAROO_FLOAT32 : dtype, vocab * width, 2), vocab, {}, {}};
  for (int64_t i = 0; int8 && i < head.values.size(); ++i) {
    const float whole = std::round(60.0f * head.values.at(i));
    head.values.set(i, std::fmin(std::fmax(whole, -128.0f), 127.0f));  // both ends are reached
  }
  for (int64_t row = 0; row < vocab; ++row) {
    if (row > 0 && row % 7 == 0) head.values.put(row * width, head.values, 0, width);
    if (int8) head.scale.push_back(row % 7 ? 0.01f + 1e-4f * static_cast<float>(row % 90) : 0.02f);
  }
  for (int64_t i = 0; int8 && i < head.values.size(); ++i) {
    head.bytes.push_back(static_cast<int8_t>(head.values.at(i)));
  }
  return head;
}

}  // namespace testing
