"""A test that takes an op, e.g. `linear`, runs with every implementation of it; Triton's on the GPU
or, where there is none, in its interpreter; libraries' on the GPU or else on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from kangaroo_kernels.kernel_set import IMPLS, Backend, Target, UnsupportedError, load_impl

INTERPRETED = find_spec("triton") is not None and not torch.cuda.is_available()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NUM_CASES, NUM_FUZZ_CASES = 21, 84  # seeded, per op and dtype


@pytest.fixture(autouse=True, scope="session")
def _repaired(request: pytest.FixtureRequest) -> None:
    if INTERPRETED:
        request.getfixturevalue("faithful_interpreter")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`linear`: all implementations; `fast_linear`: no reference; with `dtype`: in every dtype.
    Tests marked `bitwise` leave out libraries.
    """
    dtypes = DTYPES if "dtype" in metafunc.fixturenames else (torch.float32,)
    for name in metafunc.fixturenames:
        op = name.removeprefix("fast_")
        if op not in IMPLS:
            continue
        backends = [b for b in IMPLS[op] if b != Backend.REFERENCE or op == name]
        if metafunc.definition.get_closest_marker("bitwise") is not None:
            backends = [b for b in backends if b != Backend.LIBRARY]
        thorough = metafunc.definition.get_closest_marker("thorough") is not None
        if len(dtypes) > 1:
            params = [parameter(op, b, d, thorough) for b in backends for d in dtypes]
            metafunc.parametrize((name, "dtype"), params)
        else:
            metafunc.parametrize(name, implementations(op, backends, thorough))


def implementations(op: str, backends: list[Backend], thorough: bool = False) -> list[Any]:
    """Pytest parameters: `op` in float32 by each of `backends`."""
    params = [parameter(op, backend, torch.float32, thorough) for backend in backends]
    return [pytest.param(p.values[0], marks=p.marks, id=p.id) for p in params]


def seeded(ops: Iterable[str]) -> list[Any]:
    """Pytest parameters: (op, implementation, dtype), all but the reference and libraries in every
    dtype.
    """
    return [
        pytest.param(op, *p.values, marks=p.marks, id=f"{op}-{p.id}")
        for op in ops
        for backend in IMPLS[op]
        if backend not in (Backend.REFERENCE, Backend.LIBRARY)
        for p in (parameter(op, backend, dtype) for dtype in DTYPES)
    ]


def parameter(op: str, backend: Backend, dtype: torch.dtype, thorough: bool = False) -> Any:
    """The implementation, or why the test is skipped, or must fail.

    What is marked `thorough` takes minutes in the interpreter, which is asked for by `-m fuzz`.
    """
    anywhere = backend in (Backend.TRITON, Backend.LIBRARY)
    on_gpu = backend == Backend.CUDA or (anywhere and torch.cuda.is_available())
    device = torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu")
    marks = [pytest.mark.gpu] if on_gpu else []
    if thorough and backend == Backend.TRITON and INTERPRETED:
        marks.append(pytest.mark.fuzz)
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
