"""How a tree of drafts grows: which tokens become nodes, and which of those are drafted behind.

No tensors: the drafter ranks the tokens behind the newest nodes, all in one pass, and a growth
decides. Tokens that are chosen may be chosen by probability, as here; where drawn ones are judged
by rejection, none may be dropped because it was improbable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.draft.tree import DraftTree
from kangaroo_kernels.draft_trees import Candidate, choose, shares

Ranking = tuple[Sequence[int], Sequence[float]]  # tokens behind a node, the best first; probability
# An adapter learns how often the target would draw a token, but what counts is its best one: of
# greedy drafts said to be right with probability 0.3 some 0.6 are. Maximum likelihood of what
# followed, on tiny-py: 1.75 for `deep_prefix`, 1.5 for `paper`.
SHARPNESS = 1.5


def sharpness(*, sampled: bool) -> float:
    """Where tokens are `sampled`, what the drafter says of them is taken as it is."""
    return 1.0 if sampled else SHARPNESS


class Growth(Protocol):
    """One tree, pass by pass. While it is `open` the newest nodes, at first the root, are drafted
    behind.
    """

    @property
    def open(self) -> bool: ...

    def extend(self, rankings: Sequence[Ranking]) -> None:
        """Add the next nodes, at least one; `rankings` are of the newest nodes, in their order, and
        of padding behind them, which is passed over.
        """
        ...


class DynamicGrowth:
    """Best first, in passes; see :func:`kangaroo_kernels.draft_trees.choose`."""

    def __init__(
        self, tree: DraftTree, config: DraftConfig, max_depth: int, sharpness: float = SHARPNESS
    ):
        self.tree, self.config, self.sharpness = tree, config, sharpness
        self.passes_left = max_depth  # so many passes make no path longer
        self.probabilities = {0: 1.0}  # of the paths that lead to the nodes
        self.first_new = 0
        self.waiting: list[Candidate] = []

    @property
    def nodes_left(self) -> int:
        """Padding takes none of the tree's own, only of what kernels take."""
        unused = self.config.max_nodes - 1 - self.tree.num_drafted
        return min(unused, MAX_TREE_NODES - len(self.tree))

    @property
    def open(self) -> bool:
        """See Growth."""
        return self.passes_left > 0 and self.nodes_left > 0

    def extend(self, rankings: Sequence[Ranking]) -> None:
        """See Growth."""
        self._offer(rankings)
        self.tree.num_passes += 1
        self.first_new = len(self.tree)
        paths = list(self.probabilities.values())
        chosen, last = choose(self.waiting, paths, len(paths) + self.nodes_left, self.passes_left)
        for candidate in chosen:
            node = self.tree.add(candidate.token, candidate.parent)
            self.probabilities[node] = candidate.probability
        taken = set(chosen)
        self.waiting = [c for c in self.waiting if c not in taken]
        self.passes_left = 0 if last else self.passes_left - 1

    def _offer(self, rankings: Sequence[Ranking]) -> None:
        for node, (tokens, probabilities) in enumerate(rankings, self.first_new):
            if node not in self.probabilities:
                break
            sure, path = probabilities[0] >= self.config.confidence, self.probabilities[node]
            found = zip(tokens, shares(probabilities, self.sharpness), strict=True)
            for rank, (token, share) in enumerate(found):
                self.waiting.append(Candidate(path * share, token, node, sure, rank))


class StaticGrowth:
    """Always the same shape: on level n every node has the same number of children."""

    def __init__(self, tree: DraftTree, config: DraftConfig, max_depth: int):
        self.tree, self.widths = tree, list(config.tree_widths[:max_depth])
        self.first_new = 0

    @property
    def open(self) -> bool:
        """See Growth."""
        return bool(self.widths)

    def extend(self, rankings: Sequence[Ranking]) -> None:
        """See Growth."""
        self.tree.num_passes += 1
        width, first_new = self.widths.pop(0), len(self.tree)
        for node, (tokens, _) in enumerate(rankings, self.first_new):
            for token in tokens[:width]:
                self.tree.add(token, node)
        self.first_new = first_new


def growth_of(
    tree: DraftTree, config: DraftConfig, max_depth: int, *, sampled: bool = False
) -> Growth:
    """What grows `tree`, a root, at most `max_depth` deep."""
    if config.tree_widths:
        return StaticGrowth(tree, config, max_depth)
    return DynamicGrowth(tree, config, max_depth, sharpness(sampled=sampled))
