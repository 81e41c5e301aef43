// Every op of the C ABI called on small valid parameters, and what about them can be spoiled.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "kangaroo/compact_kv.h"
#include "kangaroo/draft_head.h"
#include "testing.h"

namespace testing {

struct Call {
  struct Size {
    int64_t* value;
    int view;     // sizes of one view have the same number
    bool counts;  // of an array that is read before all other parameters were judged
  };
  struct Stride {
    int64_t* value;
    bool apart;  // there are several rows, which may not overlap
  };
  struct Address {
    void* place;  // of the pointer
    bool optional;
  };
  // A value that parameters point to, in 32 or 64 bits, and what it may not be.
  struct Content {
    int32_t* narrow;
    int64_t* wide;
    int64_t bad;
  };

  struct Real {
    double* value;
    double bad;
  };

  std::string op;
  std::function<kangaroo_status(bool without_params)> run;
  std::vector<Size> sizes;
  std::vector<Stride> strides;
  std::vector<Address> addresses;
  std::vector<kangaroo_dtype*> dtypes;
  std::vector<Content> contents;
  std::vector<Real> reals;
  float* eps = nullptr;
  int32_t* num_threads = nullptr;
  kangaroo_dtype dtype = KANGAROO_FLOAT32;
  std::deque<Tensor> tensors;
  std::deque<std::vector<int32_t>> ints;
  std::deque<std::vector<int64_t>> longs;
  std::deque<std::vector<double>> doubles;

  const Tensor& tensor(int64_t count) { return tensor(dtype, count); }
  const Tensor& tensor(kangaroo_dtype type, int64_t count) {
    tensors.push_back(noise(type, count, static_cast<unsigned>(tensors.size())));
    return tensors.back();
  }
  float* floats(int64_t count) {
    return static_cast<float*>(data_of(tensor(KANGAROO_FLOAT32, count)));
  }
  int32_t* values(std::vector<int32_t> values) {
    ints.push_back(std::move(values));
    return ints.back().data();
  }
  int64_t* values(std::vector<int64_t> values) {
    longs.push_back(std::move(values));
    return longs.back().data();
  }
  double* values(std::vector<double> values) {
    doubles.push_back(std::move(values));
    return doubles.back().data();
  }

  void size(int64_t& value, bool counts = false) { sizes.push_back({&value, views_, counts}); }
  void stride(int64_t& value, bool apart) { strides.push_back({&value, apart}); }
  template <class T>
  void address(T*& pointer, bool optional = false) {
    ++views_;
    addresses.push_back({&pointer, optional});
  }
  void content(int32_t& value, int64_t bad) { contents.push_back({&value, nullptr, bad}); }
  void content(int64_t& value, int64_t bad) { contents.push_back({nullptr, &value, bad}); }

  void content(double& value, double bad) { reals.push_back({&value, bad}); }

  void add(kangaroo_vector& v, bool optional = false) {
    address(v.data, optional);
    dtypes.push_back(&v.dtype);
    size(v.width);
  }
  void add(kangaroo_matrix& m) {
    address(m.data);
    dtypes.push_back(&m.dtype);
    size(m.rows);
    size(m.width);
    stride(m.row_stride, false);
  }
  void add(kangaroo_states& s, bool apart, bool optional = false) {
    address(s.data, optional);
    dtypes.push_back(&s.dtype);
    for (int64_t* dim : {&s.batch, &s.nodes, &s.width}) size(*dim);
    stride(s.batch_stride, apart && s.batch > 1);
    stride(s.node_stride, apart && s.nodes > 1);
  }
  void add(kangaroo_heads& h) {
    address(h.data);
    dtypes.push_back(&h.dtype);
    for (int64_t* dim : {&h.batch, &h.nodes, &h.heads, &h.head_dim}) size(*dim);
    for (int64_t* step : {&h.batch_stride, &h.node_stride, &h.head_stride}) stride(*step, true);
  }
  void add(kangaroo_kv& kv) {
    address(kv.k);
    address(kv.v);
    dtypes.push_back(&kv.dtype);
    for (int64_t* dim : {&kv.batch, &kv.heads, &kv.slots, &kv.head_dim}) size(*dim);
    stride(kv.batch_stride, kv.batch > 1);
    for (int64_t* step : {&kv.head_stride, &kv.slot_stride}) stride(*step, true);
  }
  void add(kangaroo_rope& rope) {
    address(rope.table);
    size(rope.positions);
    size(rope.half);
  }
  void add(kangaroo_slot_cache& c) {
    address(c.data);
    dtypes.push_back(&c.dtype);
    for (int64_t* dim : {&c.planes, &c.heads, &c.slots, &c.width}) size(*dim);
    for (int64_t* step : {&c.plane_stride, &c.batch_stride, &c.head_stride, &c.slot_stride}) {
      stride(*step, true);
    }
  }
  // Lengths and positions are spoiled too: `slots` and `positions` are the capacities;
  // 0 positions: none are read.
  void add(kangaroo_nodes& n, std::vector<int32_t>& lengths, int64_t slots, int64_t positions) {
    if (positions > 0) address(n.positions);
    address(n.cache_seqlens);
    address(n.ancestors, true);
    for (int64_t* dim : {&n.batch, &n.nodes, &n.first_node}) size(*dim);
    if (positions > 0) stride(n.position_stride, false);
    for (const int64_t bad : {int64_t{-1}, slots - n.first_node - n.nodes + 1, slots,
                              int64_t{INT32_MAX}, int64_t{INT32_MIN}}) {
      content(lengths[1], bad);
    }
    if (positions <= 0) return;
    auto* last = const_cast<int32_t*>(n.positions) + n.position_stride + n.nodes - 1;
    for (const int64_t bad : {int64_t{-1}, positions, int64_t{INT32_MAX}}) content(*last, bad);
  }

 private:
  int views_ = 0;
};

// Calls whose params stay where they are, with `op` as the entry point.
template <class Params>
Params& params_of(Call& call, const char* name, kangaroo_dtype dtype,
                  kangaroo_status (*op)(const Params*)) {
  const auto params = std::make_shared<Params>();
  call.op = name;
  call.dtype = dtype;
  call.run = [params, op](bool without) { return op(without ? nullptr : params.get()); };
  return *params;
}

template <class Params>
void add_last(Call& call, Params& p) {
  p.eps = 1e-5f;
  p.num_threads = 1;
  call.eps = &p.eps;
  call.num_threads = &p.num_threads;
}

std::deque<Call> every_call(kangaroo_dtype dtype);

}  // namespace testing
