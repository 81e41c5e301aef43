"""Adapters as the paper's authors publish them: converted exactly, or refused unrun."""

import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import convert_adapter, load_adapter
from kangaroo.models.families import model_config
from kangaroo.models.fingerprint import fingerprint
from kangaroo.models.published import read_published
from tests.factories import edit_json, make_checkpoint
from tests.models.conftest import one_line

CPU, EXIT_LAYER = torch.device("cpu"), 2
ATTENTION = "layers.0.self_attn."
Edit = Callable[[dict[str, Tensor]], object]


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped-query attention: its published adapter keeps a key head for every query head."""
    return make_checkpoint(tmp_path_factory.mktemp("target"), "llama-gqa-llama3")


@pytest.fixture
def source(tmp_path: Path, target: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "config.json").write_text((target / "config.json").read_text())
    edit_json(
        path / "config.json",
        num_hidden_layers=1,
        num_key_value_heads=4,
        rms_norm_eps=1e-6,
        rope_parameters=...,
    )
    torch.save(published(), path / "pytorch_model.bin")
    return path


def published() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    names = [f"{ATTENTION}{kind}_proj.weight" for kind in "qkvo"]
    tensors = {name: torch.randn(64, 64, generator=generator).half() for name in names}
    norms = ("layers.0.input_layernorm.weight", "norm.weight")
    return tensors | {name: torch.rand(64, generator=generator).half() for name in norms}


def convert(source: Path, target: Path) -> Adapter:
    out = source.parent / "out"
    convert_adapter(source, target, EXIT_LAYER, out)
    return load_adapter(out, torch.float16, CPU, fingerprint(target, EXIT_LAYER))


def assert_published(adapter: Adapter) -> None:
    stored = published()
    qkv = torch.cat([stored[f"{ATTENTION}{kind}_proj.weight"] for kind in "qkv"])
    assert torch.equal(adapter.qkv, qkv)
    assert torch.equal(adapter.o, stored[f"{ATTENTION}o_proj.weight"])
    assert torch.equal(adapter.input_norm, stored["layers.0.input_layernorm.weight"])
    assert torch.equal(adapter.norm, stored["norm.weight"])


def test_converts_pickled_tensors(source: Path, target: Path) -> None:
    adapter = convert(source, target)
    assert_published(adapter)
    config = adapter.config
    assert (config.kind, config.exit_layer, config.rms_norm_eps) == ("paper", EXIT_LAYER, 1e-6)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (4, 4, 16)


def test_converts_safetensors_and_prefers_them(source: Path, target: Path) -> None:
    save_file(published(), source / "model.safetensors")
    (source / "pytorch_model.bin").write_bytes(b"not read")
    assert_published(convert(source, target))


def test_rotary_buffers_are_harmless(source: Path, target: Path) -> None:
    tensors = published() | {f"{ATTENTION}rotary_emb.inv_freq": torch.ones(8)}
    torch.save(tensors, source / "pytorch_model.bin")
    assert_published(convert(source, target))


def refused(source: Path, target: Path, *messages: str) -> None:
    with pytest.raises(ValueError, match=one_line(*messages)):
        convert(source, target)
    assert not (source.parent / "out").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("norm.weight"), "missing tensor norm.weight"),
        (lambda t: t.update(strange=torch.ones(1)), "surplus tensor strange"),
        (lambda t: t.update({"norm.weight": torch.ones(65)}), "tensor norm.weight"),
        (lambda t: t.update({"norm.weight": torch.ones(64).int()}), "tensor norm.weight"),
        (lambda t: t.update({f"{ATTENTION}k_proj.weight": torch.ones(32, 64)}), "k_proj.weight"),
    ],
)
@pytest.mark.parametrize("file_name", ["pytorch_model.bin", "model.safetensors"])
def test_wrong_tensors(
    source: Path, target: Path, file_name: str, edit: Edit, message: str
) -> None:
    tensors = published()
    edit(tensors)
    if file_name == "model.safetensors":
        save_file(tensors, source / file_name)
    else:
        torch.save(tensors, source / file_name)
    refused(source, target, str(source / file_name), message)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"norm.weight": 1}, 7])
def test_no_dict_of_tensors(source: Path, target: Path, content: object) -> None:
    torch.save(content, source / "pytorch_model.bin")
    refused(source, target, "pytorch_model.bin", "expected a dict of tensors")


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.proof,))


def save_plainly(content: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_plainly])
def test_pickle_that_runs_code(
    source: Path, target: Path, tmp_path: Path, save: Callable[[object, Path], None]
) -> None:
    file, proof = source / "pytorch_model.bin", tmp_path / "proof"
    save(published() | {"norm.weight": Malicious(proof)}, file)
    refused(source, target, str(file), "refused")
    assert not proof.exists()
    with suppress(Exception):  # it would have run
        torch.load(file, weights_only=False)
    assert proof.exists()


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -5000])
def test_truncated(source: Path, target: Path, kept: int) -> None:
    file = source / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:kept])
    refused(source, target, str(file))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_pickles_are_value_errors(source: Path) -> None:
    file, generator = source / "pytorch_model.bin", random.Random(0)
    config = model_config(source)
    small = {name: torch.ones(2) for name in published()}
    torch.save(small, file, _use_new_zipfile_serialization=False)
    intact = file.read_bytes()
    for _ in range(200):
        damaged = bytearray(intact)
        damaged[generator.randrange(len(intact))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=one_line(f"{file}: ")):
            read_published(source, config)


def test_absent(source: Path, target: Path) -> None:
    (source / "pytorch_model.bin").unlink()
    refused(source, target, str(source), "no pytorch_model.bin and no model.safetensors")


@pytest.mark.parametrize("fields", [{"hidden_size": 128}, {"head_dim": 32}])
def test_geometry_of_another_target(source: Path, target: Path, fields: dict[str, int]) -> None:
    edit_json(source / "config.json", **fields)
    refused(source, target, str(source / "config.json"), "expected the target's")
