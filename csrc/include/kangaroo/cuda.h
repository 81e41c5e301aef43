/* The same ops on an NVIDIA GPU: params of the op's own header, with addresses on the device.
 *
 * Every call launches on `stream` (a cudaStream_t) and returns at once: no allocation, no
 * synchronisation, so it may be captured. Shapes and addresses are checked; what lies on the device
 * (lengths, paths, ids) is not read before the launch, and kernels clamp or mask it instead.
 * Kernels may overlap the one in front of them in the stream; until that has ended they read the
 * weights and ids of the call alone, which therefore are constant while it runs.
 * In libkangaroo_cuda, where the library was built with nvcc. */
#ifndef KANGAROO_CUDA_H_
#define KANGAROO_CUDA_H_

#include "kangaroo/compact_kv.h"
#include "kangaroo/linear.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/top1_confidence.h"
#include "kangaroo/verify_tree.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of device memory, aligned to 16, that the op needs as `workspace`: as they are, and for the
 * time of the call alone. Negative where the parameters are refused. */
int64_t kangaroo_linear_cuda_workspace(const kangaroo_linear_params* params);
int64_t kangaroo_top1_confidence_cuda_workspace(const kangaroo_top1_confidence_params* params);

kangaroo_status kangaroo_linear_cuda(const kangaroo_linear_params* params, void* workspace,
                                     void* stream);
kangaroo_status kangaroo_top1_confidence_cuda(const kangaroo_top1_confidence_params* params,
                                              void* workspace, void* stream);
kangaroo_status kangaroo_rope_append_kv_cuda(const kangaroo_rope_append_kv_params* params,
                                             void* stream);
kangaroo_status kangaroo_verify_tree_cuda(const kangaroo_verify_tree_params* params, void* stream);
kangaroo_status kangaroo_compact_kv_cuda(const kangaroo_compact_kv_params* params, void* stream);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_CUDA_H_ */
