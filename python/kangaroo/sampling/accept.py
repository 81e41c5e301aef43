"""Which drafted tokens are kept, so that the law of what is written is the target's own.

Nothing here is about floating point: arrays are torch's or NumPy's, numbers float or Fraction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kangaroo.sampling.source import Place, Purpose, Source
from kangaroo_kernels.verify_tree import Verdict

# rows(which, nodes [M] int64) -> [M, V]: a row of probabilities for a node of each of M sequences,
# in an array that may be written to. `which` picks those of the B: a mask [B] or their numbers [M].
Rows = Callable[[Any, Any], Any]


class Candidates(NamedTuple):
    """Draft trees, as verify_tree takes them, and where they hang.

    Attributes:
        tokens, parents: [B, N] int64; siblings stand in the order in which they were drawn.
        sequence: [B] int64, the number of each sequence (see Place).
        position: [B] int64, of the token behind the root.
    """

    tokens: Any
    parents: Any
    sequence: Any
    position: Any


def accept(candidates: Candidates, target: Rows, draft: Rows | None, source: Source) -> Verdict:
    """Recursive rejection without replacement among siblings; a chain is speculative sampling.

    At a node with target row p, whose children were drawn from q one after the other: a child x is
    kept with probability min(1, p(x) / q(x)). If it is not, p becomes norm(max(p - q, 0)), q loses
    x and is renormalised, and the next child is asked. If none is kept, the token is drawn from
    what p has become; behind the last node from that node's p.

    Source: Leviathan et al. (2211.17192), algorithm 1; Yang et al., "Multi-candidate speculative
    decoding" (2401.06706), for siblings.

    Args:
        target: rows p. Asked for the root and for every node that is kept, once, in their order:
            never for a path that is not written.
        draft: rows q; asked for nodes with children alone. None: tokens were not drawn but chosen,
            by a rule that no random number enters; then q is one at each child itself.
        source: of all random decisions.
    """
    tokens, parents, sequence, position = candidates
    at, path, position = tokens[:, 0] * 0, tokens * 0 - 1, position + 0  # copies, whoever made them
    rejected, path_len, path[:, 0] = at + 0, at + 1, 0
    p = target(at == 0, at)
    q = p * 0
    for node in range(1, tokens.shape[1]):  # parents come first, so one pass in order walks a tree
        asked = (parents[:, node] == at).nonzero()[:, 0]
        if not len(asked):
            continue
        token, tries = tokens[asked, node], rejected[asked]
        if draft is None:
            q[asked] = certain(p[asked], token)
        elif len(first := asked[tries == 0]):
            q[first] = draft(first, at[first])
        place = Place(sequence[asked], position[asked], Purpose.ACCEPT, tries)
        keeps = source.accept(p[asked, token] / q[asked, token], place)
        kept, lost = asked[keeps], asked[~keeps]
        if len(lost):
            p[lost] = residual(p[lost], q[lost])
            q[lost] = without(q[lost], tokens[lost, node])
            rejected[lost] += 1
        if len(kept):
            at[kept], path[kept, path_len[kept]] = node, node
            path_len[kept] += 1
            position[kept] += 1
            rejected[kept] = 0
            p[kept] = target(kept, at[kept])
    bonus = source.draw(p, Place(sequence, position, Purpose.TARGET, rejected))
    return Verdict(path, path_len, bonus)


def walk(candidates: Candidates, target: Rows, source: Source) -> Verdict:
    """The target's own tokens, drawn by the numbers of their positions; drafts are only met.

    At a node with target row p the race of its position draws the token. A child with that token is
    kept, the first of several; if there is none, the token is the bonus. So no draft has a say in
    what is written, whoever made it and whatever numbers it knew: any chain, any tree, any stop.

    Drafts that are drawn from q by the same race are met often: with probability at least
    (1 - d) / (1 + d) for total variation d between p and q, where :func:`accept` keeps 1 - d.

    Source: Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant speculative
    decoding" (2408.07978).

    Args:
        target: as of :func:`accept`.
    """
    tokens, parents, sequence, position = candidates
    at, path = tokens[:, 0] * 0, tokens * 0 - 1
    path_len, path[:, 0] = at + 1, 0
    token = source.race(target(at == 0, at), sequence, position)
    for node in range(1, tokens.shape[1]):  # parents come first, so one pass in order walks a tree
        met = (parents[:, node] == at) & (tokens[:, node] == token)
        if met.any():
            at[met], path[met, path_len[met]] = node, node
            behind = position[met] + path_len[met]
            path_len[met] += 1
            token[met] = source.race(target(met, at[met]), sequence[met], behind)
    return Verdict(path, path_len, token)


def residual(p: Any, q: Any) -> Any:
    """norm(max(p - q, 0)), row by row: [M, V]. Where nothing is left, p: a token is rejected only
    where q exceeds p, so p exceeds q elsewhere, unless rounding has hidden it.
    """
    left = (p - q).clip(0)
    nothing = ~(left.sum(-1) > 0)
    left[nothing] = p[nothing]
    return normalised(left)


def without(q: Any, token: Any) -> Any:
    """Rows q [M, V] when `token` [M] can be drawn no more; zero where it was the only one."""
    rest = q + 0
    rest[token >= 0, token] = 0
    return normalised(rest)


def certain(like: Any, token: Any) -> Any:
    """Rows [M, V] of the kind of `like` that are one at `token` [M]."""
    rows = like * 0
    rows[token >= 0, token] = 1
    return rows


def normalised(rows: Any) -> Any:
    """Rows [M, V] divided by their sums; rows of zeros as they are."""
    total = rows.sum(-1)
    return rows / (total + (total == 0))[:, None]
