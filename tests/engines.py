"""Targets, adapters, drafters and decoders for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import (
    AdapterConfig,
    AdapterKind,
    DraftConfig,
    DraftSampling,
    EagleConfig,
    MedusaConfig,
)
from kangaroo.draft.base import Drafter
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.draft_model import ModelDrafter
from kangaroo.draft.eagle import EagleDrafter
from kangaroo.draft.growth import Ranking
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.lookup import LookupDrafter
from kangaroo.draft.medusa import MedusaDrafter
from kangaroo.draft.sampled import SampledDrafter
from kangaroo.draft.skipping import SkippingDrafter
from kangaroo.draft.threshold import Threshold
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState, Request
from kangaroo.evals.recording import Recording as Run
from kangaroo.evals.recording import RecordingDecoder
from kangaroo.models.adapter import Adapter, BareExit
from kangaroo.models.eagle import Eagle
from kangaroo.models.families import model_config
from kangaroo.models.llama import Llama
from kangaroo.models.medusa import Medusa
from kangaroo.models.weights import load_target
from kangaroo.sampling.processors import Lengths, Shaping, processors
from kangaroo.sampling.sampler import Sampler
from kangaroo.sampling.source import CounterSource
from kangaroo_kernels import Backend, KernelSet, Target, UnsupportedError
from kangaroo_kernels.kernel_set import IMPLS

BACKENDS = ("reference", "native")
# Of many runs of the loop, which is the same for both: by the slow definitions, or with the adapter
# that asks less of it, on request.
QUICK_BACKENDS = [pytest.param("reference", marks=pytest.mark.fuzz), "native"]
QUICK_KINDS = [pytest.param("paper", marks=pytest.mark.fuzz), "deep_prefix"]
CPU = torch.device("cpu")
# Options of `generate`: draft as asked for. Adapters of tests are seldom right; adaptive drafting
# would soon draft nothing with them.
FIXED: dict[str, Any] = {"adaptive": False}
SURE = 1.0  # a confidence that no threshold refuses
# Overrides for a checkpoint as small as the decode loop can be tested with.
SMALL = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "max_position_embeddings": 320,
}


def kernel_set(
    backend: str, head_dim: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> KernelSet:
    """Ops by `backend`, or by the reference where it has none; skips the test if one cannot run."""
    ops = [op for op, backends in IMPLS.items() if Backend(backend) in backends]
    target = Target(device, dtype, head_dim)
    try:
        return KernelSet.resolve(target, "reference", **dict.fromkeys(ops, backend))
    except UnsupportedError as refusal:
        pytest.skip(str(refusal))


def load(
    path: Path,
    backend: str = "reference",
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Llama:
    """The checkpoint in folder `path`."""
    config = model_config(path)
    kernels = kernel_set(backend, config.head_dim, dtype, device)
    return Llama(config, load_target(path, config, dtype, device), kernels)


def make_adapter(model: Llama, kind: AdapterKind, exit_layer: int, seed: int = 0) -> Adapter:
    """Random, but not idle: what it attends to moves the draft, and some drafts are right.

    Its final norm is nearly the target's: it says what the target might without its deep layers.
    """
    adapter = Adapter(AdapterConfig.for_target(model.config, kind, exit_layer))
    adapter.reset(seed)
    adapter.requires_grad_(False)
    adapter.o.mul_(0.5 * adapter.o.shape[1] ** -0.5 / adapter.o.std())
    adapter.norm.copy_(model.weights.norm.cpu())
    generator = torch.Generator().manual_seed(seed)
    for p in adapter.parameters():
        if p.ndim == 1:
            p.add_(torch.empty(p.shape).normal_(0.0, 0.1, generator=generator))
    return adapter.to(model.weights.norm)


def make_medusa(model: Llama, num_draft_heads: int = 6, seed: int = 0) -> Medusa:
    """Random, but not idle: its heads say other things than the target's, and than each other."""
    medusa = Medusa(MedusaConfig.for_target(model.config, num_draft_heads)).requires_grad_(False)
    medusa.reset(model.weights.lm_head)
    generator = torch.Generator().manual_seed(seed)
    for p in medusa.parameters():
        p.add_(torch.empty(p.shape).normal_(0.0, 0.5 * p.shape[-1] ** -0.5, generator=generator))
    return medusa.to(model.weights.norm)


def make_eagle(model: Llama, seed: int = 0) -> Eagle:
    """Random in every parameter: tokens, states and what it attends to move the draft."""
    eagle = Eagle(EagleConfig.for_target(model.config)).requires_grad_(False)
    eagle.reset(seed)
    generator = torch.Generator().manual_seed(seed)
    for name, p in eagle.named_parameters():
        std = 0.5 * p.shape[1] ** -0.5 if name in ("o", "down") else 0.1
        if p.ndim == 1 or name in ("o", "down"):
            p.add_(torch.empty(p.shape).normal_(0.0, std, generator=generator))
    return eagle.to(model.weights.norm)


def make_prompt(model: Llama, num_tokens: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (num_tokens,), generator=generator).tolist()


