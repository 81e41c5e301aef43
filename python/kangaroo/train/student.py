"""What the trainer asks of any drafter that it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from kangaroo.config import ModelConfig
from kangaroo.costs import Cost
from kangaroo.models.adapter import Adapter, VerifiedStates
from kangaroo.models.adapter_io import DraftModule, save_adapter
from kangaroo.models.families import model_config
from kangaroo.models.fingerprint import fingerprint
from kangaroo.train.forward import draft_hidden, full_sequence
from kangaroo.train.simulate import Replay
from kangaroo.train.target import FrozenTarget, States


class Student(Protocol):
    """A drafter in training. Its guesses at every slot of whole sequences are those that the engine
    would make there.
    """

    @property
    def module(self) -> nn.Module:
        """What is trained, and saved."""
        ...

    @property
    def scaled(self) -> list[nn.Parameter]:
        """Matrices whose output is added to exit states: see `train.run.exit_scale`."""
        ...

    @property
    def trains_all(self) -> bool:
        """A step trains every delta; else one."""
        ...

    def start(self, target: FrozenTarget, seed: int) -> None:
        """Fresh weights, those of `scaled` in units of the exit states."""
        ...

    def hidden(self, states: States, rope: Tensor, deltas: Sequence[int]) -> Iterator[Tensor]:
        """For every delta [B, T, C]: what the head reads to say the token behind each slot, where
        the newest verified slot is `delta` slots behind it (1: it is the root of a draft).
        """
        ...

    def head(self, delta: int, target_head: Tensor) -> Tensor:
        """[V, C]: the target's, or a parameter."""
        ...

    def cost(self, target: ModelConfig) -> Cost:
        """What a round costs."""
        ...

    def save(self, path: Path, target: Path, rule: Replay) -> None:
        """Write it to folder `path` for the target in folder `target`, to be stopped by `rule`.

        Raises:
            ValueError: as save_adapter.
        """
        ...


class AdapterStudent:
    """Kangaroo's adapter; its head is the target's."""

    trains_all = False

    def __init__(self, module: Adapter):
        self.module = module

    @property
    def scaled(self) -> list[nn.Parameter]:
        """See Student."""
        return [self.module.o]

    @torch.no_grad()
    def start(self, target: FrozenTarget, seed: int) -> None:
        """The final norm is the target's."""
        self.module.reset(seed)
        self.module.norm.copy_(target.norm)

    def hidden(self, states: States, rope: Tensor, deltas: Sequence[int]) -> Iterator[Tensor]:
        """See Student; `paper` does not know delta and gives one tensor for all."""
        out: Tensor | None = None
        for delta in deltas:
            if out is None or self.module.config.kind == "deep_prefix":
                seen = VerifiedStates(states.exit, states.last, states.successor)
                out = full_sequence(
                    self.module, seen, rope, delta=delta, positions=states.positions
                )
                out = draft_hidden(self.module, out)
            yield out

    def head(self, delta: int, target_head: Tensor) -> Tensor:
        """See Student."""
        return target_head

    def cost(self, target: ModelConfig) -> Cost:
        """See Student."""
        return Cost.of(target, self.module.config)

    def save(self, path: Path, target: Path, rule: Replay) -> None:
        """See Student."""
        deploy(self.module, path, target, rule)


def deploy(module: DraftModule, path: Path, target: Path, rule: Replay) -> None:
    """Write what was trained to folder `path`; see :meth:`Student.save`."""
    config = replace(module.config, confidence=rule.confidence, max_depth=rule.max_depth)
    module.config = config
    save_adapter(path, module, model_config(target), fingerprint(target, config.exit_layer))
