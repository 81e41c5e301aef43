// What the bindings of CUDA ops share: streams, and workspaces that Python allocates.
#pragma once

#include <pybind11/functional.h>

#include "../bindings.h"
#include "kangaroo/cuda.h"

namespace kangaroo::bindings {

// Bytes to the address of so many, aligned to 16.
using Allocate = std::function<Address(int64_t)>;

// Of parameters that are refused the op itself says why.
template <class Size, class Params>
void* workspace_of(const Size& size, const Params& params, const Allocate& allocate) {
  const int64_t bytes = size(&params);
  return bytes > 0 ? at<void>(allocate(bytes)) : nullptr;
}

}  // namespace kangaroo::bindings
