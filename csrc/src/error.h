// How the core reports errors: a status, and a message kept for the calling thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <new>

#include "kangaroo/status.h"

namespace kangaroo {

// Keeps the message ("name: expected ..., got ...") and returns KANGAROO_INVALID_ARGUMENT.
kangaroo_status invalid(const char* format, ...) __attribute__((format(printf, 1, 2)));

kangaroo_status out_of_memory();
kangaroo_status cuda_error(const char* op, const char* message);

struct NamedSize {
  const char* name;
  int64_t value;
};

struct NamedAddress {
  const char* name;
  const void* address;
  int64_t count;
};

// Sizes may not be negative; an address may be null only where nothing is to be found.
kangaroo_status check(const char* op, std::initializer_list<NamedSize> sizes,
                      std::initializer_list<NamedAddress> addresses);

// Runs the body of a C entry point: no exception leaves it.
template <class Body>
kangaroo_status guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  }
}

}  // namespace kangaroo
