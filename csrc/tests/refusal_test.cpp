// Whatever is wrong with a call, it is refused by a message that names the op, and has written
// nothing: every op, one fault at a time, and then faults at random.
#include "calls.h"

using testing::Call;

namespace {

int64_t faults = 0, served = 0;

// All memory that a call could reach.
class Memory {
 public:
  explicit Memory(const Call& call)
      : tensors_(call.tensors), ints_(call.ints), longs_(call.longs), doubles_(call.doubles) {}

  bool holds(const Call& call) const {
    return tensors_ == call.tensors && ints_ == call.ints && longs_ == call.longs &&
           doubles_ == call.doubles;
  }
  // In place: the addresses stay what they are.
  void restore(Call& call) const {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      call.tensors[i].put(0, tensors_[i], 0, tensors_[i].size());
    }
    for (std::size_t i = 0; i < ints_.size(); ++i) {
      std::copy(ints_[i].begin(), ints_[i].end(), call.ints[i].begin());
    }
    for (std::size_t i = 0; i < longs_.size(); ++i) {
      std::copy(longs_[i].begin(), longs_[i].end(), call.longs[i].begin());
    }
    for (std::size_t i = 0; i < doubles_.size(); ++i) {
      std::copy(doubles_[i].begin(), doubles_[i].end(), call.doubles[i].begin());
    }
  }

 private:
  std::deque<testing::Tensor> tensors_;
  std::deque<std::vector<int32_t>> ints_;
  std::deque<std::vector<int64_t>> longs_;
  std::deque<std::vector<double>> doubles_;
};

void report(const Call& call, const std::string& fault, const char* what) {
  std::printf("%s, dtype %d, %s: %s: %s\n", call.op.c_str(), static_cast<int>(call.dtype),
              fault.c_str(), what, kangaroo_last_error());
  ++testing::failures;
}

void expect_refused(const Call& call, const std::string& fault,
                    kangaroo_status wanted = KANGAROO_INVALID_ARGUMENT,
                    bool without_params = false) {
  const Memory before(call);
  ++faults;
  if (call.run(without_params) != wanted) report(call, fault, "another status");
  const std::string start = call.op + ": ";
  if (std::strncmp(kangaroo_last_error(), start.c_str(), start.size()) != 0) {
    report(call, fault, "a message without the op");
  }
  if (!before.holds(call)) report(call, fault, "something was written");
}

// One value spoiled for the length of a call.
template <class T>
void spoil(const Call& call, T* place, T bad, const std::string& fault,
           kangaroo_status wanted = KANGAROO_INVALID_ARGUMENT) {
  const T before = *place;
  *place = bad;
  expect_refused(call, fault, wanted);
  *place = before;
}

std::string numbered(const char* what, std::size_t number, int64_t value) {
  return std::string(what) + " " + std::to_string(number) + " = " + std::to_string(value);
}

void spoil_addresses(const Call& call) {
  for (std::size_t i = 0; i < call.addresses.size(); ++i) {
    // A pointer to any type, as its bits.
    const auto put = [&](const char* value) {
      std::memcpy(call.addresses[i].place, &value, sizeof value);
    };
    const char* before;
    std::memcpy(&before, call.addresses[i].place, sizeof before);
    if (!call.addresses[i].optional) {
      put(nullptr);
      expect_refused(call, numbered("address", i, 0));
    }
    put(before + 1);
    expect_refused(call, numbered("address one byte off", i, 1));
    put(before);
  }
}

void spoil_sizes(const Call& call) {
  for (std::size_t i = 0; i < call.sizes.size(); ++i) {
    for (const int64_t bad : {int64_t{-1}, INT64_MIN, int64_t{1} << 62, INT64_MAX}) {
      spoil(call, call.sizes[i].value, bad, numbered("size", i, bad));
    }
    if (i == 0 || call.sizes[i].view != call.sizes[i - 1].view) continue;
    const int64_t before = *call.sizes[i - 1].value;
    *call.sizes[i - 1].value = int64_t{1} << 32;  // their product has 64 bits
    spoil(call, call.sizes[i].value, int64_t{1} << 32, numbered("sizes up to", i, 0));
    *call.sizes[i - 1].value = before;
  }
}

void spoil_strides(const Call& call) {
  for (std::size_t i = 0; i < call.strides.size(); ++i) {
    const int64_t before = *call.strides[i].value;
    for (const int64_t bad : {int64_t{-1}, INT64_MIN, INT64_MAX}) {
      spoil(call, call.strides[i].value, bad, numbered("stride", i, bad));
    }
    if (!call.strides[i].apart) continue;
    for (const int64_t bad : {int64_t{0}, int64_t{1}, before - 1}) {
      spoil(call, call.strides[i].value, bad, numbered("overlapping stride", i, bad));
    }
  }
}

void spoil_dtypes(const Call& call) {
  const auto none = static_cast<kangaroo_dtype>(15);  // within the bits of the enum, and none of it
  std::vector<kangaroo_dtype> before;
  for (std::size_t i = 0; i < call.dtypes.size(); ++i) {
    spoil(call, call.dtypes[i], none, numbered("dtype", i, none));
    before.push_back(*call.dtypes[i]);
  }
  if (call.dtypes.empty()) return;      // there is no choice
  if (call.op == "compact_kv") return;  // serves all of them: it moves rows
  for (kangaroo_dtype* place : call.dtypes) *place = KANGAROO_FLOAT16;
  expect_refused(call, "float16 on the CPU", KANGAROO_UNSUPPORTED);
  for (std::size_t i = 0; i < call.dtypes.size(); ++i) *call.dtypes[i] = before[i];
  for (std::size_t i = 1; i < call.dtypes.size(); ++i) {
    spoil(call, call.dtypes[i], KANGAROO_FLOAT16, numbered("dtype", i, KANGAROO_FLOAT16));
  }
}

