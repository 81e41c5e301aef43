/* How a C program embeds libkangaroo: draft, verify, accept, roll back.
 *
 *   decode_c WEIGHTS NUM_NEW_TOKENS MAX_DEPTH CONFIDENCE TOKEN...
 *
 * WEIGHTS is what `kangaroo export` writes, TOKEN... the prompt. The new ids go to standard output,
 * what drafting did to standard error. MAX_DEPTH 0 decodes one token at a time: the same ids. */
#include <inttypes.h>
#include <kangaroo/adapter_refresh.h>
#include <kangaroo/adapter_step.h>
#include <kangaroo/compact_kv.h>
#include <kangaroo/embedding.h>
#include <kangaroo/linear.h>
#include <kangaroo/top1_confidence.h>
#include <kangaroo/tree_attention.h>
#include <kangaroo/verify_tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_c.h"

enum {
  NUM_THREADS = 2,     /* the ids do not depend on it */
  PREFILL_CHUNK = 256, /* prompt tokens per pass: bounds the memory of states */
  MAX_NODES = KANGAROO_MAX_TREE_NODES
};

/* Rows by slot, [planes, 1, heads, slots, width]; keys and values are two planes a layer. */

static kangaroo_slot_cache cache_of(const Model* m, int64_t planes, int64_t heads, int64_t slots,
                                    int64_t width) {
  const int64_t plane = heads * slots * width;
  const kangaroo_slot_cache cache = {.data = memory_of(planes * plane * m->item_bytes),
                                     .dtype = m->dtype,
                                     .planes = planes,
                                     .heads = heads,
                                     .slots = slots,
                                     .width = width,
                                     .plane_stride = plane,
                                     .batch_stride = planes * plane,
                                     .head_stride = slots * width,
                                     .slot_stride = width};
  return cache;
}

/* Of the first layer; those of the next lie two planes further on. */
static kangaroo_kv kv_of(const Model* m, const kangaroo_slot_cache* cache) {
  char* const values = (char*)cache->data + cache->plane_stride * m->item_bytes;
  return kangaroo_kv_of(cache->data, values, m->dtype, 1, cache->heads, cache->slots, cache->width);
}

static kangaroo_states states_of(const Model* m, const kangaroo_slot_cache* cache, int64_t start,
                                 int64_t count) {
  char* const first = (char*)cache->data + start * m->hidden * m->item_bytes;
  return kangaroo_states_of(first, m->dtype, 1, count, m->hidden);
}

/* One sequence. Slots [0, length) are committed; the root, its newest token, is in no cache yet. */

enum { SHALLOW, DEEP, ADAPTER, EXIT_STATES, NUM_CACHES };

typedef struct {
  const Model* m;
  int64_t max_depth;
  float confidence;
  kangaroo_slot_cache caches[NUM_CACHES];
  kangaroo_slot_cache before, behind; /* states of a pass: before the layers, behind the last */
  float* logits;
  int32_t* positions; /* 0, 1, 2, ... */
  int32_t start;
  int64_t length, adapter_length, root, num_drafted;
} Sequence;

static void open_sequence(Sequence* s, const Model* m, int64_t context, int64_t max_depth,
                          float confidence) {
  const int64_t slots = (context + KANGAROO_KV_CHUNK - 1) / KANGAROO_KV_CHUNK * KANGAROO_KV_CHUNK;
  const int64_t num_deep = m->num_layers - m->exit_layer;
  memset(s, 0, sizeof *s);
  s->m = m;
  s->max_depth = max_depth;
  s->confidence = confidence;
  s->caches[SHALLOW] = cache_of(m, 2 * m->exit_layer, m->kv_heads, slots, m->head_dim);
  s->caches[DEEP] = cache_of(m, 2 * num_deep, m->kv_heads, slots, m->head_dim);
  s->caches[ADAPTER] = cache_of(m, 2, m->adapter_kv_heads, slots, m->head_dim);
  s->caches[EXIT_STATES] = cache_of(m, 1, 1, slots, m->hidden);
  s->before = cache_of(m, 1, 1, PREFILL_CHUNK, m->hidden);
  s->behind = cache_of(m, 1, 1, PREFILL_CHUNK, m->hidden);
  s->logits = memory_of((max_depth + 1) * m->vocab * (int64_t)sizeof *s->logits);
  s->positions = memory_of(slots * (int64_t)sizeof *s->positions);
  for (int32_t i = 0; i < slots; ++i) s->positions[i] = i;
}

