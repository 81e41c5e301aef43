/* tree_attention: every node attends to the committed prefix and to its own ancestors. */
#ifndef KANGAROO_TREE_ATTENTION_H_
#define KANGAROO_TREE_ATTENTION_H_

#include "kangaroo/status.h"
#include "kangaroo/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Keys are summed in chunks that start at absolute multiples of this many slots, in order. */
#define KANGAROO_KV_CHUNK 64
#define KANGAROO_MAX_HEAD_DIM 256
#define KANGAROO_MAX_TREE_NODES 64

typedef struct kangaroo_tree_attention_params {
  kangaroo_heads q; /* rotated; heads a multiple of kv.heads */
  kangaroo_kv kv;   /* slots a multiple of KANGAROO_KV_CHUNK, head_dim at most MAX_HEAD_DIM */
  kangaroo_heads out;
  kangaroo_nodes nodes; /* positions are not read */
  float scale;
  int32_t num_threads; /* on the CPU */
} kangaroo_tree_attention_params;

/* The bits of a row depend on its own visible slots alone, in their order: a node of a tree has
   those of the chain that leads to it. Other slots may hold anything. */
kangaroo_status kangaroo_tree_attention(const kangaroo_tree_attention_params* params);

#ifdef __cplusplus
}
#endif

#endif /* KANGAROO_TREE_ATTENTION_H_ */
