// Online softmax over chunks of fixed place and size, a few query rows of one head at a time.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

void attend(const AttentionTile& tile);

}  // namespace kangaroo::KANGAROO_ISA
