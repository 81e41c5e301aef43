// decoder_layers is linear, rope_append_kv, tree_attention, linear and gated_mlp in turn, layer by
// layer: the same bits as those ops one by one, and nothing written by a call that fails.
#include "kangaroo/decoder_layers.h"

#include "steps.h"

using testing::noise;
using testing::Place;
using testing::Spread;
using testing::Tensor;

namespace {

constexpr int64_t kLayers = 3, kHidden = 37, kQHeads = 4, kKvHeads = 2, kHeadDim = 10;
constexpr int64_t kIntermediate = 29, kSlots = 64, kNodes = 3;
constexpr int64_t kQWidth = kQHeads * kHeadDim, kKvWidth = kKvHeads * kHeadDim;
constexpr int64_t kQkvWidth = kQWidth + 2 * kKvWidth;
constexpr float kEps = 1e-5f;

struct Case {
  kangaroo_dtype dtype;
  int64_t batch;
  bool optional;  // biases and head norms
  bool tree;
  bool layers_inside;  // caches in the order [batch, layers, heads, slots, head_dim]
};

struct Layer {
  Layer(kangaroo_dtype dtype, unsigned seed)
      : input_norm(noise(dtype, kHidden, seed)),
        qkv(noise(dtype, kQkvWidth * kHidden, seed + 1, 0.2f)),
        qkv_bias(noise(dtype, kQkvWidth, seed + 2)),
        q_norm(noise(dtype, kHeadDim, seed + 3)),
        k_norm(noise(dtype, kHeadDim, seed + 4)),
        o(noise(dtype, kHidden * kQWidth, seed + 5, 0.2f)),
        o_bias(noise(dtype, kHidden, seed + 6)),
        post_norm(noise(dtype, kHidden, seed + 7)),
        gate_up(noise(dtype, 2 * kIntermediate * kHidden, seed + 8, 0.2f)),
        down(noise(dtype, kHidden * kIntermediate, seed + 9, 0.2f)) {}
  Tensor input_norm, qkv, qkv_bias, q_norm, k_norm, o, o_bias, post_norm, gate_up, down;

  kangaroo_layer_weights weights(bool optional) const {
    const auto maybe = [optional](const Tensor& t) { return optional ? t.address() : nullptr; };
    return {input_norm.address(), qkv.address(), maybe(qkv_bias), maybe(q_norm),
            maybe(k_norm),        o.address(),   maybe(o_bias),   post_norm.address(),
            gate_up.address(),    down.address()};
  }
};

struct State : Case {
  explicit State(const Case& c) : Case(c) {
    for (unsigned number = 0; number < kLayers; ++number) {
      layers.emplace_back(dtype, 20 * (number + 1));
      weights.push_back(layers.back().weights(optional));
    }
  }
  std::vector<Layer> layers;
  std::vector<kangaroo_layer_weights> weights;
  Tensor h = noise(dtype, batch * kNodes * kHidden, 1);
  Tensor k = noise(dtype, kLayers * batch * kKvWidth * kSlots, 2);
  Tensor v = noise(dtype, kLayers * batch * kKvWidth * kSlots, 3);
  Tensor table = noise(KANGAROO_FLOAT32, kSlots* kHeadDim, 4);
  std::vector<int32_t> positions = {20, 21, 21, 31, 32, 32}, seqlens = {19, 30};
  std::vector<int64_t> ancestors = {2, 6, 10, 2, 6, 10};  // two children of node 1

