"""A target's weights: all is checked from the safetensors headers, then read tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from kangaroo.config import ModelConfig
from kangaroo.models.files import TensorFiles, read_json
from kangaroo.models.llama import LlamaWeights
from kangaroo.pages import HugePages
from kangaroo_kernels.layer_weights import LayerWeights

EMBED, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
HARMLESS_SUFFIX = "rotary_emb.inv_freq"  # a buffer that old checkpoints carry; config.json rules
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
OnProgress = Callable[[int, int], None]  # stored bytes that have been read, and of how many


class TensorSource(Protocol):
    """Tensors by the names that they have in a checkpoint."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Without reading it."""
        ...

    def read(self, name: str) -> Tensor:
        """In any floating dtype and on any device; perhaps not to be written to."""
        ...


def load_target(
    path: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> LlamaWeights:
    """Weights of the checkpoint in folder `path`, converted, contiguous, projections fused.

    Tensors go to `device` one by one: beside the model, if that is where it is, the host's memory
    holds the largest tensor as stored and as converted, and MAPPED_BYTES of files.
    `on_progress(done, total)` is called behind each, in stored bytes.

    Raises:
        ValueError: there are no safetensors; a file is absent, truncated or corrupt, or disagrees
            with the index; a tensor is missing, surplus or of another shape than `config` says.
            No weight has been loaded then.
    """
    files = open_checkpoint(path)
    check_target(files, config)
    source: TensorSource = files
    if on_progress is not None:
        total = sum(map(files.num_bytes, target_shapes(config)))
        source = _Reported(files, on_progress, total)
    return read_target(source, config, dtype, device)


def read_target(
    source: TensorSource, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> LlamaWeights:
    """Weights of a target whose tensors are known to be as `config` says."""
    read = _Reader(source, dtype, device)
    embed = read((EMBED,))
    return LlamaWeights(
        embed=embed,
        layers=tuple(_layer(read, config, layer) for layer in range(config.num_layers)),
        norm=read((NORM,)),
        lm_head=embed if config.tie_embeddings else read((HEAD,)),
    )


def open_checkpoint(path: Path) -> TensorFiles:
    """Headers of model.safetensors, or of the shards that model.safetensors.index.json names.

    Raises:
        ValueError: neither is there, or index and shards disagree, or a file is corrupt.
    """
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.exists():
        return TensorFiles([single])
    if index.exists():
        return _open_shards(index)
    if any(path.glob("*.bin")):
        raise ValueError(
            f"{path}: only pickled *.bin weights, and these can run code; convert them once with "
            "transformers: AutoModelForCausalLM.from_pretrained(old).save_pretrained(new)"
        )
    raise ValueError(f"{path}: no {single.name} and no {index.name}")


def _open_shards(index: Path) -> TensorFiles:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map: expected tensor names and their files")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard != Path(shard).name:
            raise ValueError(f"{index}: tensor {name}: expected a file name, got {shard!r}")
        if not (index.parent / shard).is_file():
            raise ValueError(f"{index}: tensor {name}: no such file: {shard}")
    files = TensorFiles(index.parent / shard for shard in sorted(set(weight_map.values())))
    for file, names in files.names.items():
        listed = {name for name, shard in weight_map.items() if shard == file.name}
        if strays := sorted(listed - names):
            raise ValueError(f"{file}: missing tensor {strays[0]}, which {index.name} puts there")
        if strays := sorted(names - listed):
            raise ValueError(f"{file}: tensor {strays[0]} is not there according to {index.name}")
    return files


def check_target(files: TensorFiles, config: ModelConfig) -> None:
    """`files` hold exactly the target that `config` describes.

    Raises:
        ValueError: the first tensor that is missing, surplus or wrong; or a head that is stored
            apart although tied, and differs from the embedding.
    """
    expected = target_shapes(config)
    ignored = {
        name for names in files.names.values() for name in names if name.endswith(HARMLESS_SUFFIX)
    }
    stored_twice = config.tie_embeddings and HEAD in files
    if stored_twice:
        expected[HEAD] = expected[EMBED]
    files.check(expected, frozenset(ignored))
    if stored_twice and not torch.equal(files.read(HEAD), files.read(EMBED)):
        where = files.file(HEAD)
        raise ValueError(
            f"{where}: tensor {HEAD} differs from {EMBED}, but config.json has tie_word_embeddings"
        )


def target_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint, by the name it has there."""
    shapes: dict[str, tuple[int, ...]] = {EMBED: (config.vocab_size, config.hidden_size)}
    for layer in range(config.num_layers):
        for name, shape in _layer_shapes(config).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes[NORM] = (config.hidden_size,)
    if not config.tie_embeddings:
        shapes[HEAD] = (config.vocab_size, config.hidden_size)
    return shapes


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    c, f, d = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_heads * d, config.num_kv_heads * d
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (c,),
        "self_attn.o_proj.weight": (c, q),
        "post_attention_layernorm.weight": (c,),
        "mlp.down_proj.weight": (c, f),
    }
    shapes |= {f"{name}.weight": (rows, c) for name, rows in zip(QKV, (q, kv, kv), strict=True)}
    shapes |= {f"{name}.weight": (f, c) for name in GATE_UP}
    if config.qkv_bias:
        shapes |= {f"{name}.bias": (rows,) for name, rows in zip(QKV, (q, kv, kv), strict=True)}
    if config.o_bias:
        shapes["self_attn.o_proj.bias"] = (c,)
    if config.qk_norm:
        shapes |= {"self_attn.q_norm.weight": (d,), "self_attn.k_norm.weight": (d,)}
    return shapes


class _Reported:
    """Files that tell how many of `total` bytes have been read."""

    def __init__(self, files: TensorFiles, on_progress: OnProgress, total: int):
        self._files, self._on_progress, self._total = files, on_progress, total
        self._done = 0

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files.shape(name)

    def read(self, name: str) -> Tensor:
        tensor = self._files.read(name)
        self._done += self._files.num_bytes(name)
        self._on_progress(self._done, self._total)
        return tensor


class _Reader:
    """Fuses stored tensors along their rows, straight into the destination."""

    def __init__(self, source: TensorSource, dtype: torch.dtype, device: torch.device):
        self._source, self._dtype, self._device = source, dtype, device
        self._pages = HugePages()

    def __call__(self, names: Sequence[str]) -> Tensor:
        num_rows = [self._source.shape(name)[0] for name in names]
        shape = (sum(num_rows), *self._source.shape(names[0])[1:])
        if self._device.type == "cpu":
            fused = self._pages.empty(shape, self._dtype)
        else:
            fused = torch.empty(shape, dtype=self._dtype, device=self._device)
        for name, rows in zip(names, torch.split(fused, num_rows), strict=True):
            rows.copy_(self._source.read(name))
        return fused


def _layer(read: _Reader, config: ModelConfig, layer: int) -> LayerWeights:
    def get(kind: str, *names: str) -> Tensor:
        return read([f"model.layers.{layer}.{name}.{kind}" for name in names])

    return LayerWeights(
        input_norm=get("weight", "input_layernorm"),
        qkv=get("weight", *QKV),
        o=get("weight", "self_attn.o_proj"),
        post_norm=get("weight", "post_attention_layernorm"),
        gate_up=get("weight", *GATE_UP),
        down=get("weight", "mlp.down_proj"),
        qkv_bias=get("bias", *QKV) if config.qkv_bias else None,
        o_bias=get("bias", "self_attn.o_proj") if config.o_bias else None,
        q_norm=get("weight", "self_attn.q_norm") if config.qk_norm else None,
        k_norm=get("weight", "self_attn.k_norm") if config.qk_norm else None,
    )
