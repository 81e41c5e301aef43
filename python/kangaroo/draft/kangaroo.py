"""Kangaroo's drafter (paper, section 3): shallow layers, adapter, the target's head; stops as soon
as it is unsure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.costs import RoundCosts
from kangaroo.draft.chains import grow
from kangaroo.draft.head import drafting_head
from kangaroo.draft.shallow import new_nodes_through_shallow_layers, through_shallow_layers
from kangaroo.draft.tree import DraftTree, pad
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter, VerifiedStates
from kangaroo.models.llama import Llama
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.nodes import NodeBatch

MOST_UNWRITTEN = 16  # rows of one tile: they are written at the price of one


class KangarooDrafter:
    """Drafts chains. Without an adapter it drafts nothing, which makes the loop autoregressive.

    Args:
        head: what drafts are taken from; by default the target's own head.
    """

    def __init__(
        self,
        model: Llama,
        adapter: Adapter | None,
        config: DraftConfig,
        *,
        head: DraftHead | None = None,
    ):
        self.model, self.adapter, self.config = model, adapter, config
        self.head = drafting_head(model.weights.lm_head) if head is None else head

    def new_cache(self, batch: int, num_slots: int) -> SlotCache:
        """Rows for the adapter's keys and values; none without an adapter.

        Room for nodes behind the end: trees have more of them than tokens that they may add, and
        a short chain is padded beside a long one.
        """
        num_slots, like = num_slots + MAX_TREE_NODES, self.model.weights.norm
        if self.adapter is None:
            return SlotCache.without_rows(batch, num_slots, like)
        config = self.adapter.config
        return SlotCache((2, batch, config.num_kv_heads), num_slots, config.head_dim, like)

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        """Write the adapter's rows of the prompt's next slots, and of one that it was behind."""
        if self.adapter is not None:
            own, (committed,) = state.adapter_kv, state.shallow_kv.slots.committed
            if own.slots.committed != [committed]:  # `paper`, whose rows are made of h alone
                h = torch.cat([state.exit_states[:, :1], h], 1)
            states = self._states_of(self.adapter, h, h_deep, _following(state, h.shape[1]))
            self._write_verified(self.adapter, state, own.chain(h.shape[1]), states)

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        """A chain below every root. The token that was not sure enough is kept; what would follow
        it is not drafted.

        All chains take the same steps: what a chain that has stopped would draft beside the others
        is padding.
        """
        trees = self._roots(state)
        growing = [b for b, max_depth in enumerate(max_depths) if max_depth > 0]
        self._write_up(state, drafting=bool(growing))
        roots, least = [tree.tokens for tree in trees], [self.config.confidence] * len(trees)
        self._shallow(state, torch.tensor(roots, device=state.exit_states.device))
        if self.adapter is not None and not growing:
            self._keep_up(self.adapter, state)
        while self.adapter is not None and growing:
            tokens, confidences = self._next_tokens(self.adapter, state, trees, growing)
            self._shallow(state, tokens)  # in the queue before the host waits for the tokens
            growing = grow(trees, growing, (tokens, confidences), least, max_depths)
        pad(trees)
        return trees

    def take(self, state: DecodeState, trees: list[DraftTree]) -> None:
        """Trees that are not this drafter's, or not all: through the shallow layers, and what
        `paper` keeps of them.
        """
        own, num_nodes = state.adapter_kv, len(trees[0])
        self._write_up(state, drafting=True)
        state.shallow_kv.num_nodes = min(1, state.shallow_kv.num_nodes)
        new_nodes_through_shallow_layers(self.model, self.config.exit_layer, state, trees)
        if self.adapter is not None and self.adapter.config.kind == "paper":
            if own.num_nodes == 0 and any(state.lags):
                self._write_behind(self.adapter, state)
            start = own.num_nodes = min(1, own.num_nodes)
            h = state.hidden(start, num_nodes)
            nodes = state.nodes(own, trees, num_nodes - start)
            self._write_verified(self.adapter, state, nodes, VerifiedStates(h, h, h))

    def verified(
        self,
        state: DecodeState,
        trees: list[DraftTree],
        h_deep: Tensor,
        successors: list[list[int]],
    ) -> None:
        """`paper` keeps the rows that it has; `deep_prefix` rewrites those of all nodes with what
        verification has learnt: a row costs nothing beside the weights, and a rejected one goes
        with its slot. Rows may wait where nothing is drafted.
        """
        if self.adapter is not None and len(trees[0]) == 1 and self._defers(state):
            if not state.unwritten and state.lags == [1]:  # `paper`: last states are not read
                state.unwritten.append((state.hidden(-1, 0).clone(), h_deep))
            state.unwritten.append((state.hidden(0, 1).clone(), h_deep))
        elif self.adapter is not None and self.adapter.config.kind == "deep_prefix":
            num_nodes, state.adapter_kv.num_nodes = h_deep.shape[1], 0
            nodes = state.nodes(state.adapter_kv, trees, num_nodes)
            h = state.hidden(0, num_nodes)
            states = self._states_of(self.adapter, h, h_deep, successors)
            self._write_verified(self.adapter, state, nodes, states)

    def costs(self) -> RoundCosts:
        """See Drafter.

        Raises:
            ValueError: there is no adapter.
        """
        if self.config.costs:
            return RoundCosts(*self.config.costs)
        if self.adapter is None:
            raise ValueError("adapter: expected one where drafting is adaptive, got none")
        device = self.model.weights.norm.device.type
        return RoundCosts.of(self.model.config, self.adapter.config, device)

    def _roots(self, state: DecodeState) -> list[DraftTree]:
        return [DraftTree.root(request.tokens[-1]) for request in state.requests]

    def _shallow(self, state: DecodeState, tokens: Tensor) -> None:
        """One node [B, 1] of every sequence through layers [0, E)."""
        nodes = state.shallow_kv.chain(1)
        through_shallow_layers(self.model, self.config.exit_layer, state, tokens, nodes)

    def _next_tokens(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree], growing: list[int]
    ) -> tuple[Tensor, Tensor]:
        """The tokens behind the newest nodes, and their probabilities: [B, 1] each; those of the
        chains that are `growing` count.
        """
        return self.model.kernels.top1_confidence(
            self._adapt(adapter, state), self.head, adapter.norm, adapter.config.rms_norm_eps
        )

    def _adapt(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree] | None = None
    ) -> Tensor:
        """The adapter's states of the N nodes that it has not seen, [B, N, C]; `trees` are chains
        if they are not given.
        """
        if (h := self._catch_up(adapter, state)) is not None:
            return h
        kv = state.adapter_kv
        h = state.hidden(kv.num_nodes, state.shallow_kv.num_nodes)
        nodes = state.nodes(kv, trees or (), h.shape[1])
        return adapter.step(h, kv, nodes, self.model.rope, self.model.kernels)

    def _catch_up(self, adapter: Adapter, state: DecodeState) -> Tensor | None:
        """If some adapter is a slot behind: it sees that slot and the root, every other one the
        root and what will be written over; the states of the roots [B, 1, C].
        """
        kv, lags = state.adapter_kv, state.lags
        if kv.num_nodes or not any(lags):
            return None
        h = self._from_behind(state, lags)
        h = adapter.step(h, kv, kv.chain(2), self.model.rope, self.model.kernels)
        kv.commit(state.prefix_lens, num_nodes=1)
        return torch.stack([h[b, lag : lag + 1] for b, lag in enumerate(lags)])

    def _keep_up(self, adapter: Adapter, state: DecodeState) -> None:
        """As `_catch_up`, where nothing is drafted: rows alone, nobody asks for states. Only
        `paper` is ever behind, whose rows are made of exit states alone.
        """
        if not self._defers(state) and any(state.lags):
            self._write_behind(adapter, state)

    def _write_behind(self, adapter: Adapter, state: DecodeState) -> None:
        """Rows of the slot that some adapter is behind, and of the root."""
        kv, h = state.adapter_kv, self._from_behind(state, state.lags)
        self._write_verified(adapter, state, kv.chain(2), VerifiedStates(h, h, h))
        kv.commit(state.prefix_lens, num_nodes=1)

    def _defers(self, state: DecodeState) -> bool:
        """Rows wait for rounds that draft something: they are written together, or never."""
        return self.config.adaptive and state.shallow_kv.capacity == 1

    def _write_up(self, state: DecodeState, *, drafting: bool) -> None:
        """The rows that have waited, if they are needed now or are many."""
        if self.adapter is not None and len(state.unwritten) >= (1 if drafting else MOST_UNWRITTEN):
            h, h_deep = (torch.cat(states, 1) for states in zip(*state.unwritten, strict=True))
            nodes = state.adapter_kv.chain(h.shape[1])
            states = self._states_of(self.adapter, h, h_deep, _following(state, h.shape[1]))
            self._write_verified(self.adapter, state, nodes, states)
            state.adapter_kv.commit(state.prefix_lens)
            state.unwritten = []

    def _from_behind(self, state: DecodeState, lags: list[int]) -> Tensor:
        """Exit states [B, 2, C] from the first slot on that each adapter has not seen."""
        if all(lags):
            return state.hidden(-1, 1)
        h = state.hidden(-1, 2)
        steps = torch.tensor([[[1 - lag], [2 - lag]] for lag in lags], device=h.device)
        return h.take_along_dim(steps, 1)

    def _states_of(
        self, adapter: Adapter, h: Tensor, h_deep: Tensor, successors: Tensor | list[list[int]]
    ) -> VerifiedStates:
        """What the adapter reads of slots with the tokens `successors` [B, N] behind them: `paper`
        exit states alone.
        """
        if adapter.config.kind == "paper":
            return VerifiedStates(h, h, h)
        tokens = torch.as_tensor(successors, device=h.device)
        return VerifiedStates(h, h_deep, self.model.embed(tokens))

    def _write_verified(
        self,
        adapter: Adapter,
        state: DecodeState,
        nodes: NodeBatch,
        states: VerifiedStates,
    ) -> None:
        kv, kernels = state.adapter_kv, self.model.kernels
        adapter.write_verified(states, kv, nodes, self.model.rope, kernels=kernels)
        kv.num_nodes += states.exit.shape[1]


def _following(state: DecodeState, count: int) -> list[list[int]]:
    """Of the one sequence of `state`: the tokens behind the next slots that the adapter has no rows
    of.
    """
    first = state.adapter_kv.slots.committed[0] + 1
    return [state.requests[0].tokens[first : first + count]]
