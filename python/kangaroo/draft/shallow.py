"""Drafted nodes through the target's layers [0, E): what verification starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama
from kangaroo_kernels.nodes import NodeBatch


def through_shallow_layers(
    model: Llama, exit_layer: int, state: DecodeState, tokens: Tensor, nodes: NodeBatch
) -> None:
    """The next nodes, of `tokens` [B, N] int64: their rows are written to `state.shallow_kv`, their
    states to `state.exit_states`.
    """
    h, kv = model.embed(tokens), state.shallow_kv
    out = exit_rows(state, kv.num_nodes, tokens)
    whole = out.is_contiguous()
    done = model.layers(h, 0, exit_layer, kv, nodes, out if whole else None)
    if not whole:
        out.copy_(done)


def exit_rows(state: DecodeState, first_node: int, tokens: Tensor) -> Tensor:
    """Where the exit states of nodes with these `tokens` [B, N] belong: [B, N, C]."""
    start = 1 + first_node
    return state.exit_states[: len(tokens), start : start + tokens.shape[1]]


def new_nodes_through_shallow_layers(
    model: Llama, exit_layer: int, state: DecodeState, trees: list[DraftTree]
) -> None:
    """All nodes of equally large `trees` that `state.shallow_kv` has no rows of, in one pass."""
    start, stop = state.shallow_kv.num_nodes, len(trees[0])
    tokens = [tree.tokens[start:] for tree in trees]
    nodes = state.nodes(state.shallow_kv, trees, stop - start)
    ids = torch.tensor(tokens, device=state.exit_states.device)
    through_shallow_layers(model, exit_layer, state, ids, nodes)
