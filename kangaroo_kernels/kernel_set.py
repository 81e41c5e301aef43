"""Which implementation serves each op. Chosen once, when the engine is built; never per call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from kangaroo_kernels.adapter_refresh import AdapterRefresh
from kangaroo_kernels.adapter_step import AdapterStep
from kangaroo_kernels.adapter_weights import DrafterWeights
from kangaroo_kernels.commit_path import CommitPath
from kangaroo_kernels.compact_kv import CompactKV
from kangaroo_kernels.copy_draft import CopyDraft
from kangaroo_kernels.decoder_layers import DecoderLayers
from kangaroo_kernels.draft_logits import DraftLogits
from kangaroo_kernels.draft_step import DraftStep
from kangaroo_kernels.draft_tokens import DraftTokens
from kangaroo_kernels.draw_tokens import DrawTokens
from kangaroo_kernels.embedding import Embedding
from kangaroo_kernels.gated_mlp import GatedMLP
from kangaroo_kernels.grow_tree import GrowTree
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.linear import Linear
from kangaroo_kernels.rms_norm import RMSNorm
from kangaroo_kernels.rope_append_kv import RopeAppendKV
from kangaroo_kernels.top1_confidence import Top1Confidence
from kangaroo_kernels.topk_confidence import TopkConfidence
from kangaroo_kernels.tree_attention import TreeAttention
from kangaroo_kernels.verify_tree import VerifyTree


class Backend(str, Enum):
    """Ways to implement an op; the values are what users write."""

    REFERENCE = "reference"
    NATIVE = "native"
    TRITON = "triton"
    CUDA = "cuda"
    LIBRARY = "library"


class UnsupportedError(RuntimeError):
    """An implementation was asked for that cannot run on this target."""


@dataclass(frozen=True)
class Target:
    """What an implementation must be able to run on."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int


# One row per op, its implementations in order of preference under "auto".
IMPLS: Mapping[str, tuple[Backend, ...]] = {
    "embedding": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "linear": (
        Backend.NATIVE,
        Backend.TRITON,
        Backend.REFERENCE,
        Backend.CUDA,
        Backend.LIBRARY,
    ),
    "rms_norm": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "rope_append_kv": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE, Backend.CUDA),
    "tree_attention": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE, Backend.LIBRARY),
    "gated_mlp": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE, Backend.LIBRARY),
    "top1_confidence": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE, Backend.CUDA),
    "topk_confidence": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "draft_logits": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "draw_tokens": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "adapter_step": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "adapter_refresh": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "verify_tree": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE, Backend.CUDA),
    "compact_kv": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE, Backend.CUDA),
    "commit_path": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "grow_tree": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
    "copy_draft": (Backend.NATIVE, Backend.TRITON, Backend.REFERENCE),
}
MODULES = {
    Backend.REFERENCE: "reference",
    Backend.NATIVE: "native",
    Backend.TRITON: "triton_kernel",
    Backend.CUDA: "cuda_kernel",
    Backend.LIBRARY: "library",
}

# What a decoder layer is made of, what a draft needs besides, and what trees and sampling do.
LAYER_OPS = ("linear", "rope_append_kv", "tree_attention", "gated_mlp")
DRAFT_OPS = ("embedding", "adapter_step", "top1_confidence")
TREE_OPS = ("topk_confidence", "draft_logits")

# Libraries choose their order of summation by the number of rows. That is no way to decode, but
# prefill may be done so: with speculation on or off it is the same prefill.
LIBRARY_OPS = tuple(op for op, row in IMPLS.items() if Backend.LIBRARY in row)
NEIGHBOURS = "a row's bits depend on its neighbours, so only on request: backend='library'"

# What "auto" never takes: what is slow, or may be, or breaks a law, must be asked for.
ON_REQUEST: Mapping[str, Mapping[Backend, str]] = {
    "cpu": {
        Backend.TRITON: "its interpreter is slow, so only on request: backend='triton'",
        Backend.LIBRARY: NEIGHBOURS,
    },
    "gpu": {
        Backend.REFERENCE: "slow on a GPU, so only on request: backend='reference'",
        Backend.CUDA: "slower than Triton where measured, so only on request: backend='cuda'",
        Backend.LIBRARY: NEIGHBOURS,
    },
}


