"""The frozen target: exit and last states of whole sequences, in process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from kangaroo.train.config import TargetDtype


@dataclass(frozen=True)
class States:
    """What the target knows of B sequences of T tokens, each [B, T, C] float32 but `normed`.

    Attributes:
        exit: behind layer E - 1; last: behind the last layer, before the final norm.
        normed: `last` behind the final norm, in the target's dtype: what its head reads.
        ids: [B, T] int64, the tokens.
        successor: embeddings of the tokens behind the slots; behind the last, of some token.
        positions: [B, T] int64, of each slot in its document; None: a row is one document.
    """

    exit: Tensor
    last: Tensor
    normed: Tensor
    ids: Tensor
    successor: Tensor
    positions: Tensor | None = None


class FrozenTarget:
    """A Hugging Face model that is only ever read.

    Attributes:
        head: [V, C], norm: [C], the final norm in front of it, and embedding: [V, C]; in the
            target's dtype.
        eps: of its norms.
        eos_ids: tokens that end a generation.
    """

    def __init__(self, model: Any, exit_layer: int):
        self.model, self.exit_layer = model.eval().requires_grad_(False), exit_layer
        self.head: Tensor = model.get_output_embeddings().weight
        self.norm: Tensor = model.model.norm.weight
        self.embedding: Tensor = model.get_input_embeddings().weight
        self.eps: float = model.config.rms_norm_eps
        eos = model.generation_config.eos_token_id
        self.eos_ids: list[int] = eos if isinstance(eos, list) else [] if eos is None else [eos]
        # The checkpoint may ask for penalties or sampling; what is replayed is plain greedy.
        pad = self.eos_ids[0] if self.eos_ids else None
        model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=pad)

    @classmethod
    def load(
        cls, path: Path, exit_layer: int, dtype: torch.dtype, device: torch.device
    ) -> FrozenTarget:
        """The checkpoint in `path`, cut behind layer `exit_layer - 1`."""
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        return cls(model.to(device), exit_layer)

    @property
    def device(self) -> torch.device:
        return self.head.device

    @torch.no_grad()
    def states(self, ids: Tensor, positions: Tensor | None = None) -> States:
        """States of ids [B, T] int64. Padding may only stand on the right: attention is causal.

        Args:
            positions: see `States`; a slot sees its own document alone, for transformers tells
                packed documents by their positions.
        """
        ids = ids.to(self.device)
        if positions is not None:
            positions = positions.to(self.device)
        layers = self.model.model.layers
        with captured(layers[self.exit_layer - 1]) as exit_state, captured(layers[-1]) as last:
            out = self.model.model(input_ids=ids, position_ids=positions, use_cache=False)
        last_states = last[0].float()
        return States(
            exit_state[0].float(),
            last_states,
            out.last_hidden_state,
            ids,
            self.successor(ids),
            positions,
        )

    def successor(self, ids: Tensor) -> Tensor:
        """See `States`."""
        embedded: Tensor = self.model.model.embed_tokens(ids.roll(-1, dims=1))
        return embedded.float()

    @torch.no_grad()
    def continue_greedily(self, prompts: Tensor, new_tokens: int) -> Tensor:
        """[N, P] int64 -> [N, P + n], n <= new_tokens; behind an end token stand more of them."""
        ids: Tensor = self.model.generate(
            prompts.to(self.device),
            attention_mask=torch.ones_like(prompts, device=self.device),
            max_new_tokens=new_tokens,
        )
        return ids


@contextmanager
def captured(layer: nn.Module) -> Iterator[list[Tensor]]:
    """While the context lasts, the layer's newest output is the list's only element."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        outputs[:] = [output[0] if isinstance(output, tuple) else output]

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def pick_device(device: str) -> torch.device:
    """ "auto": the GPU if there is one."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(dtype: TargetDtype, device: torch.device) -> torch.dtype:
    """ "auto": bfloat16 on GPUs that multiply it natively, else float32."""
    if dtype != "auto":
        return torch.bfloat16 if dtype == "bfloat16" else torch.float32
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32
