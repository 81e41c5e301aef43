// What a safetensors file holds: eight bytes of the header's length, the header, the data.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "kangaroo/weights.h"

namespace kangaroo {

template <class Value>
using ByName = std::map<std::string, Value, std::less<>>;

struct Contents {
  ByName<kangaroo_tensor_info> tensors;  // their data inside the file that was read
  ByName<std::string> metadata;
};

// Stricter than safetensors itself in this: data are aligned, nothing is named twice, no string
// holds NUL. Throws a Fault.
Contents read_safetensors(std::string_view file);

}  // namespace kangaroo
