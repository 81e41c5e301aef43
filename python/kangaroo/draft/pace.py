"""How deep the next round drafts, so that drafting which does not pay costs next to nothing."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from kangaroo.config import DraftConfig
from kangaroo.costs import RoundCosts
from kangaroo.engine.state import Request

# In rounds that draft nothing: what drafting may lose per token, what it may lose before it has won
# anything, and how much of what it has won it may lose again.
ALLOWANCE, START, MOST = 0.02, 3.0, 6.0
SHARE = 0.5  # of that, in one round: who stakes all of it is soon out, by bad luck alone


class Pace:
    """Lends drafting what it may lose.

    A sequence has an account (`Request.credit`). Every round pays in its tokens, each worth a round
    that drafts nothing and ALLOWANCE, and takes out what it has cost. A draft may be so deep that
    it loses SHARE of what may be lost if all of it is wrong: text that is hard to draft is drafted
    less and less deep, in the end a token now and then, a few hits of which open the account again.
    N tokens never cost more than (1 + ALLOWANCE) N + START rounds that draft nothing, by the costs
    that are given: no clock has a say.

    Sequences of a batch share the costs of a round, so they share what it brings, and draft equally
    deep.

    Args:
        config: the deepest draft, and what it looks like.
    """

    def __init__(self, config: DraftConfig, costs: RoundCosts):
        self.config, self.costs = config, costs
        depths = range(1, config.depth + 1)
        self._depths = _Prices(costs, [(depth, config.most_nodes(depth)) for depth in depths])
        self._copies = _Prices(costs, [(0, 1 + n) for n in range(1, config.lookup_depth + 1)])

    def depth(self, requests: Sequence[Request]) -> int:
        """Draft tokens along one path at most, 0 to `config.depth`, in a round of `requests`."""
        return self._bearable(requests, self._depths[len(requests)])

    def copies(self, requests: Sequence[Request]) -> int:
        """Tokens at most, 0 to `config.lookup_depth`, that each of `requests` may draft without a
        pass of the drafter.
        """
        return self._bearable(requests, self._copies[len(requests)])

    def bears(self, requests: Sequence[Request], num_passes: int, num_nodes: int) -> bool:
        """A round of so many passes and trees of `num_nodes` may be all wrong."""
        return self.costs.of_round(len(requests), num_passes, num_nodes) <= self._most(requests)

    def _bearable(self, requests: Sequence[Request], prices: Sequence[float]) -> int:
        """How many of the drafts with these prices may be all wrong."""
        return bisect_right(prices, self._most(requests))

    def _most(self, requests: Sequence[Request]) -> float:
        """What the next round may cost.

        Beside speculative sampling anything: there the tokens for a seed depend on how deep is
        drafted, so neighbours may have no say.
        """
        if any((s := r.sampler) and s.do_sample and not s.coupled for r in requests):
            return math.inf
        left = START + sum(request.credit for request in requests) / len(requests)
        return 1 + ALLOWANCE + SHARE * left  # every round brings a token

    def book(
        self, requests: Sequence[Request], num_passes: int, num_nodes: int, num_new: int
    ) -> None:
        """A round of `requests`, of so many passes of the drafter and trees of `num_nodes`, has
        brought `num_new` tokens in all.
        """
        cost = self.costs.of_round(len(requests), num_passes, num_nodes)
        won = (1 + ALLOWANCE) * num_new / len(requests) - cost
        for request in requests:
            request.credit = min(MOST, request.credit + won)


class _Prices(dict[int, list[float]]):
    """By the sequences of a round: what each of `drafts`, so many passes and nodes, costs. None is
    cheaper than the one in front of it.
    """

    def __init__(self, costs: RoundCosts, drafts: Sequence[tuple[int, int]]):
        super().__init__()
        self.costs, self.drafts = costs, drafts

    def __missing__(self, batch: int) -> list[float]:
        self[batch] = [self.costs.of_round(batch, *draft) for draft in self.drafts]
        return self[batch]
