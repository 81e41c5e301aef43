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
        max_nodes: int,
        first: int,
        width: int,
        passes_left: int,
        sharpness: float,
    ) -> None:
        """One pass of every tree that has not stopped: what is ranked behind its newest nodes
        waits, and some of all that wait become nodes, by the rule of `draft_trees.choose`, from
        float64 `shares`. Of inner nodes at most `width`. With the last nodes the tree is written to
        `trees`: inner nodes in the order of their places, leaves, padding; and it has stopped.

        Args:
            tokens:        [B, W, K] int64, the most probable behind each of the newest nodes.
            probabilities: [B, W, K] float32, decreasing. Inner nodes follow where the first is not
                below the tree's threshold.
            seedbed:       mutated. The newest nodes are at [first, first + W), the next at the
                `width` places behind, those that no node takes empty.
            trees:         mutated; with first = 0 their roots begin new ones.
            max_nodes:     at most N; first: 0: the newest node is the root, W = 1.
            width:         0 in the last pass.
            passes_left:   this one included.
        """
        ...
