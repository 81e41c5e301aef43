// How a C++ program embeds libkangaroo: draft, verify, accept, roll back, through the C ABI alone.
//
//   decode_cpp WEIGHTS NUM_NEW_TOKENS MAX_DEPTH CONFIDENCE TOKEN...
//
// WEIGHTS is what `kangaroo export` writes, TOKEN... the prompt. The new ids go to standard output,
// what drafting did to standard error. MAX_DEPTH 0 decodes one token at a time: the same ids.
#include <kangaroo/adapter_refresh.h>
#include <kangaroo/adapter_step.h>
#include <kangaroo/compact_kv.h>
#include <kangaroo/embedding.h>
#include <kangaroo/linear.h>
#include <kangaroo/top1_confidence.h>
#include <kangaroo/tree_attention.h>
#include <kangaroo/verify_tree.h>

#include <algorithm>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "model_cpp.h"

namespace {

constexpr int64_t kPrefillChunk = 256;  // prompt tokens per pass: bounds the memory of states

// Rows by slot, [planes, heads, slots, width]. Keys and values: two planes a layer.
class Cache {
 public:
  Cache(kangaroo_dtype dtype, int64_t planes, int64_t heads, int64_t slots, int64_t width)
      : item_(dtype == KANGAROO_FLOAT32 ? 4 : 2), plane_(heads * slots * width) {
    memory_.resize(planes * plane_ * item_);
    slots_.data = memory_.data();
    slots_.dtype = dtype;
    slots_.planes = planes;
    slots_.heads = heads;
    slots_.slots = slots;
    slots_.width = width;
    slots_.plane_stride = plane_;
    slots_.batch_stride = planes * plane_;
    slots_.head_stride = slots * width;
    slots_.slot_stride = width;
  }
  const kangaroo_slot_cache& all() const { return slots_; }
  // Of the first layer; those of the next lie layer_stride() values further on.
  kangaroo_kv kv() {
    return kangaroo_kv_of(memory_.data(), memory_.data() + plane_ * item_, slots_.dtype, 1,
                          slots_.heads, slots_.slots, slots_.width);
  }
  int64_t layer_stride() const { return 2 * plane_; }
  // A cache of states, one plane and one head: those of slots [start, start + count).
  kangaroo_states states(int64_t start, int64_t count) {
    return kangaroo_states_of(memory_.data() + start * slots_.width * item_, slots_.dtype, 1, count,
                              slots_.width);
  }

 private:
  int64_t item_, plane_;
  std::vector<char> memory_;
  kangaroo_slot_cache slots_ = {};
};

// One sequence. Slots [0, length_) are committed; the root, the newest token, is in no cache yet.
class Decoder {
 public:
  Decoder(const Model& model, int64_t context, int64_t max_depth, float confidence)
      : m(model),
        max_depth_(max_depth),
        confidence_(confidence),
        slots_((context + KANGAROO_KV_CHUNK - 1) / KANGAROO_KV_CHUNK * KANGAROO_KV_CHUNK),
        shallow_(m.dtype, 2 * m.exit_layer, m.kv_heads, slots_, m.head_dim),
        deep_(m.dtype, 2 * (num_layers() - m.exit_layer), m.kv_heads, slots_, m.head_dim),
        adapter_(m.dtype, 2, m.adapter_kv_heads, slots_, m.head_dim),
        exit_states_(m.dtype, 1, 1, slots_, m.hidden),
        before_(m.dtype, 1, 1, kPrefillChunk, m.hidden),
        behind_(m.dtype, 1, 1, kPrefillChunk, m.hidden),
        logits_((max_depth + 1) * m.vocab),
        positions_(slots_) {
    std::iota(positions_.begin(), positions_.end(), 0);
  }

  // All tokens of the prompt but the last go through every layer; the last is the first root.
  void prefill(const std::vector<int64_t>& prompt) {
    const auto history = static_cast<int64_t>(prompt.size()) - 1;
    while (length_ < history) {
      const int64_t count = std::min(kPrefillChunk, history - length_);
      run_shallow(&prompt[length_], length_, count);
      run_deep(length_, count);
      if (max_depth_ > 0) write_verified(length_, count, &prompt[length_ + 1]);
      length_ += count;
    }
    root_ = prompt.back();
  }

