#include "error.h"

#include <cstdarg>
#include <cstdio>

namespace kangaroo {
namespace {

thread_local char last_error[256] = "";

}  // namespace

kangaroo_status invalid(const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::vsnprintf(last_error, sizeof last_error, format, values);
  va_end(values);
  return KANGAROO_INVALID_ARGUMENT;
}

kangaroo_status check(const char* op, std::initializer_list<NamedSize> sizes,
                      std::initializer_list<NamedAddress> addresses) {
  for (const NamedSize& size : sizes) {
    if (size.value < 0) {
      return invalid("%s: %s: expected at least 0, got %lld", op, size.name,
                     static_cast<long long>(size.value));
    }
  }
  for (const NamedAddress& address : addresses) {
    if (!address.address && address.count > 0) {
      return invalid("%s: %s: expected the address of %lld values, got NULL", op, address.name,
                     static_cast<long long>(address.count));
    }
  }
  return KANGAROO_OK;
}

kangaroo_status cuda_error(const char* op, const char* message) {
  invalid("%s: CUDA: %s", op, message);
  return KANGAROO_CUDA_ERROR;
}

kangaroo_status out_of_memory() {
  std::snprintf(last_error, sizeof last_error, "out of memory");
  return KANGAROO_OUT_OF_MEMORY;
}

}  // namespace kangaroo

const char* kangaroo_last_error(void) { return kangaroo::last_error; }
