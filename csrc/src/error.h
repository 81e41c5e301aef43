// How the core reports errors: a status, and a message kept for the calling thread.
#pragma once

#include <new>

#include "kangaroo/status.h"

namespace kangaroo {

// Keeps the message ("op: name: expected ..., got ...") and returns KANGAROO_INVALID_ARGUMENT.
kangaroo_status invalid(const char* format, ...) __attribute__((format(printf, 1, 2)));

kangaroo_status out_of_memory(const char* op);
kangaroo_status cuda_error(const char* op, const char* message);
kangaroo_status io_error(const char* path, const char* message);

// Runs the body of a C entry point on its parameters: no exception leaves it.
template <class Params, class Body>
kangaroo_status entry(const char* op, const Params* params, const Body& body) {
  if (!params) return invalid("%s: params: expected an address, got NULL", op);
  try {
    return body(*params);
  } catch (const std::bad_alloc&) {
    return out_of_memory(op);
  }
}

}  // namespace kangaroo
