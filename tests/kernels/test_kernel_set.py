"""KernelSet: explicit requests never fall back, `auto` says what it refused, imports stay light."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kangaroo_kernels import Backend, KernelSet, Target, UnsupportedError, kernel_set
from kangaroo_kernels.kernel_set import IMPLS, MODULES, auto_backend, explain, load_impl

CPU = Target(torch.device("cpu"), torch.float32, head_dim=64)
GPU = Target(torch.device("cuda"), torch.bfloat16, head_dim=128)


@pytest.fixture
def broken_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every native implementation says that it cannot run."""

    def fake_import(name: str) -> Any:
        if name.endswith(".native"):
            return SimpleNamespace(unsupported=lambda target: "out of order")
        return import_module(name)

    monkeypatch.setattr(kernel_set, "import_module", fake_import)


def is_reference(op: str, chosen: Any) -> bool:
    return bool(chosen is load_impl(op, Backend.REFERENCE, CPU))


def test_table_and_fields_agree() -> None:
    assert list(IMPLS) == [field.name for field in fields(KernelSet)]
    for op, backends in IMPLS.items():
        assert Backend.REFERENCE in backends, op
        assert len(set(backends)) == len(backends), op
    assert set(MODULES) == set(Backend)


@pytest.mark.parametrize("asked", ["reference", Backend.REFERENCE])
def test_one_backend_for_all(asked: Backend | str) -> None:
    kernels = KernelSet.resolve(CPU, asked)
    assert all(is_reference(op, getattr(kernels, op)) for op in IMPLS)
    assert KernelSet.resolve(replace(GPU), "reference") == kernels


@pytest.mark.usefixtures("broken_native")
def test_explicit_requests_never_fall_back() -> None:
    with pytest.raises(UnsupportedError, match="embedding/native cannot run on .* out of order"):
        KernelSet.resolve(CPU, "native")
    with pytest.raises(UnsupportedError, match="rms_norm/native cannot run on .* out of order"):
        KernelSet.resolve(CPU, rms_norm="native")


def test_a_backend_that_an_op_does_not_have() -> None:
    with pytest.raises(UnsupportedError, match="rms_norm has no cuda .*'reference'"):
        KernelSet.resolve(CPU, "reference", rms_norm="cuda")


def test_exceptions_by_op() -> None:
    reference = KernelSet.resolve(CPU, "reference")
    kernels = KernelSet.resolve(CPU, "auto", tree_attention="reference", linear=Backend.REFERENCE)
    assert kernels.tree_attention is reference.tree_attention
    assert kernels.linear is reference.linear
    assert set(reference.backends.items()) == {(op, "reference") for op in IMPLS}
    expected = {op: auto_backend(op, CPU).value for op in IMPLS}
    assert kernels.backends == expected | {"tree_attention": "reference", "linear": "reference"}
    assert replace(kernels, linear=auto_backend).backends["linear"] == kernel_set.__name__


@pytest.mark.usefixtures("broken_native")
def test_auto_on_a_cpu_takes_the_next_best() -> None:
    assert KernelSet.resolve(CPU) == KernelSet.resolve(CPU, "reference")


def test_auto_prefers_the_first_that_can_run() -> None:
    kernels = KernelSet.resolve(CPU)
    for op in IMPLS:
        best = next(backend for backend, reason in explain(op, CPU).items() if reason is None)
        assert getattr(kernels, op) is load_impl(op, best, CPU)


@pytest.mark.usefixtures("broken_native")
def test_auto_on_a_gpu_never_takes_the_reference() -> None:
    with pytest.raises(UnsupportedError) as refusal:
        KernelSet.resolve(GPU)
    assert "out of order" in str(refusal.value)
    assert "slow on a GPU, so only on request" in str(refusal.value)


def test_auto_on_a_gpu_never_takes_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is the only one that could run."""

    def fake_import(name: str) -> Any:
        reason = None if name.endswith(".cuda_kernel") else "out of order"
        op = name.split(".")[1]
        return SimpleNamespace(unsupported=lambda target: reason, **{op: print})

    monkeypatch.setattr(kernel_set, "import_module", fake_import)
    ops = [op for op, row in IMPLS.items() if Backend.CUDA in row]
    assert ops
    for op in ops:
        assert load_impl(op, Backend.CUDA, GPU) is print
        with pytest.raises(UnsupportedError, match="cuda: slower than Triton where measured"):
            auto_backend(op, GPU)


@pytest.mark.usefixtures("broken_native")
def test_explain_lists_reasons() -> None:
    for op, backends in IMPLS.items():
        reasons = explain(op, CPU)
        assert list(reasons) == list(backends)
        assert reasons[Backend.REFERENCE] is None
        if Backend.NATIVE in backends:
            assert f"{op}/native" in str(reasons[Backend.NATIVE])
            assert "out of order" in str(reasons[Backend.NATIVE])


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="backend: expected 'auto' or one of .*got 'mkl'"):
        KernelSet.resolve(CPU, "mkl")
    with pytest.raises(ValueError, match="backend: .*got 'mkl'"):
        KernelSet.resolve(CPU, linear="mkl")
    with pytest.raises(ValueError, match="per_op: expected ops among .*got .*'attention'"):
        KernelSet.resolve(CPU, attention="reference")


@pytest.mark.parametrize("head_dim", [16, 40, 64, 80, 128])
@pytest.mark.parametrize("op", [op for op, row in IMPLS.items() if Backend.NATIVE in row])
def test_native_serves_every_cpu(op: str, head_dim: int) -> None:
    reason = explain(op, replace(CPU, head_dim=head_dim))[Backend.NATIVE]
    if find_spec("kangaroo_kernels._C") is None:
        assert reason is not None
        pytest.skip(f"the native extension is not built: {reason}")
    assert reason is None


def test_native_refuses_gpus() -> None:
    for op, backends in IMPLS.items():
        if Backend.NATIVE in backends:
            assert explain(op, GPU)[Backend.NATIVE] is not None, op


def run_fresh(code: str) -> None:
    """Run `code` in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_and_reference_need_torch_alone() -> None:
    """A fresh process: neither Triton nor the extension, implementations only when chosen."""
    run_fresh(
        "import sys, torch; before = set(sys.modules)\n"
        "def new(): return {m for m in set(sys.modules) - before}\n"
        "def named(*words): return [m for m in new() if set(m.split('.')) & set(words)]\n"
        "import kangaroo_kernels as kk\n"
        "assert not named('reference', 'native', 'triton_kernel', 'cuda_kernel'), new()\n"
        "assert not named('kangaroo'), new()\n"
        "kk.KernelSet.resolve(kk.Target(torch.device('cpu'), torch.float32, 64), 'reference')\n"
        "assert not named('native', 'triton', 'triton_kernel', 'cuda_kernel', '_C'), new()\n"
    )
