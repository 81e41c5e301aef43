"""transformers' own greedy decoding: eager, with a static cache and torch.compile, or assisted by
our draft; of a folder, or on weights that are in memory.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, CompileConfig, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from benchmarks.subjects import Subject
from kangaroo.config import AdapterConfig, ModelConfig
from kangaroo.evals.paired import Run
from kangaroo.models.weights import EMBED, GATE_UP, HEAD, NORM, QKV
from kangaroo_kernels import UnsupportedError
from kangaroo_kernels.layer_weights import LayerWeights


class FirstToken(BaseStreamer):
    """Notes when the first new tokens are there, and how many they are."""

    def __init__(self) -> None:
        self.num_puts, self.num_first, self.at_s = 0, 0, 0.0

    def put(self, value: Tensor) -> None:
        """The first put is the prompt."""
        self.num_puts += 1
        if self.num_puts == 2:
            self.num_first, self.at_s = value.numel(), perf_counter()

    def end(self) -> None:
        """Nothing to close."""


def load(path: Path) -> Any:
    """The folder's model in float32, with SDPA attention."""
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()


class NoMLP(nn.Module):
    """Adds nothing to the residual stream."""

    def forward(self, h: Tensor) -> Tensor:
        """Zeros like h."""
        return torch.zeros_like(h)


def shared(subject: Subject) -> Any:
    """The target as transformers runs it, on the same memory."""
    weights = subject.model.weights
    model = empty(subject, len(weights.layers))
    return filled(model, subject, list(weights.layers), weights.norm)


def shared_draft(subject: Subject) -> Any:
    """The draft as a model of its own, on the same memory: the shared layers, the adapter as a
    layer without MLP, and the target's head.

    Raises:
        UnsupportedError: the adapter is no such layer.
    """
    target, adapter = subject.model.config, subject.adapter
    own = adapter.config
    if own.kind != "paper":
        raise UnsupportedError(f"a {own.kind} adapter is no layer of transformers")
    if target.qkv_bias or target.o_bias or geometry(own) != geometry(target):
        raise UnsupportedError("the adapter's attention is not that of the target's layers")
    model = empty(subject, own.exit_layer + 1)
    last = model.model.layers[-1]
    last.mlp = NoMLP()
    if target.qk_norm:
        last.self_attn.q_norm = last.self_attn.k_norm = nn.Identity()
    layers = list(subject.model.weights.layers[: own.exit_layer])
    nothing = adapter.o[:0]
    step = LayerWeights(
        adapter.input_norm, adapter.qkv, adapter.o, adapter.input_norm, nothing, nothing
    )
    model = filled(model, subject, [*layers, step], adapter.norm)
    rule = model.generation_config
    rule.num_assistant_tokens, rule.num_assistant_tokens_schedule = own.max_depth, "constant"
    rule.assistant_confidence_threshold = own.confidence
    return model


def geometry(config: ModelConfig | AdapterConfig) -> tuple[int, int, int, float]:
    """What transformers takes from one configuration for all layers."""
    return config.num_heads, config.num_kv_heads, config.head_dim, config.rms_norm_eps


def empty(subject: Subject, num_layers: int) -> Any:
    """A model of so many of the target's layers, without weights."""
    auto: Any = AutoModelForCausalLM
    config, dtype = deepcopy(subject.hf_config), subject.model.weights.norm.dtype
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:num_layers]
    with torch.device("meta"):
        return auto.from_config(config, attn_implementation="sdpa", dtype=dtype)


def filled(model: Any, subject: Subject, layers: list[LayerWeights], norm: Tensor) -> Any:
    """The model on these weights; no token ends a sequence."""
    weights, device = subject.model.weights, subject.model.weights.norm.device
    tensors = {EMBED: weights.embed, NORM: norm, HEAD: weights.lm_head}
    for number, layer in enumerate(layers):
        named = layer_tensors(subject.model.config, layer)
        tensors |= {f"model.layers.{number}.{name}": tensor for name, tensor in named.items()}
    wanted = model.state_dict().keys()
    model.load_state_dict({name: tensors[name] for name in wanted}, strict=True, assign=True)
    with device:  # the buffers of RoPE are in no checkpoint
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model.requires_grad_(False).eval()


def layer_tensors(config: ModelConfig, layer: LayerWeights) -> dict[str, Tensor]:
    """Parts of the fused projections, by the names that checkpoints have for them."""
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    tensors = {
        "input_layernorm.weight": layer.input_norm,
        "post_attention_layernorm.weight": layer.post_norm,
        "self_attn.o_proj.weight": layer.o,
        "self_attn.o_proj.bias": layer.o_bias,
        "self_attn.q_norm.weight": layer.q_norm,
        "self_attn.k_norm.weight": layer.k_norm,
        "mlp.down_proj.weight": layer.down,
    }
    for name, part in zip(GATE_UP, layer.gate_up.chunk(2), strict=False):
        tensors[f"{name}.weight"] = part
    for kind, fused in (("weight", layer.qkv), ("bias", layer.qkv_bias)):
        parts = [] if fused is None else fused.split([q, kv, kv])
        tensors |= {f"{name}.{kind}": part for name, part in zip(QKV, parts, strict=False)}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


class Transformers:
    """`generate` of a model.

    Args:
        compile_mode: of torch.compile, with a static cache; None: eager.
        assistant: a model that drafts.
    """

    def __init__(
        self,
        model: Any,
        new_tokens: int,
        compile_mode: str | None = None,
        assistant: Any = None,
    ):
        self.model = model
        self.options = {"max_new_tokens": new_tokens, "do_sample": False, "use_cache": True}
        if assistant is not None:
            self.options["assistant_model"] = assistant
        if compile_mode is not None:
            config = CompileConfig(mode=compile_mode, fullgraph=True, dynamic=False)
            config._compile_all_devices = True  # by itself it compiles for GPUs alone
            self.options |= {"cache_implementation": "static", "compile_config": config}

    @torch.inference_mode()
    def __call__(self, prompt: list[int]) -> Run:
        """Decode; the first tokens, which come with the prefill, are charged like later ones."""
        ids, first = torch.tensor([prompt], device=self.model.device), FirstToken()
        started = perf_counter()
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), streamer=first, **self.options
        )
        new = out[0, len(prompt) :].tolist()
        stopped = perf_counter()
        decode_s = (stopped - first.at_s) * len(new) / max(len(new) - first.num_first, 1)
        return Run(new, stopped - started - decode_s, decode_s)
