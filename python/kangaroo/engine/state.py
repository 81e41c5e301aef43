"""Everything the sequences own that are decoded together."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kangaroo.cache import SlotCache, Slots, Texts
from kangaroo.config import MAX_TREE_NODES, ModelConfig
from kangaroo.draft.tree import DraftTree, is_chain, places
from kangaroo.engine.stopping import Criterion
from kangaroo.sampling.sampler import Sampler
from kangaroo_kernels import KernelSet
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.verify_tree import Verdict

CACHES = ("shallow_kv", "deep_kv", "adapter_kv")


class SequenceError(ValueError):
    """One sequence cannot go on.

    Attributes:
        number: its row in a round; as `Batch.step` raises it, the number that the batch gave it.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


@dataclass
class Request:
    """One sequence, what it has come to, and what is still asked for.

    Attributes:
        tokens: prompt and committed tokens.
        num_left: tokens that may follow at most; 0: the sequence has ended.
        eos_ids: tokens that end it; they are part of it.
        criteria: what else does.
        sampler: decides its tokens; None: every one is the target's argmax.
        credit: what drafting has won or lost, where it is adaptive; see draft/pace.py.
        memory: what its drafter remembers of it between rounds, if anything.
    """

    tokens: list[int]
    num_left: int
    eos_ids: Set[int] = frozenset()
    criteria: Sequence[Criterion] = ()
    sampler: Sampler | None = None
    credit: float = 0.0
    memory: object = None

    @property
    def prefix_len(self) -> int:
        """Committed slots; also the root's slot and position."""
        return len(self.tokens) - 1


