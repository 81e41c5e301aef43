"""HugePages: tensors one behind the other that overlap nowhere and outlive what made them."""

from __future__ import annotations

import gc

import pytest
import torch

from kangaroo import pages
from kangaroo.pages import ALIGNMENT, HugePages


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "CHUNK_BYTES", 4096)


@pytest.mark.usefixtures("small_chunks")
def test_tensors_of_all_sizes_keep_what_is_written() -> None:
    memory = HugePages()
    shapes = [(3, 5), (1,), (0, 7), (1000,), (40, 40), (2, 3, 4), (17,)]  # some fill a chunk
    dtypes = [torch.float32, torch.bfloat16] * 4
    tensors = [memory.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=False)]
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    del memory
    gc.collect()
    for number, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
        assert tensor.shape == shape
        assert tensor.is_contiguous()
        assert tensor.data_ptr() % ALIGNMENT == 0
        assert (tensor == number).all()


def test_a_system_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pages.mmap, "MADV_HUGEPAGE", raising=False)
    assert HugePages().empty((2, 3), torch.float32).shape == (2, 3)
