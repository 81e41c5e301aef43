/* weights: the tensors of a safetensors file, where they lie in it: mapped, never copied.
 *
 * A file is judged as a whole when it is opened: its tensors cover every byte behind the header,
 * none overlaps another, and every element is aligned. Addresses and strings are valid until
 * kangaroo_weights_close, provided that nobody changes the file meanwhile. Any number of threads
 * may read the weights. */
#ifndef KANGAROO_WEIGHTS_H_
#define KANGAROO_WEIGHTS_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KANGAROO_MAX_RANK 8

typedef struct kangaroo_weights kangaroo_weights;

typedef struct kangaroo_tensor_info {
  const void* data; /* contiguous */
  kangaroo_dtype dtype;
  int64_t rank;
  int64_t sizes[KANGAROO_MAX_RANK]; /* [rank], then 0 */
  int64_t bytes;
} kangaroo_tensor_info;

/* KANGAROO_IO_ERROR where the file cannot be read, is not what safetensors writes, or holds a
   tensor of more than 8 dimensions or of a dtype that kangaroo_dtype has not; *out is NULL then. */
kangaroo_status kangaroo_weights_open(const char* path, kangaroo_weights** out);

/* NULL is let pass. */
void kangaroo_weights_close(kangaroo_weights* weights);

/* 1 if there is a tensor of this name, otherwise 0. */
int kangaroo_weights_has(const kangaroo_weights* weights, const char* name);

/* A tensor of any shape, in a dtype of kangaroo_dtype. In these three `out` is written on
 * KANGAROO_OK alone. */
kangaroo_status kangaroo_weights_find(const kangaroo_weights* weights, const char* name,
                                      kangaroo_tensor_info* out);

/* Refused unless the tensor is there with exactly this dtype and this shape. */
kangaroo_status kangaroo_weights_vector(const kangaroo_weights* weights, const char* name,
                                        kangaroo_dtype dtype, int64_t width, kangaroo_vector* out);
kangaroo_status kangaroo_weights_matrix(const kangaroo_weights* weights, const char* name,
                                        kangaroo_dtype dtype, int64_t rows, int64_t width,
                                        kangaroo_matrix* out);

/* What the file's __metadata__ says of `key`, UTF-8; NULL where it says nothing. */
const char* kangaroo_weights_metadata(const kangaroo_weights* weights, const char* key);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_WEIGHTS_H_ */
