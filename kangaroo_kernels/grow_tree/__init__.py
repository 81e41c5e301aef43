"""grow_tree: the next nodes of trees of drafts, chosen where the device's memory is."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees, Seedbed


class GrowTree(Protocol):
    def __call__(
        self,
        tokens: Tensor,
        probabilities: Tensor,
        seedbed: Seedbed,
        trees: DraftTrees,
        *,
        first: int,
        width: int,
        passes_left: int,
        sharpness: float,
    ) -> None:
        """One pass of every tree that has not stopped: the candidates behind its newest nodes join
        those that wait, and some of all become nodes.

        A candidate's probability is its parent's times its share of probabilities ** sharpness, in
        float64. Inner nodes come from parents that were sure: the best child's probability is not
        below the threshold. The pass takes the most probable of them, but only of the `max_nodes` -
        1 most probable paths known, for half of its share of the nodes that are left, rounded up,
        and at most `width`. Where there are none, in the last pass, and where one node is left, the
        most probable of all that wait fill the tree up: it is written to `trees`, inner nodes in
        their order, then these leaves, and has stopped. Ties go to the older place, then to the
        better rank. The rule is `draft_trees.choose`.

        Args:
            tokens:        [B, W, K] int64, the most probable behind each of the newest nodes.
            probabilities: [B, W, K] float32, decreasing.
            seedbed:       mutated. The newest nodes are at [first, first + W), the next at the
                `width` places behind, those that no node takes empty.
            trees:         mutated; with first = 0 their roots begin new ones. N is `max_nodes`.
            first:         0: the newest node is the root, W = 1.
            width:         0 in the last pass.
            passes_left:   this one included; 1: it is the last.
        """
        ...
