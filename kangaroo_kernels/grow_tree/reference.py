"""Definition of grow_tree, in plain Python on rows of tensors. Any device."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draft_trees import Candidate, DraftTrees, Seedbed, choose, shares
from kangaroo_kernels.kernel_set import Target


def unsupported(target: Target) -> str | None:
    return None


def grow_tree(
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
    newest = range(first, first + tokens.shape[1])
    for b, stopped in enumerate(trees.nodes.stopped.tolist()):
        if stopped:
            continue
        own, tree = Seedbed(*(x[b] for x in seedbed)), DraftChain(*(x[b] for x in trees.nodes))
        if first == 0:
            _plant(own, tree.tokens[0], tree.positions[0])
        for place, row, found in zip(newest, probabilities[b].tolist(), tokens[b], strict=True):
            path = own.paths[place].item()
            own.candidates[place] = found
            own.sure[place] = int(row[0] >= tree.threshold.item())
            for rank, share in enumerate(shares(row, sharpness)):
                own.waiting[place, rank] = -1 if path < 0 else path * share
        places = [p for p in range(newest.stop) if own.paths[p] >= 0]
        waiting = [
            Candidate(value, int(own.candidates[p, r]), p, bool(own.sure[p]), r)
            for p in places
            for r, value in enumerate(own.waiting[p].tolist())
            if value >= 0
        ]
        paths = own.paths[places].tolist()
        chosen, last = choose(waiting, paths, max_nodes, passes_left)
        if last:
            _finish(own, DraftTrees(tree, trees.parents[b], trees.ancestors[b]), places, chosen)
            trees.nodes.num_nodes[b], trees.nodes.stopped[b] = len(places) + len(chosen), 1
        else:
            _add(own, chosen[:width], range(newest.stop, newest.stop + width))


def _plant(own: Seedbed, token: Tensor, position: Tensor) -> None:
    own.tokens[0], own.positions[0], own.parents[0], own.ancestors[0] = token, position, -1, 1
    own.paths[0] = 1.0


def _add(own: Seedbed, chosen: Sequence[Candidate], places: range) -> None:
    """Inner nodes; what is left of their places is empty."""
    for n, place in enumerate(places):
        own.tokens[place], own.positions[place], own.parents[place] = 0, own.positions[0], -1
        own.ancestors[place], own.paths[place] = _bit(place), -1.0
        if n < len(chosen):
            c = chosen[n]
            own.tokens[place], own.parents[place] = c.token, c.parent
            own.paths[place] = c.probability
            own.positions[place] = own.positions[c.parent] + 1
            own.ancestors[place] |= own.ancestors[c.parent]
            own.waiting[c.parent, c.rank] = -1.0


def _finish(
    own: Seedbed, tree: DraftTrees, places: Sequence[int], leaves: Sequence[Candidate]
) -> None:
    """Inner nodes of the places that are taken, in their order, then leaves, then padding."""
    node_of = {place: node for node, place in enumerate(places)}
    nodes, parents, ancestors = tree
    inner = [(int(own.tokens[p]), int(own.parents[p])) for p in places]
    rows = inner + [(leaf.token, leaf.parent) for leaf in leaves]
    for node in range(len(nodes.tokens)):
        token, place = rows[node] if node < len(rows) else (0, -1)
        parent = node_of.get(place, -1)
        nodes.tokens[node], parents[node], ancestors[node] = token, parent, _bit(node)
        nodes.positions[node] = own.positions[0]
        if parent >= 0:
            nodes.positions[node] = nodes.positions[parent] + 1
            ancestors[node] |= ancestors[parent]


def _bit(node: int) -> int:
    """The mask of a node alone; that of the last is negative."""
    return 1 << node if node < 63 else -(1 << 63)
