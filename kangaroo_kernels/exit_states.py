"""What the target's shallow layers have made of nodes, as it goes from one call to the next."""

from typing import NamedTuple

from torch import Tensor


class ExitStates(NamedTuple):
    """h [B, N, C], and what an implementation has made of it besides, for itself alone."""

    h: Tensor
    ready: object = None
