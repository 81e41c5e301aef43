"""One safetensors file of a target and its adapter, as the engine holds them, for programs that
embed libkangaroo.

Tensors: embed, norm, lm_head (absent: it is embed), layers.N.* by the names of LayerWeights (what a
family lacks is absent), rope (cosines and sines, float32), adapter.* by the names of Adapter.
Metadata: the numbers of TARGET_FIELDS and ADAPTER_FIELDS (adapter_*), max_seq_len, the adapter's
exit_layer, max_depth and confidence, adapter_kind ("none": no adapter, exit_layer is 1), dtype,
eos_token_ids joined by commas, fingerprint.* of the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.models.adapter import Adapter
from kangaroo.models.files import flush
from kangaroo.models.llama import Llama

FORMAT, VERSION = "kangaroo", 1
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}  # what libkangaroo computes in
TARGET_FIELDS = (
    "num_layers",
    "hidden_size",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "rms_norm_eps",
)
ADAPTER_FIELDS = ("num_heads", "num_kv_heads", "rms_norm_eps")


def save_export(
    out: Path,
    model: Llama,
    adapter: Adapter | None,
    target_fingerprint: Mapping[str, str],
    eos_ids: Set[int],
) -> None:
    """Write file `out`, whole or not at all; an export that is there is replaced.

    Raises:
        ValueError: a dtype that libkangaroo does not compute in; there is no such folder; `out`
            exists and is no export.
    """
    dtype = model.weights.norm.dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES.values())}, got {dtype}")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: no such folder: {out.parent}")
    if out.exists() and not is_export(out):
        raise ValueError(f"{out}: exists and is not a file that kangaroo exported; not touched")
    tensors = _tensors(model, adapter)
    metadata = _metadata(model, adapter) | {
        "eos_token_ids": ",".join(str(token) for token in sorted(eos_ids)),
        **{f"fingerprint.{part}": value for part, value in target_fingerprint.items()},
    }
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as workshop:
        new = Path(workshop, "new")
        save_file(tensors, new, metadata=metadata)
        flush(new)
        new.replace(out)


def is_export(file: Path) -> bool:
    """`file` is what `save_export` writes, perhaps of another version."""
    try:
        with safe_open(file, framework="pt") as handle:
            return (handle.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


def _tensors(model: Llama, adapter: Adapter | None) -> dict[str, Tensor]:
    weights = model.weights
    named = {"embed": weights.embed, "norm": weights.norm}
    if weights.lm_head is not weights.embed:
        named["lm_head"] = weights.lm_head
    for number, layer in enumerate(weights.layers):
        for field in fields(layer):
            tensor = getattr(layer, field.name)
            if tensor is not None:
                named[f"layers.{number}.{field.name}"] = tensor
    named["rope"] = model.rope[:, : model.config.context_len]
    if adapter is not None:
        named |= {f"adapter.{name}": p for name, p in adapter.named_parameters()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def _metadata(model: Llama, adapter: Adapter | None) -> dict[str, str]:
    """Numbers as Python writes them: a float reads back as the same float."""
    config = model.config
    rule = DraftConfig(exit_layer=1, max_depth=0) if adapter is None else adapter.config.draft()
    numbers = {name: getattr(config, name) for name in TARGET_FIELDS}
    numbers |= {"max_seq_len": model.config.context_len, "exit_layer": rule.exit_layer}
    numbers |= {"max_depth": rule.max_depth, "confidence": rule.confidence}
    if adapter is not None:
        numbers |= {f"adapter_{name}": getattr(adapter.config, name) for name in ADAPTER_FIELDS}
    return {
        "format": FORMAT,
        "format_version": str(VERSION),
        "dtype": DTYPES[model.weights.norm.dtype],
        "adapter_kind": "none" if adapter is None else adapter.config.kind,
        **{name: repr(value) for name, value in numbers.items()},
    }
