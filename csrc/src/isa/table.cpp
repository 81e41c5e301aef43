#include "isa/attention.h"
#include "isa/gemm.h"
#include "isa/rows.h"

#define KANGAROO_STRING_OF(name) #name
#define KANGAROO_STRING(name) KANGAROO_STRING_OF(name)

namespace kangaroo::KANGAROO_ISA {

extern const Kernels kKernels;
const Kernels kKernels = {
    KANGAROO_STRING(KANGAROO_ISA), gemm, rms_norm, silu_mul, rotate, softmax_part, attend, exp_one,
};

}  // namespace kangaroo::KANGAROO_ISA
