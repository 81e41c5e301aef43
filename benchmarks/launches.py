"""What a call asks of a GPU: kernels, copies, launches by the host, and waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

COPIES = ("Memcpy", "Memset")
LAUNCHES = ("LaunchKernel", "GraphLaunch")  # cuda*, cu*, and their variants
# Not cudaDeviceSynchronize: the profiler calls that itself when it ends.
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")


@dataclass(frozen=True)
class Launches:
    """Counts, and how long the device was busy.

    Attributes:
        kernels, copies: that the device ran.
        launches: calls of the host that enqueued kernels or graphs.
        waits: calls of the host that returned when the device had come there.
        busy_us: the device's time in kernels and copies, summed.
    """

    kernels: int
    copies: int
    launches: int
    waits: int
    busy_us: float


def counted(events: Iterable[tuple[str, bool, float]]) -> Launches:
    """Of the names of events, whether they are the device's, and their microseconds."""
    kernels = copies = launches = waits = 0
    busy_us = 0.0
    for name, on_device, microseconds in events:
        if on_device:
            copies += name.startswith(COPIES)
            kernels += not name.startswith(COPIES)
            busy_us += microseconds
        else:
            launches += any(part in name for part in LAUNCHES)
            waits += name in WAITS
    return Launches(kernels, copies, launches, waits, round(busy_us, 3))


def launches_of(call: Callable[[], object]) -> dict[str, Any] | None:
    """The counts of one call on a CUDA device, which has been called before; None where the
    profiler may not look into the device.
    """
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        call()
    found = counted(
        (event.name, event.device_type == DeviceType.CUDA, event.time_range.elapsed_us())
        for event in profiled.events() or ()
    )
    return asdict(found) if found.kernels else None
