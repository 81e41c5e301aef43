"""draw_tokens in C++ on the CPU: numbers, weights and scores are vectors of doubles."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draws import DTYPES, Draws
from kangaroo_kernels.native import C, address, optional_address, unsupported
from kangaroo_kernels.tree_checks import require_chain

__all__ = ["draw_tokens", "unsupported"]


def draw_tokens(
    logits: Tensor,
    draws: Draws,
    positions: Tensor,
    k: int = 1,
    *,
    token_ids: Tensor | None = None,
    chain: DraftChain | None = None,
) -> tuple[Tensor, Tensor]:
    batch, num_nodes, vocab = sizes("logits", logits, 3)
    appended = None
    if chain is not None:
        require_chain(chain, logits)
        appended = (*(tensor.data_ptr() for tensor in chain), *chain.tokens.shape)
    columns = zip(Draws._fields, draws, DTYPES, strict=True)
    shape = (batch, num_nodes, max(k, 0))  # k below 1 is refused in C++
    tokens = torch.empty(shape, dtype=torch.int64)
    shares = torch.empty(shape, dtype=torch.float32)
    C.draw_tokens(
        address("logits", logits, None, torch.float32),
        tuple(address(f"draws.{name}", values, (batch,), dtype) for name, values, dtype in columns),
        address("positions", positions, (batch, num_nodes), torch.int32),
        optional_address("token_ids", token_ids, (vocab,), torch.int32),
        tokens.data_ptr(),
        shares.data_ptr(),
        appended,
        batch,
        num_nodes,
        vocab,
        k,
        torch.get_num_threads(),
    )
    return tokens, shares
