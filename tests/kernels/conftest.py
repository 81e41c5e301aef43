"""A test that takes an op, e.g. `linear`, runs with every implementation of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from kangaroo_kernels.kernel_set import IMPLS, Backend, Target, UnsupportedError, load_impl

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ON_GPU = (Backend.TRITON, Backend.CUDA)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`linear`: all implementations; `fast_linear`: no reference; with `dtype`: in every dtype."""
    dtypes = DTYPES if "dtype" in metafunc.fixturenames else (torch.float32,)
    for name in metafunc.fixturenames:
        op = name.removeprefix("fast_")
        if op not in IMPLS:
            continue
        backends = [b for b in IMPLS[op] if b != Backend.REFERENCE or op == name]
        params = [_implementation(op, b, dtype) for b in backends for dtype in dtypes]
        if len(dtypes) > 1:
            metafunc.parametrize((name, "dtype"), params)
        else:
            metafunc.parametrize(
                name, [pytest.param(p.values[0], marks=p.marks, id=p.id) for p in params]
            )


def _implementation(op: str, backend: Backend, dtype: torch.dtype) -> Any:
    """A pytest parameter: the implementation, or why the test is skipped, or must fail."""
    device = torch.device("cuda" if backend in ON_GPU and torch.cuda.is_available() else "cpu")
    marks = [pytest.mark.gpu] if backend in ON_GPU else []
    try:
        call = load_impl(op, backend, Target(device, dtype, head_dim=64))
    except (UnsupportedError, ImportError) as refusal:
        call = _failing(str(refusal))
        if not _must_serve(backend, dtype, refusal):
            marks.append(pytest.mark.skip(reason=str(refusal)))
    short = str(dtype).removeprefix("torch.")
    return pytest.param(call, dtype, marks=marks, id=f"{backend.value}-{short}")


def _must_serve(backend: Backend, dtype: torch.dtype, refusal: Exception) -> bool:
    """A missing module is a bug; so is a built extension that refuses the plainest target."""
    built = find_spec("kangaroo_kernels._C") is not None
    missing = isinstance(refusal, ImportError)
    return missing or (backend == Backend.NATIVE and built and dtype == torch.float32)


def _failing(reason: str) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        pytest.fail(reason)

    return fail
