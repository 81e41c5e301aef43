"""Joint law of whole sequences over Markov chains: both rules in float64 and the real numbers.

Rows that are all the same hide most mistakes of a loop; chains, whose rows depend on the token in
front, do not, and nor does a test of all positions together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from kangaroo.evals.laws import chi_square
from kangaroo.sampling.accept import Candidates, accept, walk, without
from kangaroo.sampling.source import CounterSource, Place, Purpose

ALPHA = 1e-6
NUM_TOKENS = 4
CHUNK = 16_000  # sequences at once: small enough for the caches


@dataclass(frozen=True)
class Chain:
    """Transition rows [V, V] of target and drafter, and the draft's shape.

    Attributes:
        depth: draft tokens along a path.
        width: children of the root; the first of them has the chain's rest below it.
        confidence: a row less sure than this is the last that is drawn from.
        coupled: drafts are drawn, and judged, by the numbers of the tokens' race.
    """

    p: Tensor
    q: Tensor
    depth: int
    width: int = 1
    confidence: float = 0.0
    coupled: bool = False

    def draw(self, source: CounterSource, row: Tensor, place: Place) -> Tensor:
        if self.coupled:
            return source.race(row, place.sequence, place.position)
        return source.draw(row, place)

    @property
    def law(self) -> Tensor:
        """[V^4], of four tokens behind token 0."""
        joint = self.p[0]
        for _ in range(NUM_TOKENS - 1):
            joint = (joint[:, None] * self.p[torch.arange(len(joint)) % len(self.p)]).flatten()
        return joint


def chains() -> list[Chain]:
    made = []
    shapes = [(1, 1, 0.0), (2, 1, 0.0), (3, 1, 0.0), (3, 1, 0.6), (1, 3, 0.0), (2, 2, 0.0)]
    for number, (depth, width, confidence) in enumerate(shapes * 2):
        generator = torch.Generator().manual_seed(number)
        logits, noise = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
        p, q = logits.softmax(-1), (logits + noise).softmax(-1)
        if number >= len(shapes):  # supports of three tokens, not the same three
            p = p.scatter(1, p.argmin(1, keepdim=True), 0.0)
            q = q.scatter(1, q.argmin(1, keepdim=True), 0.0)
            p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
        made.append(Chain(p, q, depth, width, confidence))
    return made


def draft(
    chain: Chain, source: CounterSource, root: Tensor, sequence: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens and parents [B, N]: siblings below the root, then the rest of the first one's path.

    A node that was not drafted has a parent that does not exist.
    """
    row, tokens = chain.q[root], [root]
    for rank in range(chain.width):
        place = Place(sequence, position, Purpose.DRAFT, rank)
        tokens.append(chain.draw(source, row, place))
        row = without(row, tokens[-1])
    parents = [root * 0 - 1] + [root * 0] * chain.width
    last, at, sure = tokens[1], root * 0 + 1, chain.q[root].amax(1) >= chain.confidence
    for depth in range(1, chain.depth):
        row = chain.q[last]
        last = chain.draw(source, row, Place(sequence, position + depth, Purpose.DRAFT, 0))
        tokens.append(last)
        parents.append(torch.where(sure, at, -2))
        at, sure = at * 0 + len(tokens) - 1, sure & (row.amax(1) >= chain.confidence)
    return torch.stack(tokens, 1), torch.stack(parents, 1)


def continuations(chain: Chain, seed: int, num_sequences: int) -> Tensor:
    """Which of the V^4 each sequence wrote, over rounds of draft and verdict."""
    vocab, source, codes = len(chain.p), CounterSource(seed), []
    for sequence in torch.arange(num_sequences).split(CHUNK):
        written = torch.zeros(len(sequence), 1 + NUM_TOKENS + chain.depth, dtype=torch.int64)
        length = torch.ones_like(sequence)  # the prompt is token 0
        while (live := (length <= NUM_TOKENS).nonzero()[:, 0]).numel():
            position = length[live]
            tokens, parents = draft(
                chain, source, written[live, position - 1], sequence[live], position
            )
            candidates = Candidates(tokens, parents, sequence[live], position)
            p, q = (lambda w, at, t=tokens, r=r: r[t[w, at]] for r in (chain.p, chain.q))
            coupled = chain.coupled
            path, path_len, bonus = (
                walk(candidates, p, source) if coupled else accept(candidates, p, q, source)
            )
            drafted = tokens.gather(1, path.clamp(0))
            for step in range(1, chain.depth + 1):
                kept = path_len > step
                written[live[kept], position[kept] + step - 1] = drafted[kept, step]
            length[live] += path_len
            written[live, length[live] - 1] = bonus
        codes.append(written[:, 1 : 1 + NUM_TOKENS] @ (vocab ** torch.arange(NUM_TOKENS).flip(0)))
    return torch.cat(codes)


def counts(chain: Chain, seed: int, num_sequences: int) -> Tensor:
    """How often each of the V^4 continuations was written."""
    codes = continuations(chain, seed, num_sequences)
    return codes.bincount(minlength=len(chain.p) ** NUM_TOKENS)


def p_value(observed: Tensor, law: Tensor) -> float:
    """Of Pearson's chi-square; 0 where something impossible was seen."""
    possible = law > 0
    if int(observed[~possible].sum()):
        return 0.0
    return chi_square(observed[possible], law[possible])[0]


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("number", range(12))
def test_the_joint_law(number: int, coupled: bool) -> None:
    chain = replace(chains()[number], coupled=coupled)
    assert p_value(counts(chain, number, 100_000), chain.law) > ALPHA


@pytest.mark.fuzz
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("number", range(12))
def test_the_joint_law_of_two_million(number: int, coupled: bool) -> None:
    chain = replace(chains()[number], coupled=coupled)
    assert p_value(counts(chain, 100 + number, 2_000_000), chain.law) > ALPHA


@pytest.mark.parametrize("number", range(12))
def test_coupled_drafts_change_no_token(number: int) -> None:
    """Of 20,000 sequences, beside drafts of one token."""
    chain = replace(chains()[number], coupled=True)
    shortest = replace(chain, depth=1, width=1)
    other = replace(shortest, q=chain.p.roll(1, 0))
    codes = continuations(chain, number, 20_000)
    assert codes.equal(continuations(shortest, number, 20_000))
    assert codes.equal(continuations(other, number, 20_000))


def test_the_test_has_teeth() -> None:
    """A law that is the target's but for a twentieth of every row is seen at once."""
    chain = chains()[1]
    other = Chain(0.95 * chain.p + 0.0125, chain.q, chain.depth)
    assert p_value(counts(other, 1, 100_000), chain.law) < 1e-12
