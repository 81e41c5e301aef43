"""Write a widened model to disk: `python -m kangaroo.zoo.widen tiny-py OUT --shape vicuna-7b`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from kangaroo import terminal
from kangaroo.config import ModelConfig
from kangaroo.engine.loading import DTYPES, load_bound_adapter, target_path
from kangaroo.models.adapter_format import is_adapter
from kangaroo.models.adapter_io import save_adapter
from kangaroo.models.fingerprint import SLOW_TOKENIZER_FILES, fingerprint
from kangaroo.models.weights import EMBED, HEAD, NORM, target_shapes
from kangaroo.zoo.shapes import SHAPES
from kangaroo.zoo.widening import CPU, Widening
from kangaroo_kernels import UnsupportedError

INDEX = "model.safetensors.index.json"
# What is the same for both models, beside the slow tokenizers' files.
COPIED = ("tokenizer*.json", "special_tokens_map.json", "chat_template*", "generation_config.json")


@dataclass
class Written:
    """What was written.

    Attributes:
        num_parameters, num_bytes: of the target.
        num_zeros, num_read: zeros, and parameters, among those that a step reads: all but the
            embeddings, of which it reads a row.
        exit_layers: of every adapter, by name: before and after.
    """

    num_parameters: int = 0
    num_bytes: int = 0
    num_zeros: int = 0
    num_read: int = 0
    exit_layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def zero_share(self) -> float:
        return self.num_zeros / self.num_read


def write_folder(out: Path, path: Path, widening: Widening) -> Written:
    """Write the widened target of folder `path`, its tokenizer and its adapters to folder `out`,
    whole or not at all; one file at a time is in memory (and once more while it is written).

    Raises:
        ValueError: `out` exists and is not empty, or an adapter cannot be read or widened.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists and is not an empty folder; not touched")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as workshop:
        new = Path(workshop, "new")
        new.mkdir()
        content = json.dumps(widening.content, indent=2) + "\n"
        (new / "config.json").write_text(content, encoding="utf-8")
        for pattern in (*COPIED, *SLOW_TOKENIZER_FILES):
            for file in path.glob(pattern):
                shutil.copy(file, new)
        written = _write_tensors(new, widening)
        for folder in sorted((path / "adapters").glob("*")):
            if is_adapter(folder):
                written.exit_layers[folder.name] = _write_adapter(new, path, folder, widening)
        new.rename(out)
    return written


def shards(config: ModelConfig) -> list[list[str]]:
    """Names of the tensors of every file: embeddings; a layer each; norm and head."""
    prefixes = [f"model.layers.{layer}." for layer in range(config.num_layers)]
    names = list(target_shapes(config))
    layers = [[name for name in names if name.startswith(prefix)] for prefix in prefixes]
    return [[EMBED], *layers, [NORM, HEAD]]


def _write_tensors(out: Path, widening: Widening) -> Written:
    written, files = Written(), shards(widening.wide)
    weight_map: dict[str, str] = {}
    with terminal.progress() as bar:
        for number, names in enumerate(bar.track(files, description="writing"), start=1):
            file = f"model-{number:05}-of-{len(files):05}.safetensors"
            _write_shard(out / file, {name: widening.read(name) for name in names}, written)
            weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": written.num_bytes}, "weight_map": weight_map}
    (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return written


def _write_shard(file: Path, tensors: dict[str, Tensor], written: Written) -> None:
    save_file(tensors, file, metadata={"format": "pt"})
    for name, tensor in tensors.items():
        written.num_parameters += tensor.numel()
        written.num_bytes += tensor.nbytes
        if name != EMBED:
            written.num_read += tensor.numel()
            written.num_zeros += tensor.numel() - int(tensor.count_nonzero())


def _write_adapter(out: Path, path: Path, folder: Path, widening: Widening) -> tuple[int, int]:
    """The exit layer before and after."""
    small = load_bound_adapter(folder, path, torch.float32, CPU)
    wide = widening.adapter(small)
    target = fingerprint(out, wide.config.exit_layer)
    save_adapter(out / "adapters" / folder.name, wide, widening.wide, target)
    return small.config.exit_layer, wide.config.exit_layer


def _lines(out: Path, widening: Widening, written: Written) -> Iterable[str]:
    small, wide = widening.small.num_layers, widening.wide.num_layers
    yield (
        f"{out}: {written.num_parameters / 1e9:.2f} G parameters, {written.num_bytes / 1e9:.2f} GB"
    )
    yield f"zeros: {written.zero_share:.1%} of what a step reads"
    for name, (before, after) in written.exit_layers.items():
        yield (
            f"adapter {name}: exit layer {before} of {small} ({before / small:.1%}) -> "
            f"{after} of {wide} ({after / wide:.1%})"
        )
    exact = "no weight is rounded" if widening.exact else "norms or queries are rounded"
    yield f"widths {widening.small.hidden_size} -> {widening.wide.hidden_size}: {exact}"


def main(
    target: str,
    out: Path,
    shape: Annotated[str, typer.Option(help=f"Sizes: {', '.join(SHAPES)}.")],
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = "bfloat16",
    shallow_layers: Annotated[
        int, typer.Option(help="Extra layers in front of the exit layer; the rest stand last.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Widen TARGET (a folder, or tiny-py) and its adapters to a large shape and write it to OUT."""
    try:
        for name, value, known in (("shape", shape, SHAPES), ("dtype", dtype, DTYPES)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        path, sizes, number = target_path(target), SHAPES[shape], DTYPES[dtype]
        widening = Widening(path, sizes, number, CPU, shallow_layers=shallow_layers, seed=seed)
        written = write_folder(out, path, widening)
    except (ValueError, UnsupportedError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    terminal.show(*_lines(out, widening, written))


if __name__ == "__main__":
    typer.run(main)
