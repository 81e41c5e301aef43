/* Status of a call, and what the build knows about itself. C ABI, thread-safe. */
#ifndef KANGAROO_STATUS_H_
#define KANGAROO_STATUS_H_

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kangaroo_status {
  KANGAROO_OK = 0,
  KANGAROO_INVALID_ARGUMENT = 1,
  KANGAROO_OUT_OF_MEMORY = 2,
  KANGAROO_CUDA_ERROR = 3
} kangaroo_status;

/* Message of the last call of this thread that did not return KANGAROO_OK: name, expected, got.
   Valid until the next such call of the thread; never NULL. */
const char* kangaroo_last_error(void);

/* Instruction set that serves this process: "avx2" or "portable". Chosen once. */
const char* kangaroo_isa(void);

/* Instruction sets compiled in, separated by commas. */
const char* kangaroo_compiled_isas(void);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_STATUS_H_ */