def load_impl(op: str, backend: Backend, target: Target) -> Callable[..., Any]:
    """`op` as `backend` implements it.

    Raises:
        UnsupportedError: `backend` does not implement `op`, or not on `target`; the message says
            why. Nothing else is ever substituted.
    """
    if backend not in IMPLS[op]:
        raise UnsupportedError(
            f"{op} has no {backend.value} implementation; it has {[b.value for b in IMPLS[op]]}"
        )
    try:
        module = import_module(f"kangaroo_kernels.{op}.{MODULES[backend]}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise UnsupportedError(f"{op}/{backend.value}: Triton is not installed") from error
    if reason := module.unsupported(target):
        raise UnsupportedError(f"{op}/{backend.value} cannot run on {target}: {reason}")
    implementation: Callable[..., Any] = getattr(module, op)
    return implementation


def explain(op: str, target: Target) -> dict[Backend, str | None]:
    """Every implementation of `op` in order of preference: the reason why it cannot run on
    `target`, or None.
    """
    return {backend: _refusal(op, backend, target) for backend in IMPLS[op]}


def _refusal(op: str, backend: Backend, target: Target) -> str | None:
    try:
        load_impl(op, backend, target)
    except UnsupportedError as refusal:
        return str(refusal)
    return None


def auto_backend(op: str, target: Target) -> Backend:
    """The first of the op's row that can run on `target` and need not be asked for there.

    Raises:
        UnsupportedError: there is none; the message has every reason.
    """
    on_request = ON_REQUEST["cpu" if target.device.type == "cpu" else "gpu"]
    reasons = {}
    for backend in IMPLS[op]:  # one by one: Triton is not imported where C++ serves
        reason = on_request.get(backend) or _refusal(op, backend, target)
        if reason is None:
            return backend
        reasons[backend] = reason
    raise UnsupportedError(
        f"no implementation of {op}: " + "; ".join(f"{b.value}: {r}" for b, r in reasons.items())
    )


@dataclass(frozen=True)
class KernelSet:
    """One callable per op, typed by its contract."""

    embedding: Embedding
    linear: Linear
    rms_norm: RMSNorm
    rope_append_kv: RopeAppendKV
    tree_attention: TreeAttention
    gated_mlp: GatedMLP
    top1_confidence: Top1Confidence
    topk_confidence: TopkConfidence
    draft_logits: DraftLogits
    draw_tokens: DrawTokens
    adapter_step: AdapterStep
    adapter_refresh: AdapterRefresh
    verify_tree: VerifyTree
    compact_kv: CompactKV
    commit_path: CommitPath
    grow_tree: GrowTree
    copy_draft: CopyDraft

    @classmethod
    def resolve(
        cls, target: Target, backend: Backend | str = "auto", **per_op: Backend | str
    ) -> KernelSet:
        """Choose an implementation for every op.

        Args:
            target: device, dtype and head_dim to run on.
            backend: one for all ops, or "auto": see `auto_backend`.
            per_op: exceptions by op name, e.g. `tree_attention="reference"`.

        Raises:
            ValueError: an op or a backend that does not exist.
            UnsupportedError: an explicit choice cannot run, or "auto" found nothing; the message
                has the reasons.
        """
        if unknown := per_op.keys() - IMPLS.keys():
            raise ValueError(f"per_op: expected ops among {sorted(IMPLS)}, got {sorted(unknown)}")
        return cls(
            **{op.name: _pick(op.name, target, per_op.get(op.name, backend)) for op in fields(cls)}
        )

    def decoder_layers(
        self, layers: Sequence[LayerWeights], rope: Tensor, eps: float
    ) -> DecoderLayers | None:
        """Whole layers in one call, with the bits of the ops one by one; None where the ops that
        were chosen have no such call. `rope` is [2, P, D / 2] float32, `eps` that of the norms.

        Raises:
            ValueError: weights whose shapes or dtypes disagree.
        """
        fused: DecoderLayers | None = None
        if self._served_by(Backend.NATIVE, LAYER_OPS):
            native = import_module("kangaroo_kernels.decoder_layers.native")
            fused = native.NativeLayers(layers, rope, eps)
        elif self._served_by(Backend.TRITON, LAYER_OPS):
            kernel = import_module("kangaroo_kernels.decoder_layers.triton_kernel")
            ops = self.rope_append_kv, self.tree_attention
            fused = kernel.decoder_layers(layers, rope, eps, *ops)
        return fused

    def draft_tokens(
        self, layers: DecoderLayers | None, weights: DrafterWeights
    ) -> DraftTokens | None:
        """Whole chains of drafts in one call, with the bits of the ops one by one; None where the
        ops that were chosen have no such call. `layers` is what `decoder_layers` gave.

        Raises:
            ValueError: weights whose shapes or dtypes disagree.
        """
        if layers is None or not self._served_by(Backend.NATIVE, LAYER_OPS + DRAFT_OPS):
            return None
        native = import_module("kangaroo_kernels.draft_tokens.native")
        fused: DraftTokens = native.NativeDrafts(layers, weights)
        return fused

    def draft_step(self, layers: DecoderLayers | None, weights: DrafterWeights) -> DraftStep | None:
        """A step of drafting in two calls, with the bits of the ops one by one; None, and raises,
        as `draft_tokens`.
        """
        if layers is None or not self._served_by(Backend.TRITON, LAYER_OPS + DRAFT_OPS + TREE_OPS):
            return None
        kernel = import_module("kangaroo_kernels.draft_step.triton_kernel")
        fused: DraftStep = kernel.TritonDraftStep(layers, weights)
        return fused

    @property
    def backends(self) -> dict[str, str]:
        """By op: the backend that serves it, or the module of a function that is none of ours."""
        return {op.name: _backend_of(op.name, getattr(self, op.name)) for op in fields(self)}

    def _served_by(self, backend: Backend, ops: Sequence[str]) -> bool:
        modules = {getattr(self, op).__module__.rpartition(".")[2] for op in ops}
        return modules == {MODULES[backend]}


def _backend_of(op: str, function: Callable[..., Any]) -> str:
    for backend in IMPLS[op]:  # what serves has been imported, and nothing else need be
        module = sys.modules.get(f"kangaroo_kernels.{op}.{MODULES[backend]}")
        if getattr(module, op, None) is function:
            return backend.value
    return function.__module__


def _pick(op: str, target: Target, wanted: Backend | str) -> Callable[..., Any]:
    if wanted != "auto":
        if wanted not in list(Backend):
            raise ValueError(
                f"backend: expected 'auto' or one of {[b.value for b in Backend]}, got {wanted!r}"
            )
        return load_impl(op, Backend(wanted), target)
    return load_impl(op, auto_backend(op, target), target)
