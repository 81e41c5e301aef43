"""commit_path in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.native import C, address, number_of, unsupported
from kangaroo_kernels.nodes import SlotPlaces
from kangaroo_kernels.tree_checks import require_chain
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["commit_path", "unsupported"]


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
    num_nodes = sizes("path", verdict.path, 2)[1]
    reach = sizes("positions", places[0].positions, 2)[1]
    require_chain(chain, exit_states)
    C.commit_path(
        number_of("exit_states", exit_states),
        (
            address("path", verdict.path, (batch, num_nodes), torch.int64),
            address("path_len", verdict.path_len, (batch,), torch.int32),
            address("bonus", verdict.bonus, (batch,), torch.int64),
        ),
        (*(tensor.data_ptr() for tensor in chain), *chain.tokens.shape),
        address("exit_states", exit_states, None, exit_states.dtype),
        tuple(
            address(name, tensor, shape, torch.int32)
            for where in places
            for name, tensor, shape in zip(
                SlotPlaces._fields, where, ((batch,), (batch, reach)), strict=True
            )
        ),
        address("done", done, (batch,), torch.int32),
        (batch, num_nodes, num_rows, width, reach),
        lag,
        limit,
    )
