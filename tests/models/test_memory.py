"""Loading: what it takes of the host's memory, how far it is, and what stopping it leaves."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kangaroo.config import ModelConfig
from kangaroo.models.families import model_config
from kangaroo.models.files import MAPPED_BYTES
from kangaroo.models.weights import load_target, target_shapes
from tests.factories import edit_json, make_checkpoint

CPU = torch.device("cpu")
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "vocab_size": 8192}
# Reads it as a process of its own, in bfloat16; prints what that added to its memory at most.
MEASURED = """
import sys
from pathlib import Path
import torch
from kangaroo.models.families import model_config
from kangaroo.models.weights import load_target

def load(path, dtype):
    return load_target(path, model_config(path), dtype, torch.device("cpu"))

small, large = map(Path, sys.argv[1:])
load(small, torch.bfloat16)  # what code and libraries take
def kilobytes(name):  # of this program alone; getrusage begins with what its parent had
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return int(fields[name].split()[0])

before = kilobytes("VmRSS")
weights = load(large, torch.bfloat16)
peak = kilobytes("VmHWM")
print(1024 * (peak - before))
"""


def write_zeros(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Tensors of float32 that take no room on the disk."""
    header, size = {}, 0
    for name, shape in shapes.items():
        start, size = size, size + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, size]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + size)


def make_large(path: Path, small: Path) -> ModelConfig:
    """A checkpoint of float32 in shards of a layer each; `small` has the rest of its config."""
    path.mkdir()
    (path / "config.json").write_text((small / "config.json").read_text())
    edit_json(path / "config.json", **LARGE)
    config = model_config(path)
    shapes, weight_map = target_shapes(config), {}
    for name in shapes:
        layer = name.split(".")[2] if name.startswith("model.layers") else "rest"
        weight_map[name] = f"model-{layer}.safetensors"
    for shard in set(weight_map.values()):
        own = {name: shapes[name] for name, home in weight_map.items() if home == shard}
        write_zeros(path / shard, own)
    index = {"weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return config


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_the_weights_themselves_take_memory(tmp_path: Path) -> None:
    """Not the files beside them: their pages count too as long as they are mapped."""
    small = make_checkpoint(tmp_path / "small", "llama")
    shapes = target_shapes(make_large(tmp_path / "large", small))
    sizes = [4 * math.prod(shape) for shape in shapes.values()]
    assert sum(sizes) > 4 * MAPPED_BYTES, "or this shows nothing"
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, small, tmp_path / "large"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    weights, margin = sum(sizes) // 2, 24 * 2**20  # pages of 2 MB, and the allocator's own
    assert weights < int(done.stdout) < weights + MAPPED_BYTES + max(sizes) + margin


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    """Of what is read: a tied head is not."""
    path = make_checkpoint(tmp_path, "llama-tied", dtype=torch.bfloat16)
    told: list[tuple[int, int]] = []
    config = model_config(path)
    load_target(path, config, torch.float32, CPU, lambda *now: told.append(now))
    shapes = target_shapes(config)
    total = 2 * sum(map(math.prod, shapes.values()))
    done = [now for now, _ in told]
    assert done == sorted(set(done))
    assert len(done) == len(shapes)
    assert {of for _, of in told} == {total} == {done[-1]}


def interrupted(path: Path) -> None:
    """Load, and stop half way."""

    def stop(done: int, total: int) -> None:
        if 2 * done > total:
            raise KeyboardInterrupt

    try:
        load_target(path, model_config(path), torch.float32, CPU, stop)
    except KeyboardInterrupt:
        return
    pytest.fail("nothing was interrupted")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    """No file is mapped, none is new, and what there is loads."""
    path = make_checkpoint(tmp_path / "target", "llama", max_shard_size="100KB")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    interrupted(path)
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    load_target(path, model_config(path), torch.float32, CPU)