static void close_sequence(Sequence* s) {
  for (int i = 0; i < NUM_CACHES; ++i) free(s->caches[i].data);
  free(s->before.data);
  free(s->behind.data);
  free(s->logits);
  free(s->positions);
}

/* A chain: node i stands in slot and at position `start` + i and sees all before it. */
static kangaroo_nodes chain_at(Sequence* s, int64_t start, int64_t count) {
  s->start = (int32_t)start;
  const kangaroo_nodes nodes = {.positions = s->positions + start,
                                .cache_seqlens = &s->start,
                                .batch = 1,
                                .nodes = count,
                                .position_stride = count};
  return nodes;
}

static void run_layers(Sequence* s, kangaroo_states h, int64_t first, int64_t last, int cache,
                       int64_t start, kangaroo_states out) {
  kangaroo_decoder_layers_params p = {0};
  p.h = h;
  p.layers = s->m->layers + first;
  p.num_layers = last - first;
  p.kv = kv_of(s->m, &s->caches[cache]);
  p.layer_stride = 2 * s->caches[cache].plane_stride;
  p.rope = s->m->rope;
  p.nodes = chain_at(s, start, h.nodes);
  p.out = out;
  p.q_heads = s->m->q_heads;
  p.intermediate = s->m->intermediate;
  p.eps = s->m->eps;
  p.num_threads = NUM_THREADS;
  must(kangaroo_decoder_layers(&p));
}

/* Layers [0, E): what the drafter and the target share. */
static void run_shallow(Sequence* s, const int64_t* tokens, int64_t start, int64_t count) {
  const kangaroo_embedding_params p = {
      .tokens = tokens, .weight = s->m->embed, .out = states_of(s->m, &s->before, 0, count)};
  must(kangaroo_embedding(&p));
  run_layers(s, p.out, 0, s->m->exit_layer, SHALLOW, start,
             states_of(s->m, &s->caches[EXIT_STATES], start, count));
}

/* Layers [E, L), from the exit states. */
static void run_deep(Sequence* s, int64_t start, int64_t count) {
  run_layers(s, states_of(s->m, &s->caches[EXIT_STATES], start, count), s->m->exit_layer,
             s->m->num_layers, DEEP, start, states_of(s->m, &s->behind, 0, count));
}

/* The adapter on all exit states below `stop` that it has not seen; returns the last state. */
static kangaroo_states step(Sequence* s, int64_t stop) {
  const int64_t count = stop - s->adapter_length;
  kangaroo_adapter_step_params p = {0};
  p.h = states_of(s->m, &s->caches[EXIT_STATES], s->adapter_length, count);
  p.input_norm = s->m->adapter_input_norm;
  p.qkv = s->m->adapter_qkv;
  p.o = s->m->adapter_o;
  p.kv = kv_of(s->m, &s->caches[ADAPTER]);
  p.rope = s->m->rope;
  p.nodes = chain_at(s, s->adapter_length, count);
  p.out = states_of(s->m, &s->before, 0, count);
  p.eps = s->m->adapter_eps;
  p.num_threads = NUM_THREADS;
  must(kangaroo_adapter_step(&p));
  s->adapter_length = stop;
  return states_of(s->m, &s->before, count - 1, 1);
}

