"""How a tree of drafts grows: which tokens become nodes, and which of those are drafted behind.

No tensors: the drafter ranks the tokens behind the newest nodes, all in one pass, and a growth
decides. Tokens that are chosen may be chosen by probability, as here; where drawn ones are judged
by rejection, none may be dropped because it was improbable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.draft.tree import DraftTree

Ranking = tuple[Sequence[int], Sequence[float]]  # tokens behind a node, the best first; probability
# An adapter learns how often the target would draw a token, but what counts is its best one: of
# greedy drafts said to be right with probability 0.3 some 0.6 are. Maximum likelihood of what
# followed, on tiny-py: 1.75 for `deep_prefix`, 1.5 for `paper`.
SHARPNESS = 1.5


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


class Candidate(NamedTuple):
    """A token that may become a node.

    Attributes:
        probability: that all of the path is right, by the drafter's own, sharpened.
        sure: the drafter was sure enough of what follows `parent` to draft behind it.
    """

    probability: float
    token: int
    parent: int
    sure: bool


class DynamicGrowth:
    """Best first, in passes: what is improbable waits, for the nodes that it would cost may be
    better spent further down (EAGLE-2, arXiv 2406.16858, drafts them all and then drops).

    A pass takes the candidates with the most probable paths that may be drafted behind, for half of
    its share of the nodes that are left (of one, a half, a whole and two shares a half drafted best
    on tiny-py). No path is more probable than its beginning, so one that is not among the best has
    no children there, and is at most a leaf. The last pass spends all others on leaves, the most
    probable of those that waited. Ties go to the older candidate. With `draft_top_k=1` and nodes
    enough the tree is the chain of the same depth and confidence.
    """

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
        self.first_new = len(self.tree)
        least = self._least_of_parents()
        inner = [c for c in self.waiting if c.sure and c.probability >= least]
        if self.passes_left > 1 and inner:
            chosen = inner[: -(-self.nodes_left // (2 * self.passes_left))]
        else:
            chosen, self.passes_left = self.waiting[: self.nodes_left], 1  # this one is the last
        for candidate in chosen:
            node = self.tree.add(candidate.token, candidate.parent)
            self.probabilities[node] = candidate.probability
        taken = set(chosen)
        self.waiting = [c for c in self.waiting if c not in taken]
        self.passes_left -= 1

    def _offer(self, rankings: Sequence[Ranking]) -> None:
        for node, (tokens, probabilities) in enumerate(rankings, self.first_new):
            if node not in self.probabilities:
                break
            sure = probabilities[0] >= self.config.confidence
            weights = [probability**self.sharpness for probability in probabilities]
            total = sum(weights)
            for token, weight in zip(tokens, weights, strict=True):
                path = self.probabilities[node] * (weight / total)
                self.waiting.append(Candidate(path, token, node, sure))
        self.waiting.sort(key=lambda c: -c.probability)

    def _least_of_parents(self) -> float:
        """The probability of the last but one of the best `max_nodes` paths: behind the last comes
        none of its children.
        """
        known = [*self.probabilities.values(), *(c.probability for c in self.waiting)]
        return sorted(known, reverse=True)[: self.config.max_nodes - 1][-1]


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
        width, first_new = self.widths.pop(0), len(self.tree)
        for node, (tokens, _) in enumerate(rankings, self.first_new):
            for token in tokens[:width]:
                self.tree.add(token, node)
        self.first_new = first_new


def growth_of(
    tree: DraftTree, config: DraftConfig, max_depth: int, *, sampled: bool = False
) -> Growth:
    """What grows `tree`, a root, at most `max_depth` deep; where tokens are `sampled`, what the
    drafter says of them is taken as it is.
    """
    if config.tree_widths:
        return StaticGrowth(tree, config, max_depth)
    return DynamicGrowth(tree, config, max_depth, 1.0 if sampled else SHARPNESS)
