#include "call_parts.h"
#include "kangaroo/adapter_refresh.h"
#include "kangaroo/adapter_step.h"
#include "kangaroo/decoder_layers.h"
#include "kangaroo/draft_logits.h"
#include "kangaroo/draft_tokens.h"
#include "kangaroo/draw_tokens.h"
#include "kangaroo/embedding.h"
#include "kangaroo/gated_mlp.h"
#include "kangaroo/linear.h"
#include "kangaroo/rms_norm.h"
#include "kangaroo/rope_append_kv.h"
#include "kangaroo/top1_confidence.h"
#include "kangaroo/topk_confidence.h"
#include "kangaroo/tree_attention.h"

namespace testing {
namespace {

kangaroo_vector new_vector(Call& c, int64_t width) { return vector_of(c.tensor(width)); }

kangaroo_matrix new_matrix(Call& c, int64_t rows, int64_t width) {
  return matrix_of(c.tensor(rows * width), rows);
}

kangaroo_heads new_heads(Call& c) {
  const Tensor& t = c.tensor(kRows * kQHeads * kHeadDim);
  return kangaroo_heads_of(data_of(t), c.dtype, kBatch, kNodes, kQHeads, kHeadDim);
}

kangaroo_kv new_kv(Call& c, int64_t layers = 1, int64_t batch = kBatch) {
  void* const k = data_of(c.tensor(layers * kCacheSize));
  void* const v = data_of(c.tensor(layers * kCacheSize));
  return kangaroo_kv_of(k, v, c.dtype, batch, kKvHeads, kSlots, kHeadDim);
}

kangaroo_rope new_rope(Call& c) {
  return {c.floats(2 * kPositions * (kHeadDim / 2)), kPositions, kHeadDim / 2};
}

void add_new_nodes(Call& c, kangaroo_nodes& n, bool positions = true) {
  n = {c.values(std::vector<int32_t>{5, 6, 7, 30, 31, 32}),
       c.values(std::vector<int32_t>{4, 29}),
       c.values(std::vector<int64_t>{2, 6, 10, 2, 6, 10}),
       kBatch,
       kNodes,
       kNodes,
       1};
  c.add(n, c.ints.back(), kSlots, positions ? kPositions : 0);
}

void add_rms_norm(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "rms_norm", dtype, kangaroo_rms_norm);
  c.add(p.x = new_states(c, kWidth), false);
  c.add(p.weight = new_vector(c, kWidth));
  c.add(p.out = new_states(c, kWidth), true);
  add_last(c, p);
}

void add_linear(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "linear", dtype, kangaroo_linear);
  c.add(p.x = new_states(c, kWidth), false);
  c.add(p.weight = new_matrix(c, 7, kWidth));
  c.add(p.bias = new_vector(c, 7), true);
  c.add(p.norm = new_vector(c, kWidth), true);
  c.add(p.residual = new_states(c, 7), false, true);
  c.add(p.out = new_states(c, 7), true);
  add_last(c, p);
}

void add_gated_mlp(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "gated_mlp", dtype, kangaroo_gated_mlp);
  c.add(p.x = new_states(c, kWidth), false);
  c.add(p.gate_up = new_matrix(c, 2 * kIntermediate, kWidth));
  c.add(p.down = new_matrix(c, kWidth, kIntermediate));
  c.add(p.norm = new_vector(c, kWidth));
  c.add(p.out = new_states(c, kWidth), true);
  add_last(c, p);
}

void add_embedding(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "embedding", dtype, kangaroo_embedding);
  c.address(p.tokens = c.values(std::vector<int64_t>{0, 3, 4, 1, 1, 2}));
  c.add(p.weight = new_matrix(c, 5, kWidth));
  c.add(p.out = new_states(c, kWidth), true);
  for (const int64_t bad : {int64_t{-1}, int64_t{5}, INT64_MAX, INT64_MIN}) {
    c.content(c.longs.back()[5], bad);
  }
}

