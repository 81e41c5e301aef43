"""A trained small model as a large one of the same function: real text and acceptance at the bytes
and the arithmetic of the large shape.

Extra dimensions of the residual stream are exactly zero behind every layer (but one, see Padding).
For that the block (extra outputs, true inputs) of a matrix is zero, and so are the values of extra
heads and the products of extra MLP units, whatever their keys and gates are. An extra query head
over a true head of values is not heard: its columns of the output projection are zeros. All outputs
of an extra layer are extra, so it adds zero. All other extra entries are drawn, as wide as the
matrix's own. The head is never tied: in a tied one all extra columns would be zeros.

Exact, up to the order of summation, where C' / C and D' / D are powers of four (placement.py); else
norm weights or queries carry a factor that is no power of two, and are rounded to their dtype. In
native kernels the order is the small model's too where head_dim stays and the small sizes are
multiples of a vector: logits are equal bit for bit.

Tokens that the small model does not have get logits of -gain^2 c sqrt(C') / |h|, h being the last
state, beside the few units that all have: -10^6 at |h| = 10^4 in float32 and bfloat16, hundreds in
float16. Their probability is exactly 0 in float32, so they are never chosen, and confidence is the
small model's.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kangaroo.config import AdapterConfig
from kangaroo.engine.loading import adapter_home, load_bound_adapter, prefill_kernels, target_path
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import filled
from kangaroo.models.families import model_config
from kangaroo.models.files import read_json
from kangaroo.models.llama import Llama
from kangaroo.models.weights import (
    EMBED,
    HEAD,
    NORM,
    check_target,
    open_checkpoint,
    read_target,
    target_shapes,
)
from kangaroo.zoo.placement import EXTRA, Heads, Residual, place_heads, prefix, rotated_dims
from kangaroo.zoo.shapes import Shape
from kangaroo.zoo.wide_config import check_shape, config_of, wide_content
from kangaroo_kernels import Backend, KernelSet, Target

CPU = torch.device("cpu")
# Their extra outputs meet zeros, whatever they are: queries, or what the gate is multiplied by.
HARMLESS = ("self_attn.k_proj", "mlp.gate_proj")


class Widening:
    """The tensors of the large target by their names in a checkpoint, as TensorFiles has them.

    Attributes:
        small, wide: both geometries.
        content: config.json of the large one.
        exact: nothing is rounded that was not rounded before, but for the order of summation.

    Args:
        path: folder of the small target.
        shape: sizes alone: the family stays the small model's, so at those of Qwen3 there are no
            norms of queries and keys.
        dtype, device: of what is made. Drawn numbers differ between kinds of devices.
        shallow_layers: how many of the extra layers stand in front of all others, so that an
            adapter's exit layer is as much deeper; the rest stand behind all others.

    Raises:
        ValueError: a size is smaller than the small model's, or there are not enough heads.
        UnsupportedError: the small model is no Llama without biases, or its rotation cannot be had
            with the new head_dim.
    """

    def __init__(
        self,
        path: Path,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        *,
        shallow_layers: int = 0,
        seed: int = 0,
    ):
        self.small = small = model_config(path)
        check_shape(small, shape, shallow_layers)
        pads = shape.vocab_size > small.vocab_size
        self._residual = Residual.of(small, shape.hidden_size, pads, dtype)
        eps = self._residual.eps(small.rms_norm_eps)
        self.content = wide_content(read_json(path / "config.json"), shape, eps, dtype)
        self.wide = config_of(self.content)
        self._dims = rotated_dims(small, self.wide)
        self._heads = place_heads(small, self.wide, self._dims)
        factors = self._residual.norm_scale, self._heads.query_scale
        self.exact = all(_is_power_of_two(factor) for factor in factors)
        self._files = open_checkpoint(path)
        check_target(self._files, small)
        self._dtype, self._device, self._seed = dtype, device, seed
        self._shapes, self.shallow_layers = target_shapes(self.wide), shallow_layers

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        """The tensor `name`, made anew with each call; the same numbers every time."""
        if name == EMBED:
            return self._embedding()
        if name == HEAD:
            return self._head()
        if name == NORM:
            return self._norm(self._files.read(NORM), self._residual.padding.gain)
        layer, part = name.removeprefix("model.layers.").split(".", 1)
        origin = int(layer) - self.shallow_layers
        lives = 0 <= origin < self.small.num_layers
        stored = self._files.read(f"model.layers.{origin % self.small.num_layers}.{part}")
        if stored.ndim == 1:
            return self._norm(stored, 0.0)
        module = part.removesuffix(".weight")
        return self._module(name, module, stored, self._heads, lives=lives)

    def adapter(self, small: Adapter) -> Adapter:
        """The adapter `small` of the small target for the large one.

        Raises:
            ValueError: its heads do not fit, or its eps leaves no room for padded tokens.
        """
        config = replace(
            AdapterConfig.for_target(
                self.wide, small.config.kind, small.config.exit_layer + self.shallow_layers
            ),
            rms_norm_eps=self._residual.eps(small.config.rms_norm_eps),
            max_depth=small.config.max_depth,
            confidence=small.config.confidence,
        )
        heads = place_heads(small.config, config, self._dims)
        tensors = {}
        gains = {"norm": self._residual.padding.gain}
        for name, p in small.named_parameters():
            if p.ndim == 1:
                tensors[name] = self._norm(p, gains.get(name, 0.0))
            else:
                tensors[name] = self._adapter_matrix(name, p, small.config, heads)
        with torch.device("meta"):
            wide = Adapter(config)
        return filled(wide, tensors)

    def _adapter_matrix(
        self, name: str, stored: Tensor, small: AdapterConfig, heads: Heads
    ) -> Tensor:
        """qkv, o or deep_kv: matrices of a layer's attention, one below the other."""
        modules = {"qkv": "qkv", "o": "o", "deep_kv": "kv"}[name]
        sizes = {"q": small.num_heads, "k": small.num_kv_heads, "v": small.num_kv_heads}
        parts = (stored,)
        if name != "o":
            parts = stored.split([sizes[module] * small.head_dim for module in modules])
        num_states = 3 if name == "deep_kv" else 1
        return torch.cat(
            [
                self._module(
                    f"adapter.{small.kind}.{name}.{module}",
                    f"self_attn.{module}_proj",
                    part,
                    heads,
                    num_states=num_states,
                )
                for module, part in zip(modules, parts, strict=True)
            ]
        )

    def _module(
        self,
        name: str,
        module: str,
        stored: Tensor,
        heads: Heads,
        *,
        lives: bool = True,
        num_states: int = 1,
    ) -> Tensor:
        """A matrix of a layer that reads `num_states` states; one that does not live adds zero."""
        hidden = self._residual.origins
        units = prefix(self.small.intermediate_size, self.wide.intermediate_size)
        rows, columns, scale = {
            "self_attn.q_proj": (heads.q, hidden, heads.query_scale),
            "self_attn.k_proj": (heads.kv, hidden, 1.0),
            "self_attn.v_proj": (heads.kv, hidden, 1.0),
            "self_attn.o_proj": (hidden, heads.q, 1.0),
            "mlp.gate_proj": (units, hidden, 1.0),
            "mlp.up_proj": (units, hidden, 1.0),
            "mlp.down_proj": (hidden, units, 1.0),
        }[module]
        if not lives:
            rows = torch.full_like(rows, EXTRA)
        if num_states > 1:
            starts = (n * self.small.hidden_size for n in range(num_states))
            parts = [torch.where(columns == EXTRA, EXTRA, columns + start) for start in starts]
            columns = torch.cat(parts)
        made = self._drawn(name, (len(rows), len(columns)), stored)
        if module not in HARMLESS:
            inputs = heads.values if module == "self_attn.o_proj" else columns
            made[:, _there(inputs).to(self._device)] = 0.0
        return _place(made, stored.float() * scale, rows, columns)

    def _drawn(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Normal, as wide as `like`; by seed and name, whatever else is made."""
        digest = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        generator = torch.Generator(self._device)
        generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        made = torch.empty(shape, dtype=self._dtype, device=self._device)
        return made.normal_(0.0, like.float().std().item(), generator=generator)

    def _norm(self, stored: Tensor, on_constant: float) -> Tensor:
        """[C']: what is stored, scaled; `on_constant` for the constant, a mean for what is 0."""
        c, scaled = self.small.hidden_size, stored.float() * self._residual.norm_scale
        made = torch.empty(self.wide.hidden_size, dtype=self._dtype, device=self._device)
        made.fill_(scaled.mean().item())
        made[:c] = scaled.to(made)
        if self._residual.constant:
            made[c] = on_constant
        return made

    def _embedding(self) -> Tensor:
        made, c = self._of_tokens(EMBED, self._files.read(EMBED)), self.small.hidden_size
        made[:, c:] = 0.0
        if self._residual.constant:
            made[:, c] = self._residual.constant
        return made

    def _head(self) -> Tensor:
        stored = self._files.read(EMBED if self.small.tie_embeddings else HEAD)
        made, (v, c) = self._of_tokens(HEAD, stored), stored.shape
        if self._residual.constant:
            made[:v, c], made[v:, c] = 0.0, -self._residual.padding.gain
        return made

    def _of_tokens(self, name: str, stored: Tensor) -> Tensor:
        rows = prefix(self.small.vocab_size, self.wide.vocab_size)
        drawn = self._drawn(name, self._shapes[name], stored)
        return _place(drawn, stored.float(), rows, self._residual.origins)


def widened(
    target: str | Path,
    adapter: str | Path | None,
    shape: Shape,
    dtype: torch.dtype,
    device: torch.device,
    *,
    backend: Backend | str = "auto",
    shallow_layers: int = 0,
    seed: int = 0,
) -> tuple[Llama, Adapter | None]:
    """A small target and its adapter, widened on `device` without the disk.

    Args:
        target, adapter: as :meth:`KangarooForCausalLM.from_pretrained` takes them.
        shape, dtype, device, shallow_layers, seed: see Widening.

    Raises: as Widening and from_pretrained.
    """
    path, home = target_path(target), adapter_home(target, adapter)
    widening = Widening(path, shape, dtype, device, shallow_layers=shallow_layers, seed=seed)
    small = None if home is None else load_bound_adapter(home, path, torch.float32, CPU)
    wide = None if small is None else widening.adapter(small)
    on = Target(device, dtype, widening.wide.head_dim)
    kernels, prefill = KernelSet.resolve(on, backend), prefill_kernels(on, backend)
    weights = read_target(widening, widening.wide, dtype, device)
    return Llama(widening.wide, weights, kernels, prefill), wide


def _there(origins: Tensor) -> Tensor:
    """Where an axis has what the small model has."""
    return (origins != EXTRA).nonzero()[:, 0]


def _place(made: Tensor, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Write `values` of the small model into `made`, in place."""
    at, beside = _there(rows), _there(columns)
    placed = values[rows[at]][:, columns[beside]].to(made)
    made[at.to(made.device)[:, None], beside.to(made.device)] = placed
    return made


def _is_power_of_two(factor: float) -> bool:
    return math.frexp(factor)[0] == 0.5
