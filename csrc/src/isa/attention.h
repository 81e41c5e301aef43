// Online softmax over chunks of fixed place and size, a few query rows of one head at a time.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

// Dot multiplies a float32 query by the keys.
template <class Dot>
void attend(const AttentionTile& tile);

}  // namespace kangaroo::KANGAROO_ISA
