// Online softmax over chunks of fixed place and size, a few query rows of one head at a time.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

// Dot says how queries are multiplied by keys, and what keys and values are.
template <class Dot>
void attend(const AttentionTile& tile);

}  // namespace kangaroo::KANGAROO_ISA
