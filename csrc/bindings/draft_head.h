// The head of a draft, as Python passes it: (weight, token_ids, vocab, num_ids).
#pragma once

#include <tuple>

#include "bindings.h"
#include "kangaroo/draft_head.h"

namespace kangaroo::bindings {

using Head = std::tuple<Address, Address, int64_t, int64_t>;

inline kangaroo_draft_head head_of(const Head& head) {
  const auto [weight, token_ids, vocab, num_ids] = head;
  return {at<float>(weight), at<int32_t>(token_ids), vocab, num_ids};
}

}  // namespace kangaroo::bindings
