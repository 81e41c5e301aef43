/* What `kangaroo export` writes, as the views that libkangaroo's ops take. */
#ifndef MODEL_C_H_
#define MODEL_C_H_

#include <errno.h>
#include <inttypes.h>
#include <kangaroo/decoder_layers.h>
#include <kangaroo/weights.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char* format, ...) {
  va_list values;
  va_start(values, format);
  fprintf(stderr, "error: ");
  vfprintf(stderr, format, values);
  fprintf(stderr, "\n");
  va_end(values);
  exit(1);
}

static void must(kangaroo_status status) {
  if (status != KANGAROO_OK) die("%s", kangaroo_last_error());
}

static void* memory_of(int64_t bytes) {
  void* memory = calloc(bytes > 0 ? (size_t)bytes : 1, 1);
  if (!memory) die("out of memory");
  return memory;
}

static int64_t integer(const char* what, const char* text) {
  char* end = NULL;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  if (end == text || *end || errno) die("%s: expected an integer, got '%s'", what, text);
  return value;
}

static float real(const char* what, const char* text) {
  char* end = NULL;
  const float value = strtof(text, &end);
  if (end == text || *end) die("%s: expected a number, got '%s'", what, text);
  return value;
}

/* The file, which is mapped, and views of what is in it. */

typedef struct {
  kangaroo_weights* file;
  kangaroo_dtype dtype;
  int64_t item_bytes, hidden, vocab, intermediate, num_layers, exit_layer;
  int64_t q_heads, kv_heads, head_dim, adapter_kv_heads;
  float eps, adapter_eps;
  kangaroo_matrix embed, head, adapter_qkv, adapter_o, deep_kv;
  kangaroo_vector norm, adapter_input_norm, adapter_norm, deep_norm, successor_norm;
  kangaroo_layer_weights* layers;
  kangaroo_rope rope;
  int has_adapter, deep_prefix;
} Model;

static const char* text_of(const Model* m, const char* key) {
  const char* text = kangaroo_weights_metadata(m->file, key);
  return text ? text : "";
}

static int64_t number_of(const Model* m, const char* key) { return integer(key, text_of(m, key)); }

static kangaroo_vector vector_of(const Model* m, const char* name, int64_t width) {
  kangaroo_vector view;
  must(kangaroo_weights_vector(m->file, name, m->dtype, width, &view));
  return view;
}

static kangaroo_matrix matrix_of(const Model* m, const char* name, int64_t rows, int64_t width) {
  kangaroo_matrix view;
  must(kangaroo_weights_matrix(m->file, name, m->dtype, rows, width, &view));
  return view;
}

/* [rows, width] of a layer, or [width] where rows is 0; NULL for one that may be absent and is. */
static const void* of_layer(const Model* m, int64_t layer, const char* name, int64_t rows,
                            int64_t width, int may_be_absent) {
  char full[64];
  snprintf(full, sizeof full, "layers.%" PRId64 ".%s", layer, name);
  if (may_be_absent && !kangaroo_weights_has(m->file, full)) return NULL;
  return rows ? matrix_of(m, full, rows, width).data : vector_of(m, full, width).data;
}

static void open_layers(Model* m) {
  const int64_t c = m->hidden, q = m->q_heads * m->head_dim;
  const int64_t qkv = q + 2 * m->kv_heads * m->head_dim;
  m->layers = memory_of(m->num_layers * (int64_t)sizeof *m->layers);
  for (int64_t i = 0; i < m->num_layers; ++i) {
    kangaroo_layer_weights* w = &m->layers[i];
    w->input_norm = of_layer(m, i, "input_norm", 0, c, 0);
    w->qkv = of_layer(m, i, "qkv", qkv, c, 0);
    w->qkv_bias = of_layer(m, i, "qkv_bias", 0, qkv, 1);
    w->q_norm = of_layer(m, i, "q_norm", 0, m->head_dim, 1);
    w->k_norm = of_layer(m, i, "k_norm", 0, m->head_dim, 1);
    w->o = of_layer(m, i, "o", c, q, 0);
    w->o_bias = of_layer(m, i, "o_bias", 0, c, 1);
    w->post_norm = of_layer(m, i, "post_norm", 0, c, 0);
    w->gate_up = of_layer(m, i, "gate_up", 2 * m->intermediate, c, 0);
    w->down = of_layer(m, i, "down", c, m->intermediate, 0);
  }
}

