#include "safetensors.h"

#include <algorithm>
#include <vector>

#include "check.h"
#include "json.h"

namespace kangaroo {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as safetensors itself

struct Dtype {
  const char* name;
  kangaroo_dtype dtype;
};

constexpr Dtype kDtypes[] = {
    {"F32", KANGAROO_FLOAT32}, {"BF16", KANGAROO_BFLOAT16}, {"F16", KANGAROO_FLOAT16},
    {"F64", KANGAROO_FLOAT64}, {"I64", KANGAROO_INT64},     {"I32", KANGAROO_INT32},
    {"I16", KANGAROO_INT16},   {"I8", KANGAROO_INT8},       {"U8", KANGAROO_UINT8},
    {"BOOL", KANGAROO_BOOL},
};

[[noreturn]] void fail(const std::string& what) { throw Fault{what}; }

[[noreturn]] void fail(std::string_view tensor, const std::string& what) {
  fail("tensor " + printable(tensor) + ": " + what);
}

kangaroo_dtype dtype_of(std::string_view tensor, const std::string& name) {
  for (const Dtype& known : kDtypes) {
    if (name == known.name) return known.dtype;
  }
  fail(tensor, "dtype: expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL, got " +
                   printable(name));
}

// Marks what has been read; nothing may be read twice.
void once(bool* seen, const std::string& what) {
  if (*seen) fail(what + ": expected once, got twice");
  *seen = true;
}

class Reader {
 public:
  Reader(std::string_view header, std::string_view data) : json_(header), data_(data) {}

  Contents read() {
    bool metadata = false;
    json_.object([&](const std::string& name) {
      if (name == "__metadata__") {
        once(&metadata, name);
        read_metadata();
      } else if (!contents_.tensors.emplace(name, read_tensor(name)).second) {
        fail(name, "expected once, got twice");
      }
    });
    json_.end();
    check_coverage();
    return std::move(contents_);
  }

 private:
  void read_metadata() {
    json_.object([&](const std::string& key) {
      if (!contents_.metadata.emplace(key, json_.string()).second) {
        fail("__metadata__: " + printable(key) + ": expected once, got twice");
      }
    });
  }

  kangaroo_tensor_info read_tensor(const std::string& name) {
    kangaroo_tensor_info info = {};
    std::vector<int64_t> offsets;
    bool dtype = false, shape = false, place = false;
    json_.object([&](const std::string& key) {
      const std::string what = "tensor " + printable(name) + ": " + key;
      if (key == "dtype") {
        once(&dtype, what);
        info.dtype = dtype_of(name, json_.string());
      } else if (key == "shape") {
        once(&shape, what);
        json_.array([&] {
          if (info.rank == KANGAROO_MAX_RANK)
            fail(name, "shape: expected at most 8 sizes, got more");
          info.sizes[info.rank++] = json_.integer();
        });
      } else if (key == "data_offsets") {
        once(&place, what);
        json_.array([&] {
          if (offsets.size() == 2) fail(name, "data_offsets: expected 2 numbers, got more");
          offsets.push_back(json_.integer());
        });
      } else {
        fail(name, "expected dtype, shape and data_offsets, got " + printable(key));
      }
    });
    if (!dtype || !shape || offsets.size() != 2) {
      fail(name, "expected dtype, shape and two data_offsets, got less");
    }
    locate(name, offsets[0], offsets[1], &info);
    return info;
  }

  // Everything that addresses depend on: range, size, alignment.
  void locate(const std::string& name, int64_t begin, int64_t end, kangaroo_tensor_info* info) {
    if (begin > end || static_cast<uint64_t>(end) > data_.size()) {
      fail(name, "data_offsets: expected a range in [0, " + std::to_string(data_.size()) +
                     "], got [" + std::to_string(begin) + ", " + std::to_string(end) + "]");
    }
    const int64_t item = size_of(info->dtype);
    int64_t bytes = item;
    bool fits = true, none = false;
    for (int64_t dim = 0; dim < info->rank; ++dim) {
      none = none || info->sizes[dim] == 0;
      fits = fits && !__builtin_mul_overflow(bytes, std::max<int64_t>(info->sizes[dim], 1), &bytes);
    }
    if (!fits) fail(name, "shape: expected a size in bytes below 2^63, got more");
    info->bytes = none ? 0 : bytes;
    if (end - begin != info->bytes) {
      fail(name, "data_offsets: expected " + std::to_string(info->bytes) +
                     " bytes, as dtype and shape say, got " + std::to_string(end - begin));
    }
    info->data = data_.data() + begin;
    const auto address = reinterpret_cast<uintptr_t>(info->data);
    if (info->bytes > 0 && address % static_cast<uintptr_t>(item)) {
      fail(name, "expected data aligned to " + std::to_string(item) + " bytes, got byte " +
                     std::to_string(begin) + " behind the header");
    }
  }

  // Every byte behind the header is of exactly one tensor.
  void check_coverage() const {
    using Tensor = ByName<kangaroo_tensor_info>::value_type;
    std::vector<const Tensor*> order;
    for (const Tensor& tensor : contents_.tensors) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
      return a->second.data != b->second.data ? a->second.data < b->second.data
                                              : a->second.bytes < b->second.bytes;
    });
    const char* at = data_.data();
    for (const Tensor* tensor : order) {
      const char* data = static_cast<const char*>(tensor->second.data);
      if (data != at) {
        fail(tensor->first, data < at ? "overlaps another tensor" : "bytes of no tensor before it");
      }
      at = data + tensor->second.bytes;
    }
    const auto left = data_.data() + data_.size() - at;
    if (left) fail("expected the end of the file, got " + std::to_string(left) + " bytes more");
  }

  Json json_;
  std::string_view data_;
  Contents contents_;
};

}  // namespace

Contents read_safetensors(std::string_view file) {
  if (file.size() < kLengthBytes) {
    fail("expected a safetensors file, got one of " + std::to_string(file.size()) + " bytes");
  }
  uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    length = length << 8 | static_cast<unsigned char>(file[i]);
  }
  const std::string_view behind = file.substr(kLengthBytes);
  if (length > kMaxHeaderBytes || length > behind.size()) {
    fail("header: expected at most " +
         std::to_string(std::min<uint64_t>(kMaxHeaderBytes, behind.size())) + " bytes, got " +
         std::to_string(length));
  }
  const std::string_view header = behind.substr(0, length);
  if (!valid_utf8(header)) fail("header: expected UTF-8, got something else");
  return Reader(header, behind.substr(length)).read();
}

}  // namespace kangaroo
