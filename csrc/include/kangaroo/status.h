/* Status of a call, the library's version, and what the build knows about itself. Thread-safe. */
#ifndef KANGAROO_STATUS_H_
#define KANGAROO_STATUS_H_

#ifdef __cplusplus
extern "C" {
#endif

#define KANGAROO_VERSION_MAJOR 0
#define KANGAROO_VERSION_MINOR 1
#define KANGAROO_VERSION_PATCH 0

typedef enum kangaroo_status {
  KANGAROO_OK = 0,
  KANGAROO_INVALID_ARGUMENT = 1,
  KANGAROO_OUT_OF_MEMORY = 2,
  KANGAROO_CUDA_ERROR = 3,
  KANGAROO_UNSUPPORTED = 4, /* an element type or an instruction set that this build cannot serve */
  KANGAROO_IO_ERROR = 5
} kangaroo_status;

/* Version of the library that is linked, "major.minor.patch"; the macros are those of the header.
 */
const char* kangaroo_version(void);

/* Message of the last call of this thread that did not return KANGAROO_OK: op, name, expected, got.
   Valid until the next such call of the thread; never NULL. */
const char* kangaroo_last_error(void);

/* Instruction set that serves this process: "amx", "avx512_bf16", "avx512", "avx2" or "portable".
   By default the best that was compiled in and that the processor has. Tiles need the system's
   leave, which the first call asks for: no stack for signals may be smaller than
   getauxval(AT_MINSIGSTKSZ) then, and where one is, the next best serves. */
const char* kangaroo_isa(void);

/* Instruction sets compiled in, the best first, separated by commas. */
const char* kangaroo_compiled_isas(void);

/* Serves all later calls of the process by another instruction set; not while an op is running.
   Results may differ between instruction sets in their last bits. */
kangaroo_status kangaroo_select_isa(const char* isa);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_STATUS_H_ */
