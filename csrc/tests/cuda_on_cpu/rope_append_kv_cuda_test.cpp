// rope_append_kv on the emulator against a plain loop: every element of queries and caches, strided
// views, norms, and lengths and positions that lie.
#include <algorithm>

#include "arrays.h"
#include "kangaroo/cuda.h"

using testing::Array;
using testing::noise;

namespace {

struct Case {
  int64_t batch, nodes, q_heads, kv_heads, dim, slots;
  int64_t gap = 0;
  bool norm = false;
};

constexpr int64_t kPositions = 50;
constexpr int64_t kFirstNode = 2;
constexpr float kEps = 1e-5f;

struct Inputs {
  Case c;
  Array qkv, q, k, v, q_norm, k_norm;
  std::vector<float> table;
  std::vector<int32_t> positions, seqlens;

  int64_t heads() const { return c.q_heads + 2 * c.kv_heads; }
  int64_t qkv_stride() const { return heads() * c.dim + c.gap; }
  kangaroo_heads q_view() {
    const int64_t head = c.dim + c.gap, node = head * c.q_heads + c.gap;
    return {q.data(), q.dtype(), c.batch, c.nodes, c.q_heads, c.dim, node * c.nodes + c.gap,
            node,     head};
  }
  kangaroo_kv kv_view() {
    const int64_t slot = c.dim + c.gap, head = slot * c.slots + c.gap;
    return {k.data(),   v.data(), k.dtype(), c.batch,
            c.kv_heads, c.slots,  c.dim,     head * c.kv_heads + c.gap,
            head,       slot};
  }

  Inputs(const Case& shape, kangaroo_dtype dtype)
      : c(shape),
        qkv(dtype, noise(shape.batch * (qkv_stride() * shape.nodes + shape.gap), 1)),
        q(dtype, 0),
        k(dtype, 0),
        v(dtype, 0),
        q_norm(dtype, noise(shape.dim, 4)),
        k_norm(dtype, noise(shape.dim, 5)),
        table(noise(2 * kPositions * shape.dim / 2, 6)) {
    q = Array(dtype, c.batch * q_view().batch_stride);
    k = Array(dtype, noise(c.batch * kv_view().batch_stride, 2));
    v = Array(dtype, noise(c.batch * kv_view().batch_stride, 3));
    for (int64_t i = 0; i < c.batch * (c.nodes + 1); ++i) {
      positions.push_back(static_cast<int32_t>(i * 7 % kPositions));
    }
    for (int64_t b = 0; b < c.batch; ++b) {
      seqlens.push_back(static_cast<int32_t>(c.slots - kFirstNode - c.nodes - b));
    }
  }

  kangaroo_rope_append_kv_params params() {
    kangaroo_rope_append_kv_params p = {};
    p.qkv = {qkv.data(),  qkv.dtype(),     c.batch,
             c.nodes,     heads() * c.dim, qkv_stride() * c.nodes + c.gap,
             qkv_stride()};
    p.q = q_view();
    p.kv = kv_view();
    p.rope = {table.data(), kPositions, c.dim / 2};
    if (c.norm) {
      p.q_norm = kangaroo_vector_of(q_norm.data(), qkv.dtype(), c.dim);
      p.k_norm = kangaroo_vector_of(k_norm.data(), qkv.dtype(), c.dim);
    }
    p.nodes = {positions.data(), seqlens.data(), nullptr,   c.batch,
               c.nodes,          c.nodes + 1,    kFirstNode};
    p.eps = kEps;
    return p;
  }
};

void run(Inputs& in) {
  testing::arrive_late(in.qkv);
  kangaroo_rope_append_kv_params p = in.params();
  EXPECT(kangaroo_rope_append_kv_cuda(&p, nullptr) == KANGAROO_OK);
  cuda_on_cpu::synchronize();
}

// What is expected, and how large the products are that it is a sum of.
struct Rotated {
  std::vector<double> values, sizes;
};

// One head of one node, in doubles that are rounded where the op rounds.
Rotated rotated(const Inputs& in, int64_t from, const Array* norm, int64_t position) {
  const int64_t dim = in.c.dim, half = dim / 2;
  Array head(in.qkv.dtype(), dim);
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) squares += std::pow(in.qkv[from + i], 2);
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(dim) + kEps);
  for (int64_t i = 0; i < dim; ++i) {
    head.set(i, in.qkv[from + i]);
    if (!norm) continue;
    head.set(i, static_cast<float>(in.qkv[from + i] * inverse));
    head.set(i, head[i] * (*norm)[i]);
  }
  const float* cos = in.table.data() + position * half;
  const float* sin = cos + kPositions * half;
  Rotated out;
  for (int64_t i = 0; i < dim; ++i) {
    const double own = head[i], other = head[(i + half) % dim];
    const float c = cos[i % half], s = i < half ? -sin[i] : sin[i - half];
    out.values.push_back(own * c + other * s);
    out.sizes.push_back(std::fabs(own * c) + std::fabs(other * s));
  }
  return out;
}

bool close(const Array& got, int64_t at, const Rotated& expected, bool norm) {
  // One rounding; the norm may have rounded a number the other way, twice.
  const double allowed = (norm ? 5 : 2) * testing::half_ulp(got.dtype());
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    const double error = std::fabs(got[at + static_cast<int64_t>(i)] - expected.values[i]);
    if (!(error <= allowed * expected.sizes[i])) return false;
  }
  return true;
}