/* The token that the adapter expects in slot `stop`, appended to the chain. */
static void guess(Sequence* s, int64_t stop, const kangaroo_draft_chain* chain) {
  int64_t token = 0;
  float confidence = 0;
  kangaroo_top1_confidence_params p = {0};
  p.h = step(s, stop);
  p.head.weight = s->m->head;
  p.norm = s->m->adapter_norm;
  p.tokens = &token;
  p.confidence = &confidence;
  p.chain = chain;
  p.eps = s->m->adapter_eps;
  p.num_threads = NUM_THREADS;
  must(kangaroo_top1_confidence(&p));
}

/* The adapter's keys and values of slots that the deep layers have just passed over, and behind
 * which `successors` stand. */
static void write_verified(Sequence* s, int64_t start, int64_t count, const int64_t* successors) {
  kangaroo_embedding_params next = {0};
  kangaroo_adapter_refresh_params p = {0};
  s->adapter_length = start;
  if (!s->m->deep_prefix) {
    step(s, start + count); /* from the exit states alone */
    return;
  }
  next.tokens = successors;
  next.weight = s->m->embed;
  next.out = states_of(s->m, &s->before, 0, count);
  must(kangaroo_embedding(&next));
  p.h = states_of(s->m, &s->caches[EXIT_STATES], start, count);
  p.h_deep = states_of(s->m, &s->behind, 0, count);
  p.successor = next.out;
  p.input_norm = s->m->adapter_input_norm;
  p.deep_norm = s->m->deep_norm;
  p.successor_norm = s->m->successor_norm;
  p.deep_kv = s->m->deep_kv;
  p.kv = kv_of(s->m, &s->caches[ADAPTER]);
  p.rope = s->m->rope;
  p.nodes = chain_at(s, start, count);
  p.eps = s->m->adapter_eps;
  p.num_threads = NUM_THREADS;
  must(kangaroo_adapter_refresh(&p));
  s->adapter_length = start + count;
}

/* All tokens of the prompt but the last go through every layer; the last is the first root. */
static void prefill(Sequence* s, const int64_t* prompt, int64_t num_tokens) {
  while (s->length < num_tokens - 1) {
    const int64_t left = num_tokens - 1 - s->length;
    const int64_t count = left < PREFILL_CHUNK ? left : PREFILL_CHUNK;
    run_shallow(s, prompt + s->length, s->length, count);
    run_deep(s, s->length, count);
    if (s->max_depth > 0) write_verified(s, s->length, count, prompt + s->length + 1);
    s->length += count;
  }
  s->root = prompt[num_tokens - 1];
}