class PerfectDrafter(KangarooDrafter):
    """Kangaroo's drafter, which does all of its work and then says what the target will say.

    Args:
        tokens: the prompt and what the target makes of it.
    """

    def __init__(self, model: Llama, adapter: Adapter, config: DraftConfig, tokens: Sequence[int]):
        super().__init__(model, adapter, config)
        self.tokens = tokens

    def _next_tokens(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree], growing: list[int]
    ) -> tuple[Tensor, Tensor]:
        tokens, confidences = super()._next_tokens(adapter, state, trees, growing)
        position = state.requests[0].prefix_len + state.shallow_kv.num_nodes
        tokens[0], confidences[0] = self.say(position)
        return tokens, confidences

    def say(self, position: int) -> tuple[int, float]:
        """The token at `position`, and how sure the drafter is of it."""
        return self.tokens[position], SURE


class NoisyDrafter(PerfectDrafter):
    """Right with probability `right`, else wrong for certain."""

    right, seed = 0.7, 0

    def __init__(self, model: Llama, adapter: Adapter, config: DraftConfig, tokens: Sequence[int]):
        super().__init__(model, adapter, config, tokens)
        self.generator = torch.Generator().manual_seed(self.seed)

    def say(self, position: int) -> tuple[int, float]:
        right = torch.rand((), generator=self.generator).item() < self.right
        return (self.tokens[position] + (not right)) % self.model.config.vocab_size, SURE


class WrongDrafter(NoisyDrafter):
    """Never right."""

    right = 0.0


class ScriptedBranches(BranchingDrafter):
    """Grows trees of tokens that are right at some rank or at none; it does all of its work.

    Args:
        tokens: the prompt and what the target makes of it.
    """

    seed = 0

    def __init__(self, model: Llama, adapter: Adapter, config: DraftConfig, tokens: Sequence[int]):
        super().__init__(model, adapter, config)
        self.tokens = tokens
        self.generator = torch.Generator().manual_seed(self.seed)

    def _rankings(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree]
    ) -> list[list[Ranking]]:
        (rankings,), (tree,) = super()._rankings(adapter, state, trees), trees
        vocab_size, k = self.model.config.vocab_size, self.num_ranked
        for row, node in enumerate(range(len(tree) - len(rankings), len(tree))):
            position = state.requests[0].prefix_len + tree.depths[node] + 1
            position = min(position, len(self.tokens) - 1)
            rank = int(torch.randint(k + 1, (), generator=self.generator))
            tokens = [(self.tokens[position] + n - rank) % vocab_size for n in range(k)]
            rankings[row] = tokens, [0.6 * 0.9**n for n in range(k)]
        return [rankings]


def shortened(model: Llama, num_layers: int) -> Llama:
    """The first layers of `model`, with its own norm and head: a small model that is right now and
    then.
    """
    return model.with_layers(model.weights.layers[:num_layers])


# Drafters of chains that are not Kangaroo's with its adapter, by name.
OTHERS: dict[str, Callable[[Llama, DraftConfig], Drafter]] = {
    "lookup": LookupDrafter,
    "bare exit": lambda model, config: SampledDrafter(
        model, BareExit(model.config, model.weights.norm, config.exit_layer), config
    ),
    "draft model": lambda model, config: ModelDrafter(model, config, shortened(model, 2)),
    "medusa": lambda model, config: MedusaDrafter(model, config, make_medusa(model)),
    "eagle": lambda model, config: EagleDrafter(model, config, make_eagle(model)),
    "skipping": lambda model, config: SkippingDrafter(model, config, {1}),
    "skipping by rule": lambda model, config: SkippingDrafter(
        model, config, {1}, Threshold(step=1.0)
    ),
}


def num_live(cache: SlotCache) -> int:
    """Live slots of the first sequence: committed ones and nodes."""
    return cache.slots.committed[0] + cache.num_nodes


def poison(state: DecodeState) -> None:
    """NaN in every slot, and for every node, that no one has a right to read."""
    for row in range(len(state.requests)):
        for cache in state.caches:
            first = cache.slots.committed[row] + cache.num_nodes
            cache.storage[:, row, :, first:] = torch.nan
        behind = state.lags[row] if state.adapter_kv.storage.numel() else 0
        state.exit_states[row, behind:] = torch.nan
    for row in range(len(state.requests), len(state.exit_states)):
        state.exit_states[row] = torch.nan
        for cache in state.caches:
            cache.storage[:, row] = torch.nan


def request_of(prompt: Sequence[int], max_new_tokens: int, **options: Any) -> Request:
    return Request(list(prompt), max_new_tokens, **options)


def sampler_of(
    sequence: int = 0, seed: int = 5, *, rule: DraftSampling = "coupled", **fields: Any
) -> Sampler:
    """Draws by `fields` of GenerationConfig that ask for no lengths."""
    shaping = Shaping(fields, do_sample=True)
    shapers = processors(shaping, Lengths(1, 1, frozenset()), CPU)
    draw = shaping.draw(seed, sequence) if rule == "coupled" else None
    return Sampler(CounterSource(seed), sequence, *shapers, draft_sampling=rule, draw=draw)


def decoder_of(drafter: Any, sampler: Sampler | None = None) -> RecordingDecoder:
    return RecordingDecoder(drafter.model, drafter, drafter.config, sampler)


def autoregressive(
    model: Llama, prompt: Sequence[int], max_new_tokens: int, sampler: Sampler | None = None
) -> Run:
    """The same loop, which drafts nothing: what every other run must equal."""
    drafter = KangarooDrafter(model, None, DraftConfig(exit_layer=1, max_depth=0))
    return decoder_of(drafter, sampler).run(prompt, max_new_tokens)