void add_rope_append_kv(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "rope_append_kv", dtype, kangaroo_rope_append_kv);
  c.add(p.qkv = new_states(c, kQkvWidth), false);
  c.add(p.q = new_heads(c));
  c.add(p.kv = new_kv(c));
  c.add(p.rope = new_rope(c));
  c.add(p.q_norm = new_vector(c, kHeadDim), true);
  c.add(p.k_norm = new_vector(c, kHeadDim), true);
  add_new_nodes(c, p.nodes);
  add_last(c, p);
}

void add_tree_attention(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "tree_attention", dtype, kangaroo_tree_attention);
  c.add(p.q = new_heads(c));
  c.add(p.kv = new_kv(c));
  c.add(p.out = new_heads(c));
  add_new_nodes(c, p.nodes, false);
  p.scale = 0.3f;
  p.num_threads = 1;
  c.num_threads = &p.num_threads;
}

void add_adapter_step(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "adapter_step", dtype, kangaroo_adapter_step);
  c.add(p.h = new_states(c, kWidth), false);
  c.add(p.input_norm = new_vector(c, kWidth));
  c.add(p.qkv = new_matrix(c, kQkvWidth, kWidth));
  c.add(p.o = new_matrix(c, kWidth, kQHeads * kHeadDim));
  c.add(p.kv = new_kv(c));
  c.add(p.rope = new_rope(c));
  add_new_nodes(c, p.nodes);
  c.add(p.out = new_states(c, kWidth), true);
  add_last(c, p);
}

void add_adapter_refresh(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "adapter_refresh", dtype, kangaroo_adapter_refresh);
  c.add(p.h = new_states(c, kWidth), false);
  c.add(p.h_deep = new_states(c, kWidth), false);
  c.add(p.successor = new_states(c, kWidth), false);
  c.add(p.input_norm = new_vector(c, kWidth));
  c.add(p.deep_norm = new_vector(c, kWidth));
  c.add(p.successor_norm = new_vector(c, kWidth));
  c.add(p.deep_kv = new_matrix(c, 2 * kKvHeads * kHeadDim, 3 * kWidth));
  c.add(p.kv = new_kv(c));
  c.add(p.rope = new_rope(c));
  add_new_nodes(c, p.nodes);
  add_last(c, p);
}

void add_layer(Call& c, kangaroo_layer_weights& w) {
  const auto set = [&c](const void*& place, int64_t count, bool optional = false) {
    place = c.tensor(count).address();
    c.address(place, optional);
  };
  set(w.input_norm, kWidth);
  set(w.qkv, kQkvWidth * kWidth);
  set(w.qkv_bias, kQkvWidth, true);
  set(w.q_norm, kHeadDim, true);
  set(w.k_norm, kHeadDim, true);
  set(w.o, kWidth * kQHeads * kHeadDim);
  set(w.o_bias, kWidth, true);
  set(w.post_norm, kWidth);
  set(w.gate_up, 2 * kIntermediate * kWidth);
  set(w.down, kWidth * kIntermediate);
}

void add_layers(Call& c, kangaroo_decoder_layers_params& p, int64_t batch) {
  const auto layers = std::make_shared<std::vector<kangaroo_layer_weights>>(kLayers);
  for (kangaroo_layer_weights& layer : *layers) add_layer(c, layer);
  c.run = [layers, run = c.run](bool without) { return run(without); };
  c.address(p.layers = layers->data());
  c.add(p.kv = new_kv(c, kLayers, batch));
  c.add(p.rope = new_rope(c));
  p.num_layers = kLayers;
  p.layer_stride = kCacheSize / kBatch * batch;
  p.q_heads = kQHeads;
  p.intermediate = kIntermediate;
  c.size(p.num_layers, true);
  c.stride(p.layer_stride, true);
  c.size(p.q_heads);
  c.size(p.intermediate);
}

void add_decoder_layers(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "decoder_layers", dtype, kangaroo_decoder_layers);
  c.add(p.h = new_states(c, kWidth), false);
  add_layers(c, p, kBatch);
  add_new_nodes(c, p.nodes);
  c.add(p.out = new_states(c, kWidth), true);
  add_last(c, p);
}

