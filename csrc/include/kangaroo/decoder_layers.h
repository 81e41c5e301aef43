/* decoder_layers: consecutive layers of a Llama-family decoder, in one call. */
#ifndef KANGAROO_DECODER_LAYERS_H_
#define KANGAROO_DECODER_LAYERS_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Addresses of one layer, all of the dtype of the states, contiguous; biases and head norms may be
 * NULL. */
typedef struct kangaroo_layer_weights {
  const void* input_norm; /* [hidden] */
  const void* qkv;        /* [(q_heads + 2 * kv_heads) * head_dim, hidden] */
  const void* qkv_bias;   /* [(q_heads + 2 * kv_heads) * head_dim] */
  const void* q_norm;     /* [head_dim] */
  const void* k_norm;     /* [head_dim] */
  const void* o;          /* [hidden, q_heads * head_dim] */
  const void* o_bias;     /* [hidden] */
  const void* post_norm;  /* [hidden] */
  const void* gate_up;    /* [2 * intermediate, hidden], gate rows first */
  const void* down;       /* [hidden, intermediate] */
} kangaroo_layer_weights;

typedef struct kangaroo_decoder_layers_params {
  kangaroo_states h;                    /* [batch, nodes, hidden] */
  const kangaroo_layer_weights* layers; /* [num_layers] */
  kangaroo_kv kv;                       /* of the first layer, mutated: the slots of the nodes */
  kangaroo_rope rope;
  kangaroo_nodes nodes;
  kangaroo_states out;  /* as h */
  int64_t num_layers;   /* at least 1 */
  int64_t layer_stride; /* from the keys of a layer to those of the next; values likewise */
  int64_t q_heads;      /* multiple of kv.heads */
  int64_t intermediate;
  float eps;
  int32_t num_threads;
} kangaroo_decoder_layers_params;

/* The bits of linear, rope_append_kv, tree_attention, linear and gated_mlp in turn, layer by layer.
   Checked as a whole first: a call that fails has written nothing. */
kangaroo_status kangaroo_decoder_layers(const kangaroo_decoder_layers_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_DECODER_LAYERS_H_ */
