"""One thread, fixed seeds, no network, poisoned memory."""

import os

# Before torch is imported: libraries read these once.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from kangaroo_kernels.testing import poisoned_empty
from tests.folders import make_folder

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    with poisoned_empty():
        yield


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with its adapters."""
    return make_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="session")
def faithful_interpreter() -> Iterator[None]:
    """Triton's interpreter, repaired."""
    from tests.kernels.interpreter import faithful

    with faithful():
        yield


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests marked `gpu` make their tensors on the GPU."""
    if request.node.get_closest_marker("gpu") is None:
        yield
    elif not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    else:
        with torch.device("cuda"):
            yield
