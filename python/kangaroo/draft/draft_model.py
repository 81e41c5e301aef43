"""Speculative decoding with a small model of its own (arXiv 2211.17192, 2302.01318)."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.costs import pass_parameters
from kangaroo.draft.tokens import SteppingDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama
from kangaroo_kernels import UnsupportedError


class ModelDrafter(SteppingDrafter):
    """Drafts with another model of the same tokens. Its keys and values are `adapter_kv`; it reads
    what it lacks of the text, however much, in front of the next draft.

    Args:
        draft_model: on the target's device; its dtype and its family are its own.

    Raises:
        ValueError: it has another vocabulary, or trees are wanted.
    """

    def __init__(self, model: Llama, config: DraftConfig, draft_model: Llama):
        super().__init__(model, config, draft_model)
        own, wanted = draft_model.config.vocab_size, model.config.vocab_size
        if own != wanted:
            raise ValueError(f"draft_model: expected the target's {wanted} tokens, got {own}")

    @property
    def step_parameters(self) -> int:
        """All of the small model but its embedding."""
        return pass_parameters(self.speaker.config, self.speaker.config.num_layers)

    def new_cache(self, batch: int, num_slots: int) -> SlotCache:
        """See Drafter.

        Raises:
            ValueError, UnsupportedError: the small model cannot see so far.
        """
        config = self.speaker.config
        if num_slots > config.max_seq_len:
            raise ValueError(
                f"draft_model: expected a context of at least {num_slots} tokens, "
                f"got {config.max_seq_len}"
            )
        if config.sliding_window is not None and num_slots > config.sliding_window:
            raise UnsupportedError(
                f"draft_model: sliding-window attention is not supported: {num_slots} tokens would "
                f"reach past its window of {config.sliding_window}"
            )
        leading = (2 * config.num_layers, batch, config.num_kv_heads)
        num_slots, like = num_slots + MAX_TREE_NODES, self.speaker.weights.norm
        return SlotCache(leading, num_slots, config.head_dim, like)

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        """The prompt's next slots, and those that the small model was behind."""
        own, (request,) = state.adapter_kv, state.requests
        done = state.shallow_kv.slots.committed[0] + h.shape[1]
        self._last_states([request.tokens[own.slots.committed[0] : done]], own, prefill=True)

    def states(self, state: DecodeState, trees: list[DraftTree]) -> Tensor:
        """See SteppingDrafter."""
        own = state.adapter_kv
        if own.num_nodes == 0:
            return self._catch_up(state, own)
        return self._last_states([tree.tokens[-1:] for tree in trees], own)

    def _catch_up(self, state: DecodeState, own: SlotCache) -> Tensor:
        """All that some sequence lacks up to its root, in one pass; the states of the roots.

        The others pass through as many slots as that one: again through some that they have, and
        those that are shorter through slots that will be written over.
        """
        roots, width = state.prefix_lens, 1 + max(state.lags)
        starts = [max(0, root + 1 - width) for root in roots]
        texts = [request.tokens for request in state.requests]
        unseen = [text[start:] for text, start in zip(texts, starts, strict=True)]
        own.commit(starts)
        h = self._last_states([(tokens + [0] * width)[:width] for tokens in unseen], own)
        own.commit(roots, num_nodes=1)
        return torch.stack([h[b, len(tokens) - 1] for b, tokens in enumerate(unseen)])[:, None]

    def _last_states(
        self, tokens: list[list[int]], own: SlotCache, *, prefill: bool = False
    ) -> Tensor:
        """`tokens` [B, N] of the next slots through the small model: [B, N, C]."""
        model, nodes = self.speaker, own.chain(len(tokens[0]))
        h = model.embed(torch.tensor(tokens, device=own.storage.device))
        return model.layers(h, 0, model.config.num_layers, own, nodes, prefill=prefill)