  // One round: at least one new token, and at most `most`.
  std::vector<int64_t> round(int64_t most) {
    // Draft: the root and what the adapter guesses behind it, while it is sure.
    const int64_t depth = std::min(max_depth_, most - 1);
    std::vector<int64_t> tokens(depth + 1, root_);
    std::vector<int32_t> positions(tokens.size(), static_cast<int32_t>(length_));
    int32_t num_nodes = 1, stopped = depth == 0;
    kangaroo_draft_chain chain = {};
    chain.tokens = tokens.data();
    chain.positions = positions.data();
    chain.num_nodes = &num_nodes;
    chain.stopped = &stopped;
    chain.threshold = &confidence_;
    chain.batch = 1;
    chain.capacity = depth + 1;
    run_shallow(tokens.data(), length_, 1);
    while (!stopped) {
      guess(length_ + num_nodes, chain);  // appends a node
      run_shallow(&tokens[num_nodes - 1], length_ + num_nodes - 1, 1);
    }

    // Verify: all nodes through the remaining layers at once, then the head.
    run_deep(length_, num_nodes);
    kangaroo_linear_params head = {};
    head.x = behind_.states(0, num_nodes);
    head.weight = m.head;
    head.norm = m.norm;
    head.out = kangaroo_states_of(logits_.data(), KANGAROO_FLOAT32, 1, num_nodes, m.vocab);
    head.eps = m.eps;
    head.num_threads = num_threads_;
    must(kangaroo_linear(&head));

    // Accept: the path from the root that the target would have taken, and one token more.
    std::vector<int64_t> parents(tokens.size()), path(tokens.size()), successors(tokens.size());
    std::iota(parents.begin(), parents.end(), -1);
    int32_t path_len = 0;
    kangaroo_verify_tree_params verify = {};
    verify.logits = head.out;
    verify.tokens = tokens.data();
    verify.parents = parents.data();
    verify.path = path.data();
    verify.path_len = &path_len;
    verify.bonus = &root_;
    verify.successors = successors.data();
    must(kangaroo_verify_tree(&verify));
    if (max_depth_ > 0 && m.adapter_kind == "deep_prefix") {
      write_verified(length_, num_nodes, successors.data());
    }

    // Roll back: a length shrinks. Only a path through a tree leaves gaps, which are closed.
    if (path[path_len - 1] != path_len - 1) {
      const auto committed = static_cast<int32_t>(length_);
      const kangaroo_slot_cache caches[] = {shallow_.all(), deep_.all(), adapter_.all(),
                                            exit_states_.all()};
      kangaroo_compact_kv_params compact = {};
      compact.caches = caches;
      compact.num_caches = 4;
      compact.path = path.data();
      compact.path_len = &path_len;
      compact.path_stride = num_nodes;
      compact.cache_seqlens = &committed;
      compact.batch = 1;
      must(kangaroo_compact_kv(&compact));
    }
    length_ += path_len;
    adapter_length_ = std::min(adapter_length_, length_);
    num_drafted_ += num_nodes - 1;

    std::vector<int64_t> accepted;
    for (int32_t j = 1; j < path_len; ++j) {
      accepted.push_back(tokens[path[j]]);
    }
    accepted.push_back(root_);
    return accepted;
  }

  int64_t num_drafted() const { return num_drafted_; }

 private:
  int64_t num_layers() const { return static_cast<int64_t>(m.layers.size()); }

  // A chain of nodes: each stands in slot and at position `start` + i and sees all before it.
  kangaroo_nodes chain_at(int64_t start, int64_t count) {
    start_ = static_cast<int32_t>(start);
    kangaroo_nodes nodes = {};
    nodes.positions = positions_.data() + start;
    nodes.cache_seqlens = &start_;
    nodes.batch = 1;
    nodes.nodes = nodes.position_stride = count;
    return nodes;
  }

  void run_layers(const kangaroo_states& h, int64_t first, int64_t last, Cache& cache,
                  int64_t start, const kangaroo_states& out) {
    kangaroo_decoder_layers_params p = {};
    p.h = h;
    p.layers = m.layers.data() + first;
    p.num_layers = last - first;
    p.kv = cache.kv();
    p.layer_stride = cache.layer_stride();
    p.rope = m.rope;
    p.nodes = chain_at(start, h.nodes);
    p.out = out;
    p.q_heads = m.q_heads;
    p.intermediate = m.intermediate;
    p.eps = m.eps;
    p.num_threads = num_threads_;
    must(kangaroo_decoder_layers(&p));
  }

  // Layers [0, E): what the drafter and the target share.
  void run_shallow(const int64_t* tokens, int64_t start, int64_t count) {
    kangaroo_embedding_params p = {};
    p.tokens = tokens;
    p.weight = m.embed;
    p.out = before_.states(0, count);
    must(kangaroo_embedding(&p));
    run_layers(p.out, 0, m.exit_layer, shallow_, start, exit_states_.states(start, count));
  }

  // Layers [E, L), from the exit states.
  void run_deep(int64_t start, int64_t count) {
    run_layers(exit_states_.states(start, count), m.exit_layer, num_layers(), deep_, start,
               behind_.states(0, count));
  }

