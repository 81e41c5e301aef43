"""verify_tree: which drafted tokens the target would have written itself (greedy)."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Verdict(NamedTuple):
    """What verification keeps of each sequence's tree.

    Attributes:
        path:     [B, N] int64, accepted nodes, root first, then -1; path_len: [B] int32, from 1.
        bonus:    [B] int64, the target's own token after the path; -1: no finite logit is largest.
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
            choices: [B, N] int64, the target's token after each node, e.g. by draw_tokens, -1 for
                none; None: the argmax of its logits.
            out: written and returned, if given; successors: [B, N] int64, written, if given: the
                token after each accepted node, 0 after the others.
        """
