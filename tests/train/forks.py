"""A function in forks of this process, which are quick to make: everything is imported already."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist


def forked(function: Callable[[], None]) -> int:
    """The id of a child that runs `function` and ends: 0, or 1 after an error, which it shows."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def together(count: int, store: Path, function: Callable[[], None]) -> list[int]:
    """Exit codes of `count` processes of one gloo group that meet in the file `store`."""

    def member(rank: int) -> None:
        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=count)
        function()
        dist.destroy_process_group()

    children = [forked(lambda rank=rank: member(rank)) for rank in range(count)]  # type: ignore[misc]
    return [ended(child) for child in children]