void spoil_rest(const Call& call) {
  expect_refused(call, "no params", KANGAROO_INVALID_ARGUMENT, true);
  if (call.eps) {
    for (const float bad : {NAN, -1e-6f, INFINITY}) spoil(call, call.eps, bad, "eps");
  }
  if (call.num_threads) spoil(call, call.num_threads, -1, "num_threads");
  for (std::size_t i = 0; i < call.contents.size(); ++i) {
    const Call::Content& content = call.contents[i];
    const std::string fault = numbered("content", i, content.bad);
    if (content.narrow) spoil(call, content.narrow, static_cast<int32_t>(content.bad), fault);
    if (content.wide) spoil(call, content.wide, content.bad, fault);
  }
  for (std::size_t i = 0; i < call.reals.size(); ++i) {
    spoil(call, call.reals[i].value, call.reals[i].bad, numbered("real", i, 0));
  }
}

// Random values in random integers of the params, until the end of the scope.
class Mutation {
 public:
  Mutation(const Call& call, std::mt19937& random) : random_(random) {
    for (const Call::Size& size : call.sizes) {
      (size.counts ? counts_ : integers_).push_back(size.value);
      sizes_.push_back(size.value);
    }
    for (const Call::Stride& stride : call.strides) integers_.push_back(stride.value);
  }
  ~Mutation() {
    for (auto place = before_.rbegin(); place != before_.rend(); ++place) {
      *place->first = place->second;
    }
  }

  int below(std::size_t count) { return static_cast<int>(random_() % count); }
  void put(int64_t* place, int64_t value) {
    before_.push_back({place, *place});
    *place = value;
    trace_ += " " + std::to_string(value);
  }
  // Any value in up to four integers, and one that no call can have in another: whatever the
  // others may look like, memory that is not there is never read.
  void wild() {
    const int64_t values[] = {-1,
                              0,
                              1,
                              2,
                              INT64_MAX,
                              INT64_MIN,
                              INT32_MAX,
                              int64_t{1} << 31,
                              int64_t{1} << 40,
                              (int64_t{1} << 62) + 1};
    for (int i = below(5); i > 0; --i) {
      put(integers_[below(integers_.size())], values[below(std::size(values))]);
    }
    const auto any = static_cast<std::size_t>(below(integers_.size() + counts_.size()));
    put(any < integers_.size() ? integers_[any] : counts_[any - integers_.size()],
        below(2) ? -1 : INT64_MIN);
  }
  // Up to four integers that are smaller than they were: a call that is served stays inside the
  // memory that it was given.
  void small() {
    for (int i = 1 + below(4); i > 0; --i) {
      const auto any = static_cast<std::size_t>(below(integers_.size() + counts_.size()));
      int64_t* place = any < integers_.size() ? integers_[any] : counts_[any - integers_.size()];
      const int64_t values[] = {0, 1, *place / 2, *place - 1};
      const int64_t value = values[below(std::size(values))];
      if (value >= 0 && value < *place) put(place, value);
    }
  }
  // All sizes of one value lowered: most often the same dimension of all views.
  void together() {
    const int64_t from = *sizes_[below(sizes_.size())];
    const int64_t values[] = {0, 1, from / 2, from - 1};
    const int64_t to = values[below(std::size(values))];
    for (int64_t* place : sizes_) {
      if (*place == from && to >= 0 && to < from) put(place, to);
    }
  }
  const std::string& trace() const { return trace_; }

 private:
  std::mt19937& random_;
  std::vector<int64_t*> integers_, counts_, sizes_;
  std::vector<std::pair<int64_t*, int64_t>> before_;
  std::string trace_ = "random values";
};

void fuzz(Call& call, std::mt19937& random) {
  const Memory before(call);
  for (int round = 0; round < 500; ++round) {
    Mutation mutation(call, random);
    mutation.wild();
    expect_refused(call, mutation.trace());
  }
  for (int round = 0; round < 500; ++round) {
    Mutation mutation(call, random);
    if (round % 2 == 0) mutation.together();
    if (round % 2 || round % 8 == 0) mutation.small();
    if (call.run(false) == KANGAROO_OK) {
      before.restore(call);
      ++served;
    } else if (!before.holds(call)) {
      report(call, mutation.trace(), "something was written");
      before.restore(call);
    }
    ++faults;
  }
}

}  // namespace

int main() {
  std::mt19937 random(2024);
  for (const kangaroo_dtype dtype : testing::kDtypes) {
    for (Call& call : testing::every_call(dtype)) {
      const Memory before(call);
      EXPECT(call.run(false) == KANGAROO_OK);
      EXPECT(!before.holds(call));  // what is refused below would have been served
      before.restore(call);
      spoil_addresses(call);
      spoil_sizes(call);
      spoil_strides(call);
      spoil_dtypes(call);
      spoil_rest(call);
      testing::for_each_isa([&] { fuzz(call, random); });
      EXPECT(call.run(false) == KANGAROO_OK);
    }
  }
  EXPECT(served > faults / 20);
  std::printf("%lld calls, %lld of them served\n", static_cast<long long>(faults),
              static_cast<long long>(served));
  return testing::result();
}
