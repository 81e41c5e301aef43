// Row-invariant skinny GEMM. For every (row, output) there is one chain of eight lanes over k in
// steps of eight, then one horizontal sum: tile shapes change what shares a register, never an
// order of additions.
#pragma once

#include "isa/kernels.h"
#include "isa/simd.h"

namespace kangaroo::KANGAROO_ISA {

void gemm(const Gemm& gemm);

}  // namespace kangaroo::KANGAROO_ISA
