"""Weights of Kangaroo's adapter, as its ops take them."""

from typing import NamedTuple

from torch import Tensor


class StepWeights(NamedTuple):
    """input_norm [C], qkv [(H_q + 2 H_kv) * D, C], o [C, H_q * D]."""

    input_norm: Tensor
    qkv: Tensor
    o: Tensor


class RefreshWeights(NamedTuple):
    """Of a `deep_prefix` adapter: input_norm [C], deep_norm [C], deep_kv [2 H_kv * D, 2 C], keys
    first.
    """

    input_norm: Tensor
    deep_norm: Tensor
    deep_kv: Tensor
