"""verify_tree: which drafted tokens the target would have written itself (greedy)."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Verdict(NamedTuple):
    """What verification keeps of each sequence's tree.

    Attributes:
        path:     [B, N] int64, accepted nodes, root first, strictly increasing; entries from
            path_len on are -1.
        path_len: [B] int32, at least 1.
        bonus:    [B] int64, the target's own token after the last accepted node.
    """

    path: Tensor
    path_len: Tensor
    bonus: Tensor


class VerifyTree(Protocol):
    def __call__(self, logits: Tensor, tokens: Tensor, parents: Tensor) -> Verdict:
        """Walk from the root along the child that equals the target's argmax (ties to the lowest
        id).

        Args:
            logits:  [B, N, V], the target's prediction after each node.
            tokens:  [B, N] int64, tokens of the nodes; node 0 is the root.
            parents: [B, N] int64, parents[b, i] < i; the root's is -1.
        """
        ...
