// What `kangaroo export` writes, as the views that libkangaroo's ops take.
#pragma once

#include <kangaroo/decoder_layers.h>
#include <kangaroo/weights.h>

#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

inline void must(kangaroo_status status) {
  if (status != KANGAROO_OK) throw std::runtime_error(kangaroo_last_error());
}

template <class Value>
Value parse(const std::string& what, const std::string& text) {
  std::istringstream stream(text);
  Value value{};
  if (!(stream >> value) || !stream.eof()) {
    throw std::runtime_error(what + ": expected a number, got '" + text + "'");
  }
  return value;
}

// Views of what is in the file, which is mapped: nothing is copied, and every shape is checked.
struct Model {
  explicit Model(const char* path) {
    kangaroo_weights* opened = nullptr;
    must(kangaroo_weights_open(path, &opened));
    file.reset(opened);
    if (text("format") != "kangaroo" || text("format_version") != "1") {
      throw std::runtime_error(std::string(path) + ": not an export of kangaroo, version 1");
    }
    dtype = text("dtype") == "bfloat16" ? KANGAROO_BFLOAT16 : KANGAROO_FLOAT32;
    hidden = number("hidden_size"), vocab = number("vocab_size");
    intermediate = number("intermediate_size"), exit_layer = number("exit_layer");
    q_heads = number("num_heads"), kv_heads = number("num_kv_heads");
    head_dim = number("head_dim");
    eps = parse<float>("rms_norm_eps", text("rms_norm_eps"));
    embed = matrix("embed", vocab, hidden);
    head = has("lm_head") ? matrix("lm_head", vocab, hidden) : embed;
    norm = vector("norm", hidden);
    const int64_t num_layers = number("num_layers");
    if (exit_layer < 1 || exit_layer >= num_layers) {
      throw std::runtime_error("exit_layer: expected 1 to " + std::to_string(num_layers - 1) +
                               ", got " + std::to_string(exit_layer));
    }
    layers.resize(num_layers);
    for (int64_t i = 0; i < num_layers; ++i) {
      layers[i] = layer("layers." + std::to_string(i) + ".");
    }
    rope = {nullptr, number("max_seq_len"), head_dim / 2};
    kangaroo_tensor_info table = {};
    must(kangaroo_weights_find(file.get(), "rope", &table));
    if (table.dtype != KANGAROO_FLOAT32 || table.rank != 3 || table.sizes[0] != 2 ||
        table.sizes[1] != rope.positions || table.sizes[2] != rope.half) {
      throw std::runtime_error("rope: expected a float32 [2, max_seq_len, head_dim / 2]");
    }
    rope.table = static_cast<const float*>(table.data);
    std::istringstream ids(text("eos_token_ids"));
    for (std::string id; std::getline(ids, id, ',');) eos.push_back(parse<int64_t>("eos", id));
    adapter_kind = text("adapter_kind");
    if (adapter_kind != "none") read_adapter();
  }

  void read_adapter() {
    adapter_q_heads = number("adapter_num_heads");
    adapter_kv_heads = number("adapter_num_kv_heads");
    adapter_eps = parse<float>("adapter_rms_norm_eps", text("adapter_rms_norm_eps"));
    const int64_t q = adapter_q_heads * head_dim, kv = 2 * adapter_kv_heads * head_dim;
    adapter_input_norm = vector("adapter.input_norm", hidden);
    adapter_qkv = matrix("adapter.qkv", q + kv, hidden);
    adapter_o = matrix("adapter.o", hidden, q);
    adapter_norm = vector("adapter.norm", hidden);
    if (adapter_kind != "deep_prefix") return;
    deep_norm = vector("adapter.deep_norm", hidden);
    successor_norm = vector("adapter.successor_norm", hidden);
    deep_kv = matrix("adapter.deep_kv", kv, 3 * hidden);
  }

  kangaroo_layer_weights layer(const std::string& prefix) const {
    const int64_t q = q_heads * head_dim, qkv = q + 2 * kv_heads * head_dim;
    const auto optional = [&](const std::string& name, int64_t width) -> const void* {
      return has(prefix + name) ? vector(prefix + name, width).data : nullptr;
    };
    kangaroo_layer_weights w = {};
    w.input_norm = vector(prefix + "input_norm", hidden).data;
    w.qkv = matrix(prefix + "qkv", qkv, hidden).data;
    w.qkv_bias = optional("qkv_bias", qkv);
    w.q_norm = optional("q_norm", head_dim);
    w.k_norm = optional("k_norm", head_dim);
    w.o = matrix(prefix + "o", hidden, q).data;
    w.o_bias = optional("o_bias", hidden);
    w.post_norm = vector(prefix + "post_norm", hidden).data;
    w.gate_up = matrix(prefix + "gate_up", 2 * intermediate, hidden).data;
    w.down = matrix(prefix + "down", hidden, intermediate).data;
    return w;
  }

  bool has(const std::string& name) const { return kangaroo_weights_has(file.get(), name.c_str()); }
  std::string text(const char* key) const {
    const char* value = kangaroo_weights_metadata(file.get(), key);
    return value ? value : "";
  }
  int64_t number(const char* key) const { return parse<int64_t>(key, text(key)); }
  kangaroo_vector vector(const std::string& name, int64_t width) const {
    kangaroo_vector view = {};
    must(kangaroo_weights_vector(file.get(), name.c_str(), dtype, width, &view));
    return view;
  }
  kangaroo_matrix matrix(const std::string& name, int64_t rows, int64_t width) const {
    kangaroo_matrix view = {};
    must(kangaroo_weights_matrix(file.get(), name.c_str(), dtype, rows, width, &view));
    return view;
  }

  std::unique_ptr<kangaroo_weights, decltype(&kangaroo_weights_close)> file{nullptr,
                                                                            kangaroo_weights_close};
  kangaroo_dtype dtype;
  int64_t hidden, vocab, intermediate, exit_layer, q_heads, kv_heads, head_dim;
  float eps;
  kangaroo_matrix embed, head;
  kangaroo_vector norm;
  std::vector<kangaroo_layer_weights> layers;
  kangaroo_rope rope;
  std::vector<int64_t> eos;
  std::string adapter_kind;
  int64_t adapter_q_heads = 0, adapter_kv_heads = 0;
  float adapter_eps = 0;
  kangaroo_vector adapter_input_norm = {}, adapter_norm = {}, deep_norm = {}, successor_norm = {};
  kangaroo_matrix adapter_qkv = {}, adapter_o = {}, deep_kv = {};
};