// `before` holds the caches as they were, in.positions and in.seqlens may lie.
void expect_placed(Inputs& in, Inputs& before) {
  const Case& c = in.c;
  const kangaroo_heads q = in.q_view();
  const kangaroo_kv kv = in.kv_view();
  const Array *q_norm = c.norm ? &in.q_norm : nullptr, *k_norm = c.norm ? &in.k_norm : nullptr;
  Array k = before.k, v = before.v;  // what is written is copied over, the rest must be equal
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t node = 0; node < c.nodes; ++node) {
      const int64_t row = b * (in.qkv_stride() * c.nodes + c.gap) + node * in.qkv_stride();
      const auto place = static_cast<std::size_t>(b * (c.nodes + 1) + node);
      const int64_t position =
          std::min<int64_t>(std::max<int64_t>(in.positions[place], 0), kPositions - 1);
      for (int64_t h = 0; h < c.q_heads; ++h) {
        const int64_t at = b * q.batch_stride + node * q.node_stride + h * q.head_stride;
        EXPECT(close(in.q, at, rotated(in, row + h * c.dim, q_norm, position), c.norm));
      }
      const int64_t seqlen = in.seqlens[static_cast<std::size_t>(b)];
      const int64_t slot = seqlen + kFirstNode + node;
      if (seqlen < 0 || slot >= c.slots) continue;
      for (int64_t h = 0; h < c.kv_heads; ++h) {
        const int64_t at = b * kv.batch_stride + h * kv.head_stride + slot * kv.slot_stride;
        const int64_t key = row + (c.q_heads + h) * c.dim, value = key + c.kv_heads * c.dim;
        EXPECT(close(in.k, at, rotated(in, key, k_norm, position), c.norm));
        EXPECT(in.v.same_bits(at, in.qkv, value, c.dim));
        for (int64_t i = 0; i < c.dim; ++i) {
          k.set(at + i, in.k[at + i]);
          v.set(at + i, in.v[at + i]);
        }
      }
    }
  }
  EXPECT(in.k == k);
  EXPECT(in.v == v);
  int64_t poisoned = 0;
  for (int64_t i = 0; i < in.q.count(); ++i) poisoned += std::isnan(in.q[i]);
  EXPECT(poisoned == in.q.count() - c.batch * c.nodes * c.q_heads * c.dim);
}

void check(const Case& c) {
  for (const kangaroo_dtype dtype : testing::kGpuDtypes) {
    Inputs in(c, dtype);
    Inputs before = in;
    run(in);
    expect_placed(in, before);
  }
}

void check_lies(const std::vector<int32_t>& seqlens, const std::vector<int32_t>& positions) {
  Inputs in({2, 3, 2, 1, 8, 9}, KANGAROO_BFLOAT16);
  in.seqlens = seqlens;
  for (std::size_t i = 0; i < in.positions.size(); ++i) {
    in.positions[i] = positions[i % positions.size()];
  }
  Inputs before = in;
  run(in);
  expect_placed(in, before);
}

void check_refusals() {
  Inputs in({2, 3, 2, 1, 8, 9}, KANGAROO_BFLOAT16);
  const auto refused = [&](const char* message, const auto& change) {
    kangaroo_rope_append_kv_params p = in.params();
    change(p);
    EXPECT_REFUSED(kangaroo_rope_append_kv_cuda(&p, nullptr), message);
  };
  using Params = kangaroo_rope_append_kv_params;
  EXPECT_REFUSED(kangaroo_rope_append_kv_cuda(nullptr, nullptr), "rope_append_kv: params");
  refused("qkv.width: expected 32 to 32, got 40", [](Params& p) { p.qkv.width = 40; });
  refused("head_dim: expected", [](Params& p) { p.kv.head_dim = 7; });
  refused("rope.half", [](Params& p) { p.rope.half = 3; });
  refused("rope.positions: expected at least 1", [](Params& p) { p.rope.positions = 0; });
  refused("kv: expected bfloat16, got float16", [](Params& p) { p.kv.dtype = KANGAROO_FLOAT16; });
  refused("kv.batch: expected 2, got 3", [](Params& p) { p.kv.batch = 3; });
  refused("q.nodes: expected 3, got 2", [](Params& p) { p.q.nodes = 2; });
  refused("nodes.first_node", [](Params& p) { p.nodes.first_node = -1; });
  refused("nodes.cache_seqlens", [](Params& p) { p.nodes.cache_seqlens = nullptr; });
  refused("eps: expected a number", [](Params& p) { p.eps = NAN; });
  refused("q_norm.width", [&](Params& p) {
    p.q_norm = kangaroo_vector_of(in.q_norm.data(), KANGAROO_BFLOAT16, 6);
  });
  refused("kv.v", [](Params& p) { p.kv.v = nullptr; });
}

}  // namespace

int main() {
  check({1, 1, 4, 2, 64, 8});
  check({2, 3, 4, 2, 128, 11, 0, true});
  check({3, 5, 3, 3, 16, 13, 3, true});
  check({2, 2, 0, 2, 80, 9, 1});
  check({1, 7, 1, 1, 2, 12, 0, true});
  check({2, 0, 2, 1, 8, 9});
  check({0, 2, 2, 1, 8, 9});
  check({1, 33, 5, 1, 6, 40, 5});
  check_lies({-1, INT32_MIN}, {0, 1, 2, 3});
  check_lies({5, INT32_MAX}, {-1, 49, 50, INT32_MAX, INT32_MIN});
  check_lies({-3, 4}, {50});
  check_refusals();
  return testing::result();
}
