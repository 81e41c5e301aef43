"""decoder_layers in Triton, six launches a layer: no norm but the first has one of its own. What a
product writes it makes ready for the norm behind (`triton_norm.Weighed`); the first one rotates and
appends. One more where heads have norms, and for each sum that is split.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_heads, require_kv, require_like, sizes
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.rope_append_kv import RopeAppendKV
from kangaroo_kernels.tree_attention import TreeAttention
from kangaroo_kernels.triton_gemm import Epilogue, Tiling, product
from kangaroo_kernels.triton_norm import Then, Weighed, new_weighed, weighed
from kangaroo_kernels.triton_projection import project_and_append
from kangaroo_kernels.triton_rope import check_places


def decoder_layers(
    layers: Sequence[LayerWeights],
    rope: Tensor,
    eps: float,
    rope_append_kv: RopeAppendKV,
    tree_attention: TreeAttention,
) -> TritonLayers | None:
    """All layers of a decoder; None where they are not in bfloat16: no norm is cut in two then.

    Raises: as TritonLayers.
    """
    if layers[0].o.dtype != torch.bfloat16:
        return None
    return TritonLayers(layers, rope, eps, rope_append_kv, tree_attention)


class TritonLayers:
    """See DecoderLayers; the weights are checked once, here.

    Args:
        rope_append_kv, tree_attention: what stands between products.

    Raises:
        ValueError: layers of unequal shapes or dtypes.
    """

    def __init__(
        self,
        layers: Sequence[LayerWeights],
        rope: Tensor,
        eps: float,
        rope_append_kv: RopeAppendKV,
        tree_attention: TreeAttention,
    ):
        self.layers, self.rope, self.eps = tuple(layers), rope, eps
        self.rope_append_kv, self.tree_attention = rope_append_kv, tree_attention
        first = self.layers[0]
        width, q_width = first.o.shape
        qkv_width, inner, head_dim = len(first.qkv), first.down.shape[1], 2 * rope.shape[2]
        require_heads(first.qkv, first.o, head_dim)
        self.width, self.cache = width, ((qkv_width - q_width) // (2 * head_dim), head_dim)
        for w in self.layers:
            require_like(
                first.o,
                (
                    ("input_norm", w.input_norm, (width,)),
                    ("qkv", w.qkv, (qkv_width, width)),
                    ("qkv_bias", w.qkv_bias, (qkv_width,)),
                    ("q_norm", w.q_norm, (head_dim,)),
                    ("k_norm", w.k_norm, (head_dim,)),
                    ("o", w.o, (width, q_width)),
                    ("o_bias", w.o_bias, (width,)),
                    ("post_norm", w.post_norm, (width,)),
                    ("gate_up", w.gate_up, (2 * inner, width)),
                    ("down", w.down, (width, inner)),
                ),
            )

    def __call__(
        self,
        h: Tensor,
        start: int,
        stop: int,
        kv: Tensor,
        nodes: NodeBatch,
        out: Tensor | None = None,
    ) -> Tensor:
        batch, num_nodes, _ = sizes("h", h, 3)
        like = self.layers[0].o
        if not 0 <= start < stop <= len(self.layers):
            raise ValueError(
                f"kv: expected keys and values of some of {len(self.layers)} layers, "
                f"got [{start}, {stop})"
            )
        require("h", h, (batch, num_nodes, self.width), like.dtype, like.device)
        require_kv(kv, (2 * (stop - start), *self.cache), batch, like)
        out = torch.empty_like(h) if out is None else out
        require("out", out, tuple(h.shape), like.dtype, like.device)
        ready = weighed(h, self.layers[start].input_norm)
        self.run(h, ready, range(start, stop), kv, nodes, (out, None))
        return out

    def run(
        self,
        h: Tensor,
        ready: Weighed,
        which: range,
        kv: Tensor,
        nodes: NodeBatch,
        to: tuple[Tensor, Then | None],
    ) -> None:
        """Layers `which`; `ready` is what has been made of h for the first one's norm, `to` where
        the result goes, and that for the norm behind. Checks nothing of these.
        """
        for index in which:
            w, plane = self.layers[index], 2 * (index - which.start)
            caches = kv[plane], kv[plane + 1]
            q = self._queries(ready, w, caches, nodes)
            heads = self.tree_attention(q, *caches, nodes, q.shape[-1] ** -0.5)
            between, ready = torch.empty_like(h), new_weighed(h)
            around = Epilogue(bias=w.o_bias, residual=h, then=(w.post_norm, ready))
            product(heads.flatten(2), w.o, around, between)
            gated = h.new_empty(*h.shape[:2], w.down.shape[1])
            product(ready, w.gate_up, Epilogue(eps=self.eps, gated=True), gated)
            if index == which[-1]:
                h, then = to
            else:
                h, ready = torch.empty_like(h), new_weighed(h)
                then = self.layers[index + 1].input_norm, ready
            product(gated, w.down, Epilogue(residual=between, then=then), h)

    def _queries(
        self, x: Weighed, w: LayerWeights, caches: tuple[Tensor, Tensor], nodes: NodeBatch
    ) -> Tensor:
        """[B, N, H_q, D]; keys and values are appended. One launch where heads have no norms and
        `linear` would not split the sum, else as the ops do it.
        """
        batch, num_nodes, width = x.rows.shape
        head_dim = caches[0].shape[-1]
        normed = w.q_norm is not None or w.k_norm is not None
        if not normed and Tiling.of(len(w.qkv), width, w.qkv.itemsize).split_k == 1:
            check_places(self.rope, nodes, (batch, num_nodes), caches[0])
            q = x.rows.new_empty(batch, num_nodes, w.o.shape[1] // head_dim, head_dim)
            project_and_append(x, w.qkv, q, caches, nodes, self.rope, bias=w.qkv_bias, eps=self.eps)
            return q
        qkv = x.rows.new_empty(batch, num_nodes, len(w.qkv))
        product(x, w.qkv, Epilogue(None, self.eps, w.qkv_bias), qkv)
        return self.rope_append_kv(
            qkv, *caches, nodes, self.rope, q_norm=w.q_norm, k_norm=w.k_norm, eps=self.eps
        )