static void open_adapter(Model* m) {
  const char* kind = text_of(m, "adapter_kind");
  m->has_adapter = strcmp(kind, "none") != 0;
  m->deep_prefix = strcmp(kind, "deep_prefix") == 0;
  if (!m->has_adapter) return;
  m->adapter_kv_heads = number_of(m, "adapter_num_kv_heads");
  m->adapter_eps = real("adapter_rms_norm_eps", text_of(m, "adapter_rms_norm_eps"));
  const int64_t q = number_of(m, "adapter_num_heads") * m->head_dim;
  const int64_t kv = 2 * m->adapter_kv_heads * m->head_dim;
  m->adapter_input_norm = vector_of(m, "adapter.input_norm", m->hidden);
  m->adapter_qkv = matrix_of(m, "adapter.qkv", q + kv, m->hidden);
  m->adapter_o = matrix_of(m, "adapter.o", m->hidden, q);
  m->adapter_norm = vector_of(m, "adapter.norm", m->hidden);
  if (!m->deep_prefix) return;
  m->deep_norm = vector_of(m, "adapter.deep_norm", m->hidden);
  m->successor_norm = vector_of(m, "adapter.successor_norm", m->hidden);
  m->deep_kv = matrix_of(m, "adapter.deep_kv", kv, 3 * m->hidden);
}

static void open_model(Model* m, const char* path) {
  kangaroo_tensor_info rope;
  memset(m, 0, sizeof *m);
  must(kangaroo_weights_open(path, &m->file));
  if (strcmp(text_of(m, "format"), "kangaroo") || strcmp(text_of(m, "format_version"), "1")) {
    die("%s: not an export of kangaroo, version 1", path);
  }
  m->dtype = strcmp(text_of(m, "dtype"), "bfloat16") ? KANGAROO_FLOAT32 : KANGAROO_BFLOAT16;
  m->item_bytes = m->dtype == KANGAROO_FLOAT32 ? 4 : 2;
  m->hidden = number_of(m, "hidden_size");
  m->vocab = number_of(m, "vocab_size");
  m->intermediate = number_of(m, "intermediate_size");
  m->num_layers = number_of(m, "num_layers");
  m->exit_layer = number_of(m, "exit_layer");
  if (m->exit_layer < 1 || m->exit_layer >= m->num_layers) {
    die("exit_layer: expected 1 to %" PRId64 ", got %" PRId64, m->num_layers - 1, m->exit_layer);
  }
  m->q_heads = number_of(m, "num_heads");
  m->kv_heads = number_of(m, "num_kv_heads");
  m->head_dim = number_of(m, "head_dim");
  m->eps = real("rms_norm_eps", text_of(m, "rms_norm_eps"));
  m->embed = m->head = matrix_of(m, "embed", m->vocab, m->hidden);
  if (kangaroo_weights_has(m->file, "lm_head")) {
    m->head = matrix_of(m, "lm_head", m->vocab, m->hidden);
  }
  m->norm = vector_of(m, "norm", m->hidden);
  m->rope.positions = number_of(m, "max_seq_len");
  m->rope.half = m->head_dim / 2;
  must(kangaroo_weights_find(m->file, "rope", &rope));
  if (rope.dtype != KANGAROO_FLOAT32 || rope.rank != 3 || rope.sizes[0] != 2 ||
      rope.sizes[1] != m->rope.positions || rope.sizes[2] != m->rope.half) {
    die("rope: expected float32 [2, max_seq_len, head_dim / 2]");
  }
  m->rope.table = rope.data;
  open_layers(m);
  open_adapter(m);
}

static int ends(const Model* m, int64_t token) {
  const char* at = text_of(m, "eos_token_ids");
  while (*at) {
    char* end = NULL;
    if (strtoll(at, &end, 10) == token) return 1;
    at = *end == ',' ? end + 1 : "";
  }
  return 0;
}

#endif /* MODEL_C_H_ */
