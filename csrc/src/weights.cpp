#include "kangaroo/weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>

#include "check.h"
#include "error.h"
#include "json.h"
#include "safetensors.h"

namespace kangaroo {
namespace {

std::string system_message() { return std::system_category().message(errno); }

class Descriptor {
 public:
  // A FIFO must not make this wait for a writer.
  explicit Descriptor(const char* path) : fd_(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd_ < 0) throw Fault{system_message()};
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  std::size_t file_size() const {
    struct stat status;
    if (::fstat(fd_, &status) != 0) throw Fault{system_message()};
    if (!S_ISREG(status.st_mode)) throw Fault{"expected a file, got something else"};
    return static_cast<std::size_t>(status.st_size);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// A whole file, read-only.
class Mapping {
 public:
  explicit Mapping(const char* path) {
    const Descriptor file(path);
    size_ = file.file_size();
    if (size_ == 0) return;  // which cannot be mapped
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) throw Fault{system_message()};
    address_ = address;
  }
  ~Mapping() {
    if (address_) ::munmap(address_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::string_view bytes() const { return {static_cast<const char*>(address_), size_}; }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace
}  // namespace kangaroo

struct kangaroo_weights {
  explicit kangaroo_weights(const char* file)
      : path(file), mapping(file), contents(kangaroo::read_safetensors(mapping.bytes())) {}

  const std::string path;
  const kangaroo::Mapping mapping;
  const kangaroo::Contents contents;
};

namespace kangaroo {
namespace {

const kangaroo_tensor_info* lookup(const kangaroo_weights& weights, const char* name) {
  const auto found = weights.contents.tensors.find(std::string_view(name));
  return found == weights.contents.tensors.end() ? nullptr : &found->second;
}

std::string describe(kangaroo_dtype dtype, const int64_t* sizes, int64_t rank) {
  std::string text = std::string(name_of(dtype)) + " [";
  for (int64_t dim = 0; dim < rank; ++dim) {
    text += (dim ? ", " : "") + std::to_string(sizes[dim]);
  }
  return text + "]";
}

template <class Body>
kangaroo_status guarded(const char* path, const Body& body) {
  try {
    return body();
  } catch (const Fault& fault) {
    return io_error(path, fault.what.c_str());
  } catch (const std::bad_alloc&) {
    return out_of_memory(path);
  } catch (const std::exception& error) {
    return io_error(path, error.what());
  }
}

// `use` gets the tensor; what it returns is why it is refused, or "".
template <class Use>
kangaroo_status with(const char* op, const kangaroo_weights* weights, const char* name,
                     const void* out, const Use& use) {
  if (!weights) return invalid("%s: weights: expected an address, got NULL", op);
  if (!name) return invalid("%s: name: expected an address, got NULL", op);
  if (!out) return invalid("%s: out: expected an address, got NULL", op);
  return guarded(weights->path.c_str(), [&] {
    const kangaroo_tensor_info* info = lookup(*weights, name);
    const std::string shown = printable(name);
    if (!info) return invalid("%s: %s: expected a tensor, got none", op, shown.c_str());
    const std::string fault = use(*info);
    return fault.empty() ? KANGAROO_OK : invalid("%s: %s: %s", op, shown.c_str(), fault.c_str());
  });
}

template <int64_t kRank>
std::string difference(const kangaroo_tensor_info& got, kangaroo_dtype dtype,
                       const int64_t (&sizes)[kRank]) {
  if (got.dtype == dtype && got.rank == kRank && std::equal(sizes, sizes + kRank, got.sizes)) {
    return "";
  }
  return "expected " + describe(dtype, sizes, kRank) + ", got " +
         describe(got.dtype, got.sizes, got.rank);
}

}  // namespace
}  // namespace kangaroo

kangaroo_status kangaroo_weights_open(const char* path, kangaroo_weights** out) {
  using namespace kangaroo;
  if (!out) return invalid("weights_open: out: expected an address, got NULL");
  *out = nullptr;
  if (!path) return invalid("weights_open: path: expected an address, got NULL");
  return guarded(path, [&] {
    *out = new kangaroo_weights(path);
    return KANGAROO_OK;
  });
}

void kangaroo_weights_close(kangaroo_weights* weights) { delete weights; }

int kangaroo_weights_has(const kangaroo_weights* weights, const char* name) {
  return weights && name && kangaroo::lookup(*weights, name) ? 1 : 0;
}

kangaroo_status kangaroo_weights_find(const kangaroo_weights* weights, const char* name,
                                      kangaroo_tensor_info* out) {
  return kangaroo::with("weights_find", weights, name, out, [&](const kangaroo_tensor_info& info) {
    *out = info;
    return std::string();
  });
}

kangaroo_status kangaroo_weights_vector(const kangaroo_weights* weights, const char* name,
                                        kangaroo_dtype dtype, int64_t width, kangaroo_vector* out) {
  using namespace kangaroo;
  return with("weights_vector", weights, name, out, [&](const kangaroo_tensor_info& info) {
    std::string fault = difference<1>(info, dtype, {width});
    if (fault.empty()) *out = kangaroo_vector_of(info.data, dtype, width);
    return fault;
  });
}

kangaroo_status kangaroo_weights_matrix(const kangaroo_weights* weights, const char* name,
                                        kangaroo_dtype dtype, int64_t rows, int64_t width,
                                        kangaroo_matrix* out) {
  using namespace kangaroo;
  return with("weights_matrix", weights, name, out, [&](const kangaroo_tensor_info& info) {
    std::string fault = difference<2>(info, dtype, {rows, width});
    if (fault.empty()) *out = kangaroo_matrix_of(info.data, dtype, rows, width);
    return fault;
  });
}

const char* kangaroo_weights_metadata(const kangaroo_weights* weights, const char* key) {
  if (!weights || !key) return nullptr;
  const auto& metadata = weights->contents.metadata;
  const auto found = metadata.find(std::string_view(key));
  return found == metadata.end() ? nullptr : found->second.c_str();
}
