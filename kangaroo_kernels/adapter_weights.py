"""Weights of Kangaroo's adapter and of its drafter, as their ops take them."""

from typing import NamedTuple

from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead


class StepWeights(NamedTuple):
    """input_norm [C], qkv [(H_q + 2 H_kv) * D, C], o [C, H_q * D]."""

    input_norm: Tensor
    qkv: Tensor
    o: Tensor


class RefreshWeights(NamedTuple):
    """Of a `deep_prefix` adapter: input_norm, deep_norm, successor_norm [C], deep_kv [2 H_kv * D,
    3 C], keys first.
    """

    input_norm: Tensor
    deep_norm: Tensor
    successor_norm: Tensor
    deep_kv: Tensor


class DrafterWeights(NamedTuple):
    """What drafts a token behind the target's layers [0, num_layers).

    Attributes:
        embed:    [V, C], the target's embedding.
        adapter:  of the adapter; adapter_eps: of its norms, the last one included.
        head:     of at most V rows.
        norm:     [C], the adapter's own in front of the head.
    """

    num_layers: int
    embed: Tensor
    adapter: StepWeights
    head: DraftHead
    norm: Tensor
    adapter_eps: float
