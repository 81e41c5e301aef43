"""The bytes that a step of decoding has to move at least, counted from shapes.

Weights are read once, however many rows there are; of the embedding only rows are read. Keys and
values are read once per sequence. Activations stay in caches and are not counted, logits are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch

from kangaroo.config import AdapterConfig, ModelConfig
from kangaroo.models.adapter import Adapter
from kangaroo.models.weights import target_shapes

LOGIT_BYTES = 4  # float32


@dataclass(frozen=True)
class Traffic:
    """Bytes: of weights read, of keys and values read, and of what is written."""

    weights: int = 0
    kv: int = 0
    written: int = 0

    @property
    def num_bytes(self) -> int:
        return self.weights + self.kv + self.written

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.weights + other.weights, self.kv + other.kv, self.written + other.written
        )

    def __mul__(self, times: int) -> Traffic:
        """So many steps, one after the other."""
        return Traffic(self.weights * times, self.kv * times, self.written * times)


@dataclass(frozen=True)
class Counter:
    """Counts the steps of one target and its adapter.

    Every method takes the sequences' committed slots, and how many nodes of each are new.

    Attributes:
        itemsize: bytes of a weight, of a key and of a value.
    """

    target: ModelConfig
    adapter: AdapterConfig
    itemsize: int

    @cached_property
    def _layer(self) -> int:
        shapes = target_shapes(self.target)
        layer = [s for name, s in shapes.items() if name.startswith("model.layers.0.")]
        return sum(map(prod, layer)) * self.itemsize

    @cached_property
    def _adapter(self) -> dict[str, int]:
        with torch.device("meta"):
            adapter = Adapter(self.adapter)
        return {name: p.numel() * self.itemsize for name, p in adapter.named_parameters()}

    def _row(self, num_values: int) -> int:
        return num_values * self.itemsize

    def _kv(self, config: ModelConfig | AdapterConfig, num_slots: int) -> int:
        return self._row(2 * config.num_kv_heads * config.head_dim * num_slots)

    def layers(self, num_layers: int, lengths: Sequence[int], num_nodes: int) -> Traffic:
        """Layers of the target; a node reads the nodes in front of it, too."""
        new = num_nodes * len(lengths)
        return Traffic(
            self._layer * num_layers,
            self._kv(self.target, sum(lengths) + new) * num_layers,
            self._kv(self.target, new) * num_layers,
        )

    def embedding(self, num_rows: int) -> Traffic:
        """Rows of the embedding."""
        return Traffic(self._row(self.target.hidden_size * num_rows))

    def head(self) -> Traffic:
        """Norm and head, without logits."""
        return Traffic(self._row(self.target.hidden_size * (self.target.vocab_size + 1)))

    def logits(self, num_rows: int) -> Traffic:
        """Logits that are written."""
        return Traffic(written=LOGIT_BYTES * self.target.vocab_size * num_rows)

    def ar_step(self, lengths: Sequence[int]) -> Traffic:
        """A token of every sequence through all layers and the head."""
        rows = len(lengths)
        layers = self.layers(self.target.num_layers, lengths, 1)
        return self.embedding(rows) + layers + self.head() + self.logits(rows)

    def shallow(self, lengths: Sequence[int]) -> Traffic:
        """A token of every sequence through the shared layers."""
        return self.embedding(len(lengths)) + self.layers(self.adapter.exit_layer, lengths, 1)

    def draft_step(self, lengths: Sequence[int]) -> Traffic:
        """Shared layers, adapter, and a head whose logits go nowhere."""
        parts = self._adapter
        new = len(lengths)
        step = Traffic(
            parts["input_norm"] + parts["qkv"] + parts["o"],
            self._kv(self.adapter, sum(lengths) + new),
            self._kv(self.adapter, new),
        )
        return self.shallow(lengths) + step + self.head()

    def draft(self, lengths: Sequence[int], depth: int) -> Traffic:
        """Chains of `depth` tokens: the last goes through the shared layers alone."""
        return self.draft_step(lengths) * depth + self.shallow(lengths)

    def verify(self, lengths: Sequence[int], num_nodes: int) -> Traffic:
        """Nodes through the remaining layers and the head."""
        remaining = self.target.num_layers - self.adapter.exit_layer
        rows = num_nodes * len(lengths)
        return self.layers(remaining, lengths, num_nodes) + self.head() + self.logits(rows)

    def refresh(self, lengths: Sequence[int], num_nodes: int) -> Traffic:
        """What a `deep_prefix` adapter learns from verification."""
        if self.adapter.kind == "paper":
            return Traffic()
        parts = self._adapter
        norms = parts["input_norm"] + parts["deep_norm"] + parts["successor_norm"]
        weights = norms + parts["deep_kv"]
        return Traffic(weights, written=self._kv(self.adapter, num_nodes * len(lengths)))

    def round(self, lengths: Sequence[int], depth: int) -> Traffic:
        """Chains of `depth` drafted, verified and committed."""
        nodes = depth + 1
        verified = self.verify(lengths, nodes) + self.refresh(lengths, nodes)
        return self.draft(lengths, depth) + verified
