"""Draft heads of every kind, and what is known of a ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kangaroo_kernels import UnsupportedError, testing
from kangaroo_kernels.draft_head import DraftHead, quantize
from tests.kernels import naive

EPS = 1e-5
EXACT = ("plain", "ids")
QUANTIZED = ("int8", "float8_e4m3fn", "int8 ids")


def make_head(kind: str, vocab: int, width: int, dtype: torch.dtype = torch.float32) -> DraftHead:
    """A head [vocab, width] with sure and unsure rows; of "ids" about half may be drafted."""
    weight = (3 * testing.random_weight(vocab, width)).to(dtype)
    ids = None
    if "ids" in kind:
        some = (torch.rand(vocab) < 0.5).index_fill(0, torch.tensor([vocab - 1]), True)
        ids = some.nonzero()[:, 0].int()
    copied = kind.removesuffix(" ids")
    if copied in EXACT:
        return DraftHead(weight, token_ids=ids)
    return quantize(weight, getattr(torch, copied), ids)


@contextmanager
def cpp_may_refuse(op: Callable[..., Any]) -> Iterator[None]:
    """What is inside works; only C++, which reads no float8, and CUDA, which reads no copies of a
    byte, may say that they cannot.
    """
    module = op.__module__.rpartition(".")[2]
    refused = {"native": "no native op reads torch.float8", "cuda_kernel": "no CUDA op reads torch"}
    try:
        yield
    except UnsupportedError as refusal:
        if module not in refused or f"head: {refused[module]}" not in str(refusal):
            raise


class Ranked:
    """The logits of a head in float64 and in low precision, by token id; -inf: not drafted."""

    def __init__(self, h: Tensor, head: DraftHead, norm_weight: Tensor):
        wide = DraftHead(*testing.widen(*head))
        self.exact = naive.draft_logits(*testing.widen(h), wide, norm_weight.double(), EPS)
        self.low = naive.draft_logits(h, head, norm_weight, EPS)
        known = self.exact.isfinite()
        self.error = (self.low.double() - self.exact)[known].abs().max()
        self.rounding = torch.finfo(h.dtype).eps * self.exact[known].abs().max()

    def check_tokens(self, tokens: Tensor, rows: slice = slice(None)) -> None:
        """tokens [B, N, k]: another token than the best may stand in its place only if the budget
        of the logits, twice PyTorch's error and the rounding, lets two cross.
        """
        exact = self.exact[:, rows]
        chosen = exact.gather(-1, tokens)
        best = exact.topk(tokens.shape[-1]).values
        assert (chosen >= best - 2 * (2 * self.error + self.rounding)).all()
        assert (tokens.sort(-1).values.diff() != 0).all(), "a token twice"
