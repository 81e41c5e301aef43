"""Where a small model's numbers stand in a large one of the same function, and what scales them.

An axis is described by its origins, [wide size] int64 on the CPU: for every index the small model's
index that stands there, or -1 for what the small model does not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kangaroo.config import AdapterConfig, ModelConfig
from kangaroo_kernels import UnsupportedError

EXTRA = -1
Attention = ModelConfig | AdapterConfig  # what has heads


@dataclass(frozen=True)
class Padding:
    """How tokens that the small model does not have are kept from being chosen.

    The first extra dimension of the residual stream is a constant c, a power of two, behind every
    embedding, and no layer reads or writes it. The final norm multiplies it by `gain`, the head by
    -`gain` in the rows of padded tokens and by 0 in the others.

    Attributes:
        share: c^2 is at most this part of what eps adds to the sum of squares; eps gives it back.
        gain: a power of two.
    """

    share: float
    gain: float


_UNSEEN = Padding(2.0**-28, 2.0**24)  # c^2 is below half a unit in float32's last place of eps
PADDINGS = {
    torch.float32: _UNSEEN,
    torch.bfloat16: _UNSEEN,
    torch.float16: Padding(0.5, 2.0**12),  # its range leaves no room for a smaller c
}


@dataclass(frozen=True)
class Residual:
    """The residual stream, C -> C'.

    Attributes:
        small_size, wide_size: C and C'.
        constant: c of Padding; 0 where both vocabularies are equal.
        padding: how the padded tokens are kept from being chosen.
    """

    small_size: int
    wide_size: int
    constant: float
    padding: Padding

    @classmethod
    def of(cls, small: ModelConfig, wide_size: int, pads: bool, dtype: torch.dtype) -> Residual:
        """The stream of `small` at another width, with or without padded tokens.

        Raises:
            ValueError: padded tokens, and no extra dimension or no eps to keep them away with.
        """
        padding, constant = PADDINGS[dtype], 0.0
        if pads:
            if wide_size == small.hidden_size or small.rms_norm_eps <= 0.0:
                raise ValueError(
                    f"vocab_size: expected {small.vocab_size}, as more tokens ask for a larger "
                    f"hidden_size and an eps above 0; got hidden_size {wide_size} and eps "
                    f"{small.rms_norm_eps}"
                )
            most = math.sqrt(padding.share * small.hidden_size * small.rms_norm_eps)
            constant = 2.0 ** math.floor(math.log2(most))
        return cls(small.hidden_size, wide_size, constant, padding)

    @property
    def origins(self) -> Tensor:
        return prefix(self.small_size, self.wide_size)

    @property
    def norm_scale(self) -> float:
        """On norm weights: the mean of squares is smaller by C / C'; exact if that is a power of
        4.
        """
        return math.sqrt(self.small_size / self.wide_size)

    def eps(self, small_eps: float) -> float:
        """eps of the wide norm: C' eps' + c^2 = C eps.

        Raises:
            ValueError: c^2 is more than that.
        """
        total = self.small_size * small_eps - self.constant**2
        if total < 0.0:
            least = self.constant**2 / self.small_size
            raise ValueError(f"rms_norm_eps: expected at least {least:.1e}, got {small_eps:.1e}")
        return total / self.wide_size


@dataclass(frozen=True)
class Heads:
    """Origins of attention's rows: q [H_q' D'], kv [H_kv' D'].

    Attributes:
        values: [H_q' D'], of the values that each dimension of attention's output is made of. An
            extra query head may read a true head of values.
        query_scale: on query rows, for softmax divides by sqrt(D'); exact if D' / D is a power of
            4.
    """

    q: Tensor
    kv: Tensor
    values: Tensor
    query_scale: float


def prefix(small_size: int, wide_size: int) -> Tensor:
    """Origins of an axis that begins with the small model's."""
    index = torch.arange(wide_size, device="cpu")
    return torch.where(index < small_size, index, EXTRA)


def rotated_dims(small: ModelConfig, wide: ModelConfig) -> Tensor:
    """Origins [D'] of the dimensions of a head: every pair goes where its frequency is.

    Raises:
        UnsupportedError: a frequency is missing, so that no weights could give the same rotation.
    """
    half, wide_half = small.head_dim // 2, wide.head_dim // 2
    dims = _all_extra(wide.head_dim)
    for pair, frequency in enumerate(small.rope_inv_freq):
        if frequency not in wide.rope_inv_freq:
            raise UnsupportedError(
                f"head_dim: no pair of {wide.head_dim} rotates by {frequency:.3e} a token, as pair "
                f"{pair} of {small.head_dim} does; keep head_dim, or double it"
            )
        place = pair if half == wide_half else wide.rope_inv_freq.index(frequency)
        dims[place], dims[place + wide_half] = pair, pair + half
    return dims


def place_heads(small: Attention, wide: Attention, dims: Tensor) -> Heads:
    """Query heads beside the heads of keys and values that they read.

    Where the wide model has fewer query heads to one head of keys and values, that head is there
    several times.

    Args:
        dims: of rotated_dims.

    Raises:
        ValueError: not enough heads.
    """
    group, wide_group = (m.num_heads // m.num_kv_heads for m in (small, wide))
    copies = -(-group // wide_group)
    if small.num_kv_heads * copies > wide.num_kv_heads:
        least = small.num_kv_heads * copies
        raise ValueError(f"num_kv_heads: expected at least {least}, got {wide.num_kv_heads}")
    q, kv = _all_extra(wide.num_heads), _all_extra(wide.num_kv_heads)
    for head in range(small.num_heads):
        kv_head, place = divmod(head, group)
        wide_kv_head = kv_head * copies + place // wide_group
        kv[wide_kv_head] = kv_head
        q[wide_kv_head * wide_group + place % wide_group] = head
    values = kv.repeat_interleave(wide_group)
    q_rows, kv_rows, value_rows = (_rows(h, dims, small.head_dim) for h in (q, kv, values))
    return Heads(q_rows, kv_rows, value_rows, math.sqrt(wide.head_dim / small.head_dim))


def _all_extra(wide_size: int) -> Tensor:
    return torch.full((wide_size,), EXTRA, device="cpu")


def _rows(heads: Tensor, dims: Tensor, head_dim: int) -> Tensor:
    there = (heads != EXTRA)[:, None] & (dims != EXTRA)
    return torch.where(there, heads[:, None] * head_dim + dims, EXTRA).flatten()