void add_head(Call& c, kangaroo_draft_head& head) {
  c.add(head.weight = new_matrix(c, kVocab, kWidth));
  c.address(head.token_ids = c.values(std::vector<int32_t>{1, 2, 3, 5, 8, 13, 21, 34}), true);
  c.size(head.num_ids = 8, true);
  for (const int64_t bad : {int64_t{21}, int64_t{-1}, kVocab}) c.content(c.ints.back()[7], bad);
  c.content(c.ints.back()[0], -1);
}

// Bytes have no alignment that could be spoiled.
void add_int8_head(Call& c, kangaroo_draft_head& head) {
  head.weight = new_matrix(c, kVocab, kWidth);
  head.weight.dtype = KANGAROO_INT8;
  c.address(head.scale = c.floats(kVocab));
  for (int64_t* dim : {&head.weight.rows, &head.weight.width}) c.size(*dim);
  c.stride(head.weight.row_stride, false);
}

// Of one sequence; nobody spoils the mask, which a chain has not.
void add_chain_nodes(Call& c, kangaroo_nodes& n, int64_t count, int64_t first_node) {
  std::vector<int32_t> positions;
  while (static_cast<int64_t>(positions.size()) < count) positions.push_back(20);
  n = {c.values(positions), c.values(std::vector<int32_t>{25}), nullptr, 1, count, count,
       first_node};
  c.address(n.positions);
  c.address(n.cache_seqlens);
  for (int64_t* dim : {&n.batch, &n.nodes, &n.first_node}) c.size(*dim);
  c.stride(n.position_stride, false);
  for (const int64_t bad : {int64_t{-1}, kSlots, int64_t{INT32_MAX}})
    c.content(c.ints.back()[0], bad);
  for (const int64_t bad : {int64_t{-1}, kPositions}) c.content(c.ints[c.ints.size() - 2][0], bad);
}

void add_draft_tokens(Call& c, kangaroo_dtype dtype) {
  constexpr int64_t kCapacity = 3, kStates = 4;
  auto& p = params_of(c, "draft_tokens", dtype, kangaroo_draft_tokens);
  c.add(p.exit_states = states_of(c.tensor(kStates * kWidth), 1, kStates), true);
  c.add(p.embed = new_matrix(c, kVocab, kWidth));
  add_layers(c, p.layers, 1);
  add_chain_nodes(c, p.layers.nodes, kCapacity, 1);
  c.add(p.adapter.input_norm = new_vector(c, kWidth));
  c.add(p.adapter.qkv = new_matrix(c, kQkvWidth, kWidth));
  c.add(p.adapter.o = new_matrix(c, kWidth, kQHeads * kHeadDim));
  c.add(p.adapter.kv = new_kv(c, 1, 1));
  c.add(p.adapter.rope = new_rope(c));
  add_chain_nodes(c, p.adapter.nodes, kStates, 0);
  add_head(c, p.head);
  c.add(p.norm = new_vector(c, kWidth));
  c.address(p.confidence = c.floats(kCapacity));
  c.address(p.num_tokens = c.values(std::vector<int64_t>{0}));
  c.address(p.tokens = c.values(std::vector<int64_t>(kCapacity, 7)));
  for (const int64_t bad : {int64_t{-1}, kVocab, INT64_MAX}) c.content(c.longs.back()[0], bad);
  p.layers.eps = p.adapter.eps = 1e-5f;
  p.layers.num_threads = p.adapter.num_threads = 1;
  add_last(c, p);
}

void add_top1_confidence(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "top1_confidence", dtype, kangaroo_top1_confidence);
  const auto chain = std::make_shared<kangaroo_draft_chain>();
  c.run = [chain, run = c.run](bool without) { return run(without); };
  c.add(p.h = new_states(c, kWidth), false);
  add_head(c, p.head);
  c.add(p.norm = new_vector(c, kWidth));
  c.address(p.tokens = c.values(std::vector<int64_t>(kRows, 7)));
  c.address(p.confidence = c.floats(kRows));
  add_chain(c, *chain);
  p.chain = chain.get();
  c.address(p.chain, true);
  add_last(c, p);
}