/* One round: at least one new token, at most `most` of them, and how many there are. */
static int64_t decode_round(Sequence* s, int64_t most, int64_t* accepted) {
  const Model* m = s->m;

  /* Draft: the root and what the adapter guesses behind it, while it is sure. */
  const int64_t depth = s->max_depth < most ? s->max_depth : most - 1;
  int64_t tokens[MAX_NODES] = {s->root};
  int32_t positions[MAX_NODES] = {(int32_t)s->length};
  int32_t num_nodes = 1, stopped = depth == 0;
  const kangaroo_draft_chain chain = {.tokens = tokens,
                                      .positions = positions,
                                      .num_nodes = &num_nodes,
                                      .stopped = &stopped,
                                      .threshold = &s->confidence,
                                      .batch = 1,
                                      .capacity = depth + 1};
  run_shallow(s, tokens, s->length, 1);
  while (!stopped) {
    guess(s, s->length + num_nodes, &chain); /* appends a node */
    run_shallow(s, &tokens[num_nodes - 1], s->length + num_nodes - 1, 1);
  }

  /* Verify: all nodes through the remaining layers at once, then the head. */
  run_deep(s, s->length, num_nodes);
  kangaroo_linear_params head = {0};
  head.x = states_of(m, &s->behind, 0, num_nodes);
  head.weight = m->head;
  head.norm = m->norm;
  head.out = kangaroo_states_of(s->logits, KANGAROO_FLOAT32, 1, num_nodes, m->vocab);
  head.eps = m->eps;
  head.num_threads = NUM_THREADS;
  must(kangaroo_linear(&head));

  /* Accept: the path from the root that the target would have taken, and one token more. */
  int64_t parents[MAX_NODES], path[MAX_NODES], successors[MAX_NODES];
  int32_t path_len = 0;
  for (int32_t node = 0; node < num_nodes; ++node) parents[node] = node - 1;
  const kangaroo_verify_tree_params verify = {.logits = head.out,
                                              .tokens = tokens,
                                              .parents = parents,
                                              .path = path,
                                              .path_len = &path_len,
                                              .bonus = &s->root,
                                              .successors = successors};
  must(kangaroo_verify_tree(&verify));
  if (s->max_depth > 0 && m->deep_prefix) {
    write_verified(s, s->length, num_nodes, successors);
  }

  /* Roll back: a length shrinks. Only a path through a tree leaves gaps, which are closed. */
  if (path[path_len - 1] != path_len - 1) {
    const int32_t committed = (int32_t)s->length;
    const kangaroo_compact_kv_params compact = {.caches = s->caches,
                                                .path = path,
                                                .path_len = &path_len,
                                                .cache_seqlens = &committed,
                                                .num_caches = NUM_CACHES,
                                                .batch = 1,
                                                .path_stride = num_nodes};
    must(kangaroo_compact_kv(&compact));
  }
  s->length += path_len;
  if (s->adapter_length > s->length) s->adapter_length = s->length;
  s->num_drafted += num_nodes - 1;

  for (int32_t j = 1; j < path_len; ++j) accepted[j - 1] = tokens[path[j]];
  accepted[path_len - 1] = s->root;
  return path_len;
}

static void decode(const Model* m, char** options, const int64_t* prompt, int64_t num_tokens) {
  const int64_t room = m->rope.positions - num_tokens;
  int64_t left = integer("NUM_NEW_TOKENS", options[0]);
  const int64_t max_depth = integer("MAX_DEPTH", options[1]);
  if (left < 0 || left > room) {
    die("NUM_NEW_TOKENS: expected 0 to %" PRId64 " behind this prompt, got %" PRId64, room, left);
  }
  if (max_depth < 0 || max_depth >= MAX_NODES) {
    die("MAX_DEPTH: expected 0 to %d, got %" PRId64, MAX_NODES - 1, max_depth);
  }
  if (max_depth > 0 && !m->has_adapter) {
    die("MAX_DEPTH: expected 0, there is no adapter to draft with");
  }
  Sequence s;
  open_sequence(&s, m, num_tokens + left, max_depth, real("CONFIDENCE", options[2]));
  prefill(&s, prompt, num_tokens);
  int64_t num_rounds = 0;
  for (; left > 0; ++num_rounds) {
    int64_t accepted[MAX_NODES];
    const int64_t count = decode_round(&s, left, accepted);
    left -= count;
    for (int64_t i = 0; i < count; ++i) {
      printf("%" PRId64 " ", accepted[i]);
      if (!ends(m, accepted[i])) continue;
      left = 0;
      break;
    }
  }
  printf("\n");
  fprintf(stderr, "%" PRId64 " rounds, %" PRId64 " tokens drafted\n", num_rounds, s.num_drafted);
  close_sequence(&s);
}

int main(int argc, char** argv) {
  Model model;
  if (argc < 6) die("usage: decode_c WEIGHTS NUM_NEW_TOKENS MAX_DEPTH CONFIDENCE TOKEN...");
  const int num_tokens = argc - 5;
  int64_t* prompt = memory_of(num_tokens * (int64_t)sizeof *prompt);
  for (int i = 0; i < num_tokens; ++i) prompt[i] = integer("TOKEN", argv[5 + i]);
  open_model(&model, argv[1]);
  decode(&model, argv + 2, prompt, num_tokens);
  free(prompt);
  free(model.layers);
  kangaroo_weights_close(model.file);
  return 0;
}
