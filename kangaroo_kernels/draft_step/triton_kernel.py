"""draft_step in Triton: where nodes have entered by it, no norm has a launch of its own. A position
is four launches of the adapter and two of the head, a layer six.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import DrafterWeights
from kangaroo_kernels.checks import (
    require,
    require_bounds,
    require_cache,
    require_head,
    require_kv,
    require_like,
    require_within,
    sizes,
)
from kangaroo_kernels.decoder_layers.triton_kernel import TritonLayers
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draft_step import Ranking
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_adapter import adapted
from kangaroo_kernels.triton_embedding import embed
from kangaroo_kernels.triton_head import logits_of, require_ranked
from kangaroo_kernels.triton_norm import Weighed, new_weighed
from kangaroo_kernels.triton_rank import rank_tokens
from kangaroo_kernels.triton_rope import check_places


class TritonDraftStep:
    """See DraftStep; the weights are checked once, here.

    Raises:
        ValueError: shapes or dtypes that disagree.
        UnsupportedError: a head in float8 on a GPU that cannot read it.
    """

    def __init__(self, layers: TritonLayers, weights: DrafterWeights):
        self.layers, self.weights = layers, weights
        require_bounds({"num_layers": (weights.num_layers, 1, len(layers.layers))})
        own, width, head_dim = weights.adapter, layers.width, layers.cache[1]
        vocab, q_width = sizes("embed", weights.embed, 2)[0], sizes("o", own.o, 2)[1]
        qkv_width = sizes("qkv", own.qkv, 2)[0]
        self.h_q, h_kv = q_width // head_dim, (qkv_width - q_width) // (2 * head_dim)
        self.cache = h_kv, head_dim
        require_like(
            layers.layers[0].o,
            (
                ("embed", weights.embed, (vocab, width)),
                ("input_norm", own.input_norm, (width,)),
                ("qkv", own.qkv, ((self.h_q + 2 * h_kv) * head_dim, width)),
                ("o", own.o, (width, self.h_q * head_dim)),
            ),
        )
        require_ranked(weights.embed[None, :1], weights.head, weights.norm, 1)

    def enter(self, tokens: Tensor, kv: Tensor, nodes: NodeBatch, out: Tensor) -> ExitStates:
        layers, weights = self.layers, self.weights
        batch, num_nodes = sizes("tokens", tokens, 2)
        vocab, width = weights.embed.shape
        require("tokens", tokens, (batch, num_nodes), torch.int64, weights.embed.device)
        require_within("tokens", tokens, 0, vocab)
        require_kv(kv, (2 * weights.num_layers, *layers.cache), batch, weights.embed)
        h = weights.embed.new_empty(batch, num_nodes, width)
        exit_states = out if out.is_contiguous() else out.new_empty(out.shape)
        require("out", exit_states, tuple(h.shape), h.dtype, h.device)
        ready, behind = new_weighed(h), new_weighed(h)
        embed(tokens, weights.embed, h, (layers.layers[0].input_norm, ready))
        to = exit_states, (weights.adapter.input_norm, behind)
        layers.run(h, ready, range(weights.num_layers), kv, nodes, to)
        if exit_states is not out:
            out.copy_(exit_states)
        return ExitStates(exit_states, behind)

    def top1(self, states: ExitStates, kv: Tensor, nodes: NodeBatch, chain: DraftChain) -> None:
        rows = self._adapted(states, kv, nodes)
        rank_tokens(rows, self.weights.head, self.weights.adapter_eps, 1, chain)

    def topk(self, states: ExitStates, kv: Tensor, nodes: NodeBatch, k: int) -> Ranking:
        rows = self._adapted(states, kv, nodes, k)
        return rank_tokens(rows, self.weights.head, self.weights.adapter_eps, k)

    def logits(self, states: ExitStates, kv: Tensor, nodes: NodeBatch) -> Tensor:
        rows = self._adapted(states, kv, nodes)
        return logits_of(rows, self.weights.head, self.weights.adapter_eps)

    def _adapted(self, states: ExitStates, kv: Tensor, nodes: NodeBatch, k: int = 1) -> Weighed:
        """The adapter's states, ready for the norm in front of the head, of which k tokens are
        wanted.
        """
        h, weights, like = states.h, self.weights, self.weights.embed
        batch, num_nodes, _ = sizes("h", h, 3)
        require("h", h, (batch, num_nodes, self.layers.width), like.dtype, like.device)
        require_head(weights.head, h, k)
        require_kv(kv, (2, *self.cache), batch, like)
        check_places(self.layers.rope, nodes, (batch, num_nodes), kv[0])
        require_cache(kv[0], self.h_q, nodes)
        ready, behind = states.ready, new_weighed(h)
        adapted(
            h,
            ready if isinstance(ready, Weighed) else None,
            weights.adapter,
            (kv[0], kv[1]),
            nodes,
            self.layers.rope,
            eps=weights.adapter_eps,
            then=(weights.norm, behind),
        )
        return behind