template <void (*kAddHead)(Call&, kangaroo_draft_head&)>
void add_topk_confidence(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "topk_confidence", dtype, kangaroo_topk_confidence);
  c.add(p.h = new_states(c, kWidth), false);
  kAddHead(c, p.head);
  c.add(p.norm = new_vector(c, kWidth));
  p.k = 3;
  c.address(p.tokens = c.values(std::vector<int64_t>(static_cast<std::size_t>(kRows * p.k), 7)));
  c.address(p.confidence = c.floats(kRows * p.k));
  c.size(p.k);
  add_last(c, p);
}

void add_draft_logits(Call& c, kangaroo_dtype dtype) {
  auto& p = params_of(c, "draft_logits", dtype, kangaroo_draft_logits);
  c.add(p.h = new_states(c, kWidth), false);
  add_head(c, p.head);
  c.add(p.norm = new_vector(c, kWidth));
  const Tensor& out = c.tensor(KANGAROO_FLOAT32, kRows * p.head.num_ids);
  c.add(p.out = states_of(out, kBatch, kNodes), true);
  add_last(c, p);
}

double* new_reals(Call& c, double value, std::initializer_list<double> impossible) {
  double* const values = c.values(std::vector<double>(kBatch, value));
  for (const double bad : impossible) c.content(values[1], bad);
  return values;
}

void add_draw_tokens(Call& c, kangaroo_dtype dtype) {
  constexpr int64_t kBest = 5;
  auto& p = params_of(c, "draw_tokens", dtype, kangaroo_draw_tokens);
  const auto chain = std::make_shared<kangaroo_draft_chain>();
  c.run = [chain, run = c.run](bool without) { return run(without); };
  c.add(p.logits = states_of(c.tensor(KANGAROO_FLOAT32, kRows * kVocab), kBatch, kNodes), false);
  c.address(p.draws.temperature = new_reals(c, 0.7, {-0.5, HUGE_VAL}));
  c.address(p.draws.top_k = c.values(std::vector<int32_t>(kBatch, 9)));
  c.content(c.ints.back()[1], -1);
  c.address(p.draws.top_p = new_reals(c, 0.8, {-0.5, 1.5}));
  c.address(p.draws.min_p = new_reals(c, 0.1, {-0.5, 1.5}));
  c.address(p.draws.seed = c.values(std::vector<int64_t>(kBatch, -1)));
  c.address(p.draws.sequence = c.values(std::vector<int64_t>(kBatch, UINT32_MAX)));
  for (const int64_t bad : {int64_t{-1}, int64_t{1} << 32}) c.content(c.longs.back()[1], bad);
  c.address(p.positions = c.values(std::vector<int32_t>(kRows, INT32_MAX - 1)));
  for (const int64_t bad : {-1, INT32_MAX}) c.content(c.ints.back()[kRows - 1], bad);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < kVocab; ++id) ids.push_back(3 * id);
  c.address(p.token_ids = c.values(ids), true);
  c.content(c.ints.back()[0], -1);
  c.content(c.ints.back()[kVocab - 1], ids[kVocab - 2]);
  c.address(p.tokens = c.values(std::vector<int64_t>(kRows * kBest, 7)));
  c.address(p.shares = c.floats(kRows * kBest));
  c.size(p.k = kBest);
  add_chain(c, *chain);
  p.chain = chain.get();
  c.address(p.chain, true);
  p.num_threads = 1;
  c.num_threads = &p.num_threads;
}

}  // namespace

std::deque<Call> every_call(kangaroo_dtype dtype) {
  constexpr void (*kAll[])(Call&, kangaroo_dtype) = {
      add_rms_norm,        add_linear,          add_gated_mlp,
      add_embedding,       add_adapter_step,    add_rope_append_kv,
      add_adapter_refresh, add_tree_attention,  add_decoder_layers,
      add_draft_tokens,    add_top1_confidence, add_topk_confidence<add_head>,
      add_verify_tree,     add_compact_kv,      add_topk_confidence<add_int8_head>,
      add_draft_logits,    add_commit_path,     add_grow_tree,
      add_draw_tokens,     add_copy_draft};
  std::deque<Call> calls;
  for (const auto add : kAll) {
    calls.emplace_back();
    add(calls.back(), dtype);
  }
  return calls;
}

}  // namespace testing
