"""commit_path in Triton: one program per sequence."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require, sizes
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.nodes import SlotPlaces
from kangaroo_kernels.tree_checks import require_chain
from kangaroo_kernels.triton_math import COUNTS, after_previous, launching, unsupported
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["commit_path", "unsupported"]

BLOCK = 512


@triton.jit(do_not_specialize=[*COUNTS, "num_rows", "limit"])
def _commit_path_kernel(
    path_ptr,
    path_len_ptr,
    bonus_ptr,
    tokens_ptr,
    chain_positions_ptr,
    exit_states_ptr,
    seqlens_ptr,
    positions_ptr,
    own_seqlens_ptr,
    own_positions_ptr,
    done_ptr,
    num_nodes,
    capacity,
    num_rows,
    num_positions,
    limit,
    LAG: tl.constexpr,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
):
    after_previous()
    sequence = tl.program_id(0).to(tl.int64)
    if tl.load(done_ptr + sequence) == 0:
        length = tl.minimum(tl.maximum(tl.load(path_len_ptr + sequence), 1), num_nodes)
        leaf = tl.load(path_ptr + sequence * num_nodes + length - 1)
        leaf = tl.minimum(tl.maximum(leaf, 0), num_nodes - 1)  # memory stays whole
        root = tl.minimum(tl.load(seqlens_ptr + sequence) + length, limit)
        behind = tl.maximum(root - LAG, 0)
        front = exit_states_ptr + sequence * num_rows * width
        tl.debug_barrier()  # all warps have seen the length before one of them writes it
        for start in range(0, width, BLOCK):
            column = start + tl.arange(0, BLOCK)
            state = tl.load(front + (leaf + 1) * width + column, mask=column < width)
            tl.store(front + column, state, mask=column < width)
        for start in range(0, num_positions, BLOCK):
            offset = start + tl.arange(0, BLOCK)
            at, inside = sequence * num_positions + offset, offset < num_positions
            tl.store(positions_ptr + at, root + offset, mask=inside)
            tl.store(own_positions_ptr + at, behind + offset, mask=inside)
        tl.store(seqlens_ptr + sequence, root)
        tl.store(own_seqlens_ptr + sequence, behind)
        tl.store(tokens_ptr + sequence * capacity, tl.maximum(tl.load(bonus_ptr + sequence), 0))
        tl.store(chain_positions_ptr + sequence * capacity, root)


def commit_path(
    verdict: Verdict,
    chain: DraftChain,
    exit_states: Tensor,
    places: tuple[SlotPlaces, SlotPlaces],
    done: Tensor,
    *,
    lag: int,
    limit: int,
) -> None:
    batch, num_rows, width = sizes("exit_states", exit_states, 3)
    num_nodes, num_positions = verdict.path.shape[1], places[0].positions.shape[1]
    device, i32 = exit_states.device, torch.int32
    require("exit_states", exit_states, None, exit_states.dtype, device)
    require("path", verdict.path, (batch, num_nodes), torch.int64, device)
    require("path_len", verdict.path_len, (batch,), i32, device)
    require("bonus", verdict.bonus, (batch,), torch.int64, device)
    require("done", done, (batch,), i32, device)
    for where in places:
        require("cache_seqlens", where.cache_seqlens, (batch,), i32, device)
        require("positions", where.positions, (batch, num_positions), i32, device)
    require_chain(chain, exit_states)
    if lag not in (0, 1):
        raise ValueError(f"lag: expected 0 or 1, got {lag}")
    if num_rows <= num_nodes:
        raise ValueError(
            f"exit_states: expected more than {num_nodes} rows, as there are nodes, got {num_rows}"
        )
    _commit_path_kernel[(batch,)](
        *verdict, chain.tokens, chain.positions, exit_states, *places[0],
        *places[1], done, num_nodes, chain.tokens.shape[1], num_rows, num_positions, limit, LAG=lag,
        width=width, BLOCK=BLOCK, num_warps=4, **launching(),
    )  # fmt: skip