  int64_t layer_stride() const { return (layers_inside ? 1 : batch) * kKvWidth * kSlots; }
  Place place(int64_t layer) const {
    const int64_t at = layer * layer_stride();
    Place p = {};
    p.kv = kangaroo_kv_of(data_of(k), data_of(v), dtype, batch, kKvHeads, kSlots, kHeadDim);
    p.kv.k = const_cast<char*>(k.address(at));
    p.kv.v = const_cast<char*>(v.address(at));
    if (layers_inside) p.kv.batch_stride *= kLayers;
    p.rope = {reinterpret_cast<const float*>(table.address()), kSlots, kHeadDim / 2};
    p.nodes = {positions.data(),
               seqlens.data(),
               tree ? ancestors.data() : nullptr,
               batch,
               kNodes,
               kNodes,
               1};
    p.eps = kEps;
    return p;
  }
};

Tensor by_ops(const State& s) {
  Tensor h = s.h;
  for (int64_t number = 0; number < kLayers; ++number) {
    const Layer& w = s.layers[static_cast<std::size_t>(number)];
    const Place at = s.place(number);
    const auto maybe = [&s](const Tensor& t) { return s.optional ? &t : nullptr; };
    const Tensor qkv = linear(at, h, w.qkv, {&w.input_norm, maybe(w.qkv_bias), nullptr});
    const Tensor heads = attend(at, append(at, qkv, kQHeads, maybe(w.q_norm), maybe(w.k_norm)));
    h = linear(at, heads, w.o, {nullptr, maybe(w.o_bias), &h});
    h = gated_mlp(at, h, w.post_norm, w.gate_up, w.down);
  }
  return h;
}

kangaroo_decoder_layers_params params_of(const State& s, const kangaroo_states& h,
                                         const kangaroo_states& out, int32_t threads) {
  const Place at = s.place(0);
  kangaroo_decoder_layers_params p = {};
  p.h = h;
  p.layers = s.weights.data();
  p.kv = at.kv;
  p.rope = at.rope;
  p.nodes = at.nodes;
  p.out = out;
  p.num_layers = kLayers;
  p.layer_stride = s.layer_stride();
  p.q_heads = kQHeads;
  p.intermediate = kIntermediate;
  p.eps = kEps;
  p.num_threads = threads;
  return p;
}

void test_bits(const Case& c) {
  const State reference(c);
  const Tensor expected = by_ops(reference);
  for (const int32_t threads : {1, 3}) {
    const State s(c);
    const Spread h = testing::spread(s.h, c.batch, kNodes);
    const Spread out = testing::spread(Tensor(c.dtype, s.h.size()), c.batch, kNodes);
    const kangaroo_decoder_layers_params p = params_of(s, h.view, out.view, threads);
    EXPECT(kangaroo_decoder_layers(&p) == KANGAROO_OK);
    EXPECT(holds(out, expected));
    EXPECT(s.k == reference.k && s.v == reference.v);
  }
}

// A fault in the last layer, or one that only the contents show, is found in front of the first.
void test_refusals_write_nothing(const Case& c) {
  State s(c);
  const State before(c);
  const Tensor out(c.dtype, s.h.size());
  const auto valid =
      params_of(s, states_of(s.h, c.batch, kNodes), states_of(out, c.batch, kNodes), 1);
  const auto refused = [&](const kangaroo_decoder_layers_params& p) {
    return kangaroo_decoder_layers(&p) == KANGAROO_INVALID_ARGUMENT;
  };
  s.weights.back().down = nullptr;
  EXPECT(refused(valid));
  s.weights = before.weights;
  s.weights.back().post_norm = s.layers.back().post_norm.address() + 1;
  EXPECT(refused(valid));
  s.weights = before.weights;
  for (const int64_t stride : {int64_t{0}, s.layer_stride() - 1, int64_t{-1}}) {
    kangaroo_decoder_layers_params p = valid;
    p.layer_stride = stride;  // layers that share slots
    EXPECT(refused(p));
  }
  s.seqlens.front() = kSlots - kNodes;
  EXPECT(refused(valid));
  s.seqlens = before.seqlens;
  s.positions[2] = kSlots;
  EXPECT(refused(valid));
  EXPECT(s.k == before.k && s.v == before.v);
  EXPECT(out == Tensor(c.dtype, s.h.size()));
}

}  // namespace

int main() {
  testing::for_each_isa([] {
    for (const kangaroo_dtype dtype : testing::kDtypes) {
      for (const int64_t batch : {1, 2}) {
        for (const bool optional : {false, true}) {
          for (const bool tree : {false, true}) {
            test_bits({dtype, batch, optional, tree, optional != tree});
          }
        }
      }
      test_refusals_write_nothing({dtype, 2, true, true, false});
      test_refusals_write_nothing({dtype, 2, false, false, true});
    }
  });
  return testing::result();
}
