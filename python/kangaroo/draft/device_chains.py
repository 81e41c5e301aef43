"""Kangaroo's chains where nothing is read back: the device itself says where a chain ends."""

from __future__ import annotations

from torch import Tensor

from kangaroo.draft.shallow import through_shallow_layers
from kangaroo.draft.steps import DeviceDrafter
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import VerifiedStates
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.draws import Draws
from kangaroo_kernels.exit_states import ExitStates


class DeviceChainDrafter(DeviceDrafter):
    """The chains of :class:`KangarooDrafter`, step by step, for capture: what a step does is the
    same in every round. A step that is left out, because every chain has stopped, changes nothing
    that is read.
    """

    @property
    def lag(self) -> int:
        """Slots that the adapter is behind where a round begins. A `paper` adapter always sees the
        one in front of the root, again where it has seen it before: its row has the same bits then.
        """
        return int(self.adapter is not None and self.adapter.config.kind == "paper")

    def take_over(self, state: DecodeState) -> None:
        """From here on the adapter lacks what `lag` says, whatever another drafter has left."""
        self._write_up(state, drafting=True)
        state.adapter_kv.slots.rewind([root - self.lag for root in state.prefix_lens])

    def new_chains(self, state: DecodeState, depth: int) -> DraftTrees:
        """Chains of the root alone, for every sequence of `state`, with room for `depth` drafts."""
        batch, device = len(state.requests), state.exit_states.device
        return DraftTrees.of_chains(batch, 1 + depth, self.config.confidence, device)

    def root(self, state: DecodeState, chain: DraftChain) -> ExitStates:
        """The roots through layers [0, E)."""
        return self._node(state, chain, 0)

    def step(
        self,
        state: DecodeState,
        chain: DraftChain,
        node: int,
        states: ExitStates,
        draws: Draws | None = None,
    ) -> ExitStates:
        """Drafts behind `node`, whose exit states these are, and sends what it drafts through
        layers [0, E): exit states.
        """
        slots = state.shallow_kv.slots if node else state.adapter_kv.slots
        unseen = 0 if node else self.lag
        if unseen:
            states = ExitStates(state.hidden(-unseen, 1))
        where = states, state.adapter_kv.rows, slots.chain(node, 1 + unseen)
        if draws is None:
            self.steps.top1(*where, chain)
        else:
            logits = self.steps.logits(*where)[:, -1:].contiguous()
            position = chain.positions[:, node : node + 1].contiguous()
            ids, draw = self.head.token_ids, self.model.kernels.draw_tokens
            draw(logits, draws, position, token_ids=ids, chain=chain)
        return self._node(state, chain, node + 1)

    def copied(self, state: DecodeState, chain: DraftChain) -> None:
        """Chains that nobody has drafted through layers [0, E), and what `paper` keeps of them."""
        num_nodes = chain.tokens.shape[1]
        state.shallow_kv.num_nodes = 0
        nodes = state.shallow_kv.slots.chain(0, num_nodes)
        through_shallow_layers(self.model, self.config.exit_layer, state, chain.tokens, nodes)
        if self.adapter is not None and self.lag:
            h = state.hidden(-self.lag, num_nodes)
            nodes = state.adapter_kv.slots.chain(0, self.lag + num_nodes)
            self._write_verified(self.adapter, state, nodes, VerifiedStates(h, h, h))

    def keep_up(self, state: DecodeState) -> None:
        """In a round that drafts nothing: the adapter's row of the slot in front of the root, which
        a draft would have written.
        """
        if self.adapter is not None and self.lag:
            h = state.hidden(-1, 0)
            states = VerifiedStates(h, h, h)
            self._write_verified(self.adapter, state, state.adapter_kv.slots.chain(0, 1), states)

    def refresh(self, state: DecodeState, h_deep: Tensor, successors: Tensor) -> None:
        """What :meth:`verified` does: all nodes have last states h_deep [B, N, C], and those that
        will be committed the tokens `successors` [B, N] behind them.
        """
        if self.adapter is not None and self.adapter.config.kind == "deep_prefix":
            nodes = state.adapter_kv.slots.chain(0, h_deep.shape[1])
            h = state.hidden(0, h_deep.shape[1])
            states = self._states_of(self.adapter, h, h_deep, successors)
            self._write_verified(self.adapter, state, nodes, states)

    def _node(self, state: DecodeState, chain: DraftChain, node: int) -> ExitStates:
        tokens = chain.tokens[:, node : node + 1].contiguous()
        return self.enter(state, tokens, state.shallow_kv.slots.chain(node, 1))