  // The adapter on all exit states below `stop` that it has not seen; returns the last state.
  kangaroo_states step(int64_t stop) {
    kangaroo_adapter_step_params p = {};
    p.h = exit_states_.states(adapter_length_, stop - adapter_length_);
    p.input_norm = m.adapter_input_norm;
    p.qkv = m.adapter_qkv;
    p.o = m.adapter_o;
    p.kv = adapter_.kv();
    p.rope = m.rope;
    p.nodes = chain_at(adapter_length_, p.h.nodes);
    p.out = before_.states(0, p.h.nodes);
    p.eps = m.adapter_eps;
    p.num_threads = num_threads_;
    must(kangaroo_adapter_step(&p));
    adapter_length_ = stop;
    return before_.states(p.h.nodes - 1, 1);
  }

  // The token that the adapter expects in slot `stop`, appended to the chain.
  void guess(int64_t stop, const kangaroo_draft_chain& chain) {
    int64_t token = 0;
    float confidence = 0;
    kangaroo_top1_confidence_params p = {};
    p.h = step(stop);
    p.head.weight = m.head;
    p.norm = m.adapter_norm;
    p.tokens = &token;
    p.confidence = &confidence;
    p.chain = &chain;
    p.eps = m.adapter_eps;
    p.num_threads = num_threads_;
    must(kangaroo_top1_confidence(&p));
  }

  // The adapter's keys and values of slots that the deep layers have just passed over, and behind
  // which `successors` stand.
  void write_verified(int64_t start, int64_t count, const int64_t* successors) {
    adapter_length_ = start;
    if (m.adapter_kind != "deep_prefix") {
      step(start + count);  // from the exit states alone
      return;
    }
    kangaroo_embedding_params next = {};
    next.tokens = successors;
    next.weight = m.embed;
    next.out = before_.states(0, count);
    must(kangaroo_embedding(&next));
    kangaroo_adapter_refresh_params p = {};
    p.h = exit_states_.states(start, count);
    p.h_deep = behind_.states(0, count);
    p.successor = next.out;
    p.input_norm = m.adapter_input_norm;
    p.deep_norm = m.deep_norm;
    p.successor_norm = m.successor_norm;
    p.deep_kv = m.deep_kv;
    p.kv = adapter_.kv();
    p.rope = m.rope;
    p.nodes = chain_at(start, count);
    p.eps = m.adapter_eps;
    p.num_threads = num_threads_;
    must(kangaroo_adapter_refresh(&p));
    adapter_length_ = start + count;
  }

  const Model& m;
  const int64_t max_depth_;
  const float confidence_;
  const int64_t slots_;
  const int32_t num_threads_ = static_cast<int32_t>(std::thread::hardware_concurrency());
  Cache shallow_, deep_, adapter_, exit_states_;
  Cache before_, behind_;  // states of a pass: before the layers, behind the last
  std::vector<float> logits_;
  std::vector<int32_t> positions_;  // 0, 1, 2, ...
  int32_t start_ = 0;
  int64_t length_ = 0, adapter_length_ = 0, root_ = 0, num_drafted_ = 0;
};

void decode(const std::vector<std::string>& arguments) {
  if (arguments.size() < 5) {
    throw std::runtime_error(
        "usage: decode_cpp WEIGHTS NUM_NEW_TOKENS MAX_DEPTH CONFIDENCE TOKEN...");
  }
  const Model model(arguments[0].c_str());
  auto left = parse<int64_t>("NUM_NEW_TOKENS", arguments[1]);
  const auto max_depth = parse<int64_t>("MAX_DEPTH", arguments[2]);
  const auto confidence = parse<float>("CONFIDENCE", arguments[3]);
  std::vector<int64_t> prompt;
  for (std::size_t i = 4; i < arguments.size(); ++i) {
    prompt.push_back(parse<int64_t>("TOKEN", arguments[i]));
  }
  const auto room = model.rope.positions - static_cast<int64_t>(prompt.size());
  if (left < 0 || left > room) {
    throw std::runtime_error("NUM_NEW_TOKENS: expected 0 to " + std::to_string(room) +
                             " behind this prompt, got " + std::to_string(left));
  }
  if (max_depth < 0 || max_depth >= KANGAROO_MAX_TREE_NODES) {
    throw std::runtime_error("MAX_DEPTH: expected 0 to 63, got " + std::to_string(max_depth));
  }
  if (max_depth > 0 && model.adapter_kind == "none") {
    throw std::runtime_error("MAX_DEPTH: expected 0, there is no adapter to draft with");
  }
  Decoder decoder(model, static_cast<int64_t>(prompt.size()) + left, max_depth, confidence);
  decoder.prefill(prompt);
  int64_t num_rounds = 0;
  while (left > 0) {
    ++num_rounds;
    for (const int64_t token : decoder.round(left)) {
      std::cout << token << ' ';
      --left;
      if (std::find(model.eos.begin(), model.eos.end(), token) == model.eos.end()) continue;
      left = 0;
      break;
    }
  }
  std::cout << '\n';
  std::cerr << num_rounds << " rounds, " << decoder.num_drafted() << " tokens drafted\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    decode(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
