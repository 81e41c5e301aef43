#ifdef KANGAROO_AMX
#include "isa/amx.h"
#endif
#include "isa/attention.h"
#include "isa/gemm.h"
#include "isa/rows.h"

#define KANGAROO_STRING_OF(name) #name
#define KANGAROO_STRING(name) KANGAROO_STRING_OF(name)

namespace kangaroo::KANGAROO_ISA {

extern const Kernels kKernels;
const Kernels kKernels = {
    KANGAROO_STRING(KANGAROO_ISA),
    {panel_bytes<FloatDot>, pack<FloatDot>, gemm<FloatDot, float>, gemm<FloatDot, float>,
     rms_norm<float>, rotate<float>, silu_mul<float>, attend<FloatDot>, argmax<float>},
#ifdef KANGAROO_AMX
    {tile_panel_bytes, tile_pack, tile_gemm<Bf16>, tile_gemm<float>,
#else
    {panel_bytes<PairDot>, pack<PairDot>, gemm<PairDot, Bf16>, gemm<PairDot, float>,
#endif
     rms_norm<Bf16>, rotate<Bf16>, silu_mul<Bf16>, attend<WideDot>, argmax<Bf16>},
    softmax_part,
    exp_one,
};

}  // namespace kangaroo::KANGAROO_ISA
