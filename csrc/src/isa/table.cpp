#ifdef KANGAROO_AMX
#include "isa/amx.h"
#endif
#include "isa/attention.h"
#include "isa/gemm.h"
#include "isa/race.h"
#include "isa/rows.h"

#define KANGAROO_STRING_OF(name) #name
#define KANGAROO_STRING(name) KANGAROO_STRING_OF(name)

namespace kangaroo::KANGAROO_ISA {

inline int64_t rows_together(int64_t) { return 1; }

template <class Dot>
constexpr Layout layout_of = {rows_together, panel_bytes<Dot>, pack<Dot>};

#ifdef KANGAROO_AMX
constexpr Layout kTileLayout = {tile_rows, tile_panel_bytes, tile_pack};
using AttentionDot = TileDot;
#else
using AttentionDot = WideDot;
#endif

extern const Kernels kKernels;
const Kernels kKernels = {
    KANGAROO_STRING(KANGAROO_ISA),
    {kOutputsTogether, layout_of<FloatDot>, gemm<FloatDot, float>, gemm<FloatDot, float>,
     layout_of<FloatDot>, gemm<ByteDot, float>, rms_norm<float>, rotate<float>, silu_mul<float>,
     attend<FloatDot>, argmax<float>},
#ifdef KANGAROO_AMX
    {kTileOutputsTogether, kTileLayout, tile_gemm<Bf16>, tile_gemm<float>,
#else
    {kOutputsTogether, layout_of<PairDot>, gemm<PairDot, Bf16>, gemm<PairDot, float>,
#endif
     layout_of<WideDot>, gemm<WideByteDot, float>, rms_norm<Bf16>, rotate<Bf16>, silu_mul<Bf16>,
     attend<AttentionDot>, argmax<Bf16>},
    softmax_part,
    exp_one,
    weigh,
    start_times,
};

}  // namespace kangaroo::KANGAROO_ISA
