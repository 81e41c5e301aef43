// What a race between tokens needs, in double.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

void weigh(const float* logits, int64_t count, double largest, double temperature, double* weights);
void start_times(const RaceKey& key, const uint64_t* tokens, int64_t count, double* times);

}  // namespace kangaroo::KANGAROO_ISA
