"""verify_tree: which drafted tokens the target writes itself."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Verdict(NamedTuple):
    """What verification keeps of each sequence's tree: accepted nodes [B, N] int64, root first and
    -1 behind them; how many they are, [B] int32, from 1; the target's own token after them, [B]
    int64, -1: no finite logit is largest.
    """

    path: Tensor
    path_len: Tensor
    bonus: Tensor


class VerifyTree(Protocol):
    def __call__(
        self,
        logits: Tensor,
        tokens: Tensor,
        parents: Tensor,
        num_nodes: Tensor | None = None,
        *,
        out: Verdict | None = None,
        successors: Tensor | None = None,
        choices: Tensor | None = None,
    ) -> Verdict:
        """Walk from the root along the child that equals the target's own token.

        Args:
            logits:    [B, N, V], after each node; ties go to the lowest id, NaN is the largest.
            tokens, parents: [B, N] int64; parents[b, i] < i, that of the root, node 0, is -1.
            num_nodes: [B] int32: so many of the N belong to the tree, at least 1; None: all.
            out: written and returned, if given; successors: [B, N] int64, written, if given: the
                token after each accepted node, 0 after the others.
            choices: [B, N] int64, the target's tokens, -1: none; None: the argmax of its logits.
        """