@dataclass
class DecodeState:
    """B sequences of unequal lengths. Between rounds the tokens of each but its last are in the
    target's caches; the last, the next root, is in none.

    The `paper` adapter may be one slot behind: a leaf is verified without passing through it;
    `exit_states` keeps what it missed.

    Attributes:
        requests: the sequences, in the order of the caches' rows.
        shallow_kv, deep_kv: the target's layers [0, E) and [E, L).
        adapter_kv: the adapter's own, written by the drafter.
        exit_states: [capacity, 1 + MAX_TREE_NODES, C], what verification and the adapter start
            from: node n's is at n + 1; at 0 is that of the slot in front of the root, if any.
        unwritten: exit and last states [1, 1, C] of the newest committed slots, which the adapter
            has no rows of while nothing is drafted; only of a state that has room for one sequence.
        texts: the sequences' tokens where the device looks for repetitions; None: nowhere yet.
    """

    requests: list[Request]
    shallow_kv: SlotCache
    deep_kv: SlotCache
    adapter_kv: SlotCache
    exit_states: Tensor = field(repr=False)
    unwritten: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)
    texts: Texts | None = field(default=None, repr=False)

    @classmethod
    def empty(
        cls, model: ModelConfig, exit_layer: int, adapter_kv: SlotCache, like: Tensor
    ) -> DecodeState:
        """No sequences, and caches for as many and as long ones as `adapter_kv`, on the device and
        in the dtype of `like`.
        """
        capacity, num_slots = adapter_kv.capacity, adapter_kv.num_slots
        slots = Slots(capacity, like.device)

        def kv(num_layers: int) -> SlotCache:
            leading = (2 * num_layers, capacity, model.num_kv_heads)
            return SlotCache(leading, num_slots, model.head_dim, like, slots)

        shape = (capacity, 1 + MAX_TREE_NODES, model.hidden_size)
        state = cls(
            requests=[],
            shallow_kv=kv(exit_layer),
            deep_kv=kv(model.num_layers - exit_layer),
            adapter_kv=adapter_kv,
            exit_states=torch.zeros(shape, dtype=like.dtype, device=like.device),
        )
        state.settle([], [])
        return state

    @property
    def caches(self) -> tuple[SlotCache, SlotCache, SlotCache]:
        return self.shallow_kv, self.deep_kv, self.adapter_kv

    @property
    def prefix_lens(self) -> list[int]:
        """[B] committed slots; also the roots' slots and positions."""
        return [request.prefix_len for request in self.requests]

    @property
    def lags(self) -> list[int]:
        """[B] committed slots that the adapter has not seen; while it drafts 0 or 1."""
        seen = self.adapter_kv.slots.committed
        return [root - n for root, n in zip(self.prefix_lens, seen, strict=True)]

    def texts_on_device(self) -> Texts:
        """Kept for all rounds that read them."""
        if self.texts is None:
            cache = self.shallow_kv
            self.texts = Texts(cache.capacity, cache.num_slots, self.exit_states.device)
        return self.texts

    def hidden(self, start: int, stop: int) -> Tensor:
        """Exit states of nodes [start, stop): [B, stop - start, C], contiguous."""
        return self.exit_states[: len(self.requests), 1 + start : 1 + stop].contiguous()

    def nodes(self, cache: SlotCache, trees: Sequence[DraftTree], num_nodes: int) -> NodeBatch:
        """The next `num_nodes` nodes of `trees` that `cache` has no rows of: behind all that is
        committed, each at its root's position plus its depth.
        """
        if is_chain(trees):
            return cache.chain(num_nodes)
        slots, first = cache.slots, cache.num_nodes
        seqlens = slots.cache_seqlens
        depths, ancestors = places(trees, first, first + num_nodes, seqlens.device)
        return NodeBatch(depths + seqlens[:, None], seqlens, first, ancestors, slots.committed)

    def forget_nodes(self) -> None:
        """Nothing of a round that has failed is left."""
        for cache in self.caches:
            cache.num_nodes = 0

    def settle(self, prefix_lens: list[int], seen_lens: list[int]) -> None:
        """So many slots are history, of the target's caches and of the adapter's; no nodes."""
        self.shallow_kv.commit(prefix_lens)
        self.deep_kv.num_nodes = 0
        self.adapter_kv.commit(seen_lens)

    def commit(
        self, verdict: Verdict, paths: list[list[int]], tokens: list[list[int]], kernels: KernelSet
    ) -> None:
        """Make the accepted paths and `tokens` history: the one place where caches shrink.

        Args:
            paths: of `verdict`, cut where a sequence ends: as many nodes as it has `tokens`.
        """
        if any(path[-1] != len(path) - 1 for path in paths):  # a chain is in place already
            rows = [cache.rows for cache in self.caches if cache.storage.numel()]
            seqlens = self.shallow_kv.slots.cache_seqlens
            kernels.compact_kv(rows, verdict.path, verdict.path_len, seqlens)
        own, seen_lens = self.adapter_kv, []
        for b, (request, path) in enumerate(zip(self.requests, paths, strict=True)):
            root, seen = request.prefix_len, own.slots.committed[b] + own.num_nodes
            kept = sum(root + node < seen for node in path)  # the adapter may lack the leaf
            seen_lens.append(min(seen, root + kept))
            request.tokens += tokens[b]
            self.exit_states[b, 0] = self.exit_states[b, 1 + path[-1]]
        self.settle(self.prefix_lens, seen_lens)

    def join(self, request: Request, other: DecodeState, other_row: int = 0) -> None:
        """Take in `request`, which goes on where a sequence of `other` has come to.

        Raises:
            ValueError: all rows are taken, or it may grow longer than the caches.
        """
        row = len(self.requests)
        if row == self.shallow_kv.capacity:
            raise ValueError(f"join: expected a free row, all {row} are taken")
        longest = len(request.tokens) + request.num_left + MAX_TREE_NODES
        if longest > self.shallow_kv.num_slots:
            raise ValueError(
                f"join: expected at most {self.shallow_kv.num_slots - MAX_TREE_NODES} tokens, "
                f"got {len(request.tokens)} and {request.num_left} more"
            )
        self._copy(row, other, other_row)
        self.unwritten = list(other.unwritten)
        self.requests.append(request)
        seen = other.adapter_kv.slots.committed[other_row]
        self.settle(self.prefix_lens, [*self.adapter_kv.slots.committed, seen])

    def resume(self, past: DecodeState, tokens: list[int]) -> int:
        """Become the beginning of `tokens` that the one sequence of `past` has in its caches.

        Returns:
            how many slots that are; at most all tokens but the last.

        Raises:
            ValueError: the layers of `past` are cut elsewhere.
        """
        if len(self.adapter_kv.storage) and not len(past.adapter_kv.storage):
            return 0  # nothing was drafted there, and the adapter needs its rows of every slot
        theirs = past.requests[0].tokens
        pairs = enumerate(zip(tokens[:-1], theirs[:-1], strict=False))
        common = min(len(tokens), len(theirs)) - 1
        kept = next((n for n, (a, b) in pairs if a != b), common)
        seen = past.adapter_kv.slots.committed[0]
        kept = min(kept, seen) if past.unwritten else kept
        if kept == len(tokens) - 1 != past.requests[0].prefix_len:
            kept = max(kept - 1, 0)  # the exit state of the slot in front is computed again
        for name, cache, old in zip(CACHES, self.caches, past.caches, strict=True):
            wanted, got = len(cache.storage), len(old.storage)
            if wanted not in (got, 0):
                raise ValueError(
                    f"past_key_values: expected {wanted} planes of {name}, got {got}: it was made "
                    "for another exit layer"
                )
            if wanted:
                cache.copy(0, old, 0, kept)
        self.exit_states[0, 0] = past.exit_states[0, 0]
        self.settle([kept], [min(kept, seen)])
        return kept

    def leave(self, row: int) -> Request:
        """Forget a sequence; the last one moves into its row. No row's bits depend on which it
        is.
        """
        last, seen = len(self.requests) - 1, list(self.adapter_kv.slots.committed)
        request = self.requests[row]
        if row != last:
            self._copy(row, self, last)
            self.requests[row], seen[row] = self.requests[last], seen[last]
        self.requests.pop()
        self.unwritten = []
        self.settle(self.prefix_lens, seen[:-1])
        return request

    def _copy(self, row: int, source: DecodeState, source_row: int) -> None:
        for mine, theirs in zip(self.caches, source.caches, strict=True):
            mine.copy(row, theirs, source_row, theirs.slots.committed[source_row])
        self.exit_states[row, 0] = source.exit_states[source_row, 0]


@dataclass
class PastKeyValues:
    """Keys and values of one sequence, for calls of generate that go on behind it.

    A call takes over what its prompt begins with, however much that is, and leaves its own here. A
    shallow copy (`copy.copy`) keeps what there was: one prompt can be gone on with many times.

    Attributes:
        state: the sequence; None: there is none yet.
        owner: who decodes it; the keys and values of others mean nothing to it.
    """

    state: DecodeState | None = None
    owner: object = None

    @property
    def tokens(self) -> list[int]:
        """The tokens whose keys and values are here."""
        return [] if self.state is None else self.state.requests[0].tokens[:-1]
