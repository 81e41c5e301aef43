#include "error.h"

#include <cstdarg>
#include <cstdio>

namespace kangaroo {
namespace {

thread_local char last_error[512] = "";

}  // namespace

kangaroo_status invalid(const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::vsnprintf(last_error, sizeof last_error, format, values);
  va_end(values);
  return KANGAROO_INVALID_ARGUMENT;
}

kangaroo_status cuda_error(const char* op, const char* message) {
  invalid("%s: CUDA: %s", op, message);
  return KANGAROO_CUDA_ERROR;
}

kangaroo_status io_error(const char* path, const char* message) {
  invalid("%s: %s", path, message);
  return KANGAROO_IO_ERROR;
}

kangaroo_status out_of_memory(const char* op) {
  invalid("%s: out of memory", op);
  return KANGAROO_OUT_OF_MEMORY;
}

}  // namespace kangaroo

const char* kangaroo_last_error(void) { return kangaroo::last_error; }
