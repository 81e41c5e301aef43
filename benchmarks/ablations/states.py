"""States behind any layers of a target: made, and kept."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kangaroo.train.features import digests
from kangaroo.train.target import FrozenTarget, States, captured
from kangaroo.train.windows import Windows


class LayeredTarget(FrozenTarget):
    """`States.last` is the state behind `deep_layer` layers; `normed` stays the last one's."""

    def __init__(self, model: Any, exit_layer: int, deep_layer: int):
        super().__init__(model, exit_layer)
        self.deep_layer = deep_layer

    @torch.no_grad()
    def states(self, ids: Tensor, positions: Tensor | None = None) -> States:
        """See FrozenTarget."""
        if positions is None:
            positions = torch.arange(ids.shape[1]).expand_as(ids)
        found, normed = self.layered(ids, positions, (self.exit_layer, self.deep_layer))
        return States(*found.float(), normed, ids, self.successor(ids), positions)

    @torch.no_grad()
    def layered(
        self, ids: Tensor, positions: Tensor, layers: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """[len(layers), B, T, C] behind so many layers each, and the last behind the norm."""
        modules = self.model.model.layers
        with contextlib.ExitStack() as stack:
            found = [stack.enter_context(captured(modules[count - 1])) for count in layers]
            out = self.model.model(input_ids=ids, position_ids=positions, use_cache=False)
        return torch.stack([states[0] for states in found]), out.last_hidden_state


@dataclass(frozen=True)
class Kept:
    """States of training windows from the store: `Run.features`."""

    target: LayeredTarget
    store: Tensor
    rows: dict[bytes, int]
    layers: tuple[int, int, int]

    def states(self, windows: Windows) -> States:
        """See FrozenTarget.states."""
        rows = [self.rows[digest] for digest in digests(windows)]
        exit_state, deep, last = (self.store[layer, rows] for layer in self.layers)
        with torch.no_grad():
            normed = self.target.model.model.norm(last.float())
        successor = self.target.successor(windows.ids)
        return States(
            exit_state.float(), deep.float(), normed, windows.ids, successor, windows.positions
        )
