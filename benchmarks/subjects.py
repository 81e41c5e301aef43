"""What is timed: a target and an adapter, of random weights at a real shape, or from folders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig

from benchmarks.models import Model
from kangaroo import KangarooForCausalLM
from kangaroo.config import AdapterConfig, AdapterKind, ModelConfig
from kangaroo.engine.loading import load_engine, prefill_kernels, target_path
from kangaroo.evals.prompts import held_out_prompts
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import filled
from kangaroo.models.families import hf_config
from kangaroo.models.llama import Llama, LlamaWeights
from kangaroo.pages import HugePages
from kangaroo.zoo.widening import widened
from kangaroo_kernels import KernelSet, Target
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.testing import random_norm_weight, random_weight


@dataclass(frozen=True)
class Source:
    """Where a subject comes from.

    Attributes:
        model: a shape, for random weights; None: `target` and `adapter` are folders. With both they
            are a small model, whose text and acceptance the large one has (`zoo.widen`).
        kind: of the random adapter.
        num_slots: tokens of context that are needed; of a random target never too many.
        backend: of the kernels.
    """

    model: Model | None
    target: str | Path | None
    adapter: str | Path | None
    kind: AdapterKind
    device: torch.device
    dtype: torch.dtype
    backend: str = "auto"
    num_slots: int = 0


@dataclass(frozen=True)
class Subject:
    """A target with its adapter.

    Attributes:
        path: the target's folder; None: the weights are random.
        hf_config: the same geometry as transformers says it.
    """

    name: str
    path: Path | None
    model: Llama
    adapter: Adapter
    hf_config: Any

    @property
    def llm(self) -> KangarooForCausalLM:
        """As users have it; no token ends a sequence."""
        return KangarooForCausalLM(
            self.model, self.adapter, self.path or Path(), GenerationConfig()
        )

    def prompts(self, num_prompts: int, prompt_len: int) -> dict[str, list[int]]:
        """Token ids [prompt_len] by name: held-out Python; of random weights random tokens.

        Raises:
            ValueError: no tokenizer, or too few files that are long enough.
        """
        if self.path is not None:
            return held_out_prompts(self.llm.tokenizer, num_prompts, prompt_len)
        shape = (num_prompts, prompt_len)
        drawn = torch.randint(self.model.config.vocab_size, shape).tolist()
        return {f"random {number}": ids for number, ids in enumerate(drawn)}

    def served_by(self, kernels: KernelSet) -> Subject:
        """The same weights, other kernels."""
        return replace(self, model=Llama(self.model.config, self.model.weights, kernels))


def subject(source: Source) -> Subject:
    """The target and the adapter of `source`; whatever makes others belongs here.

    Raises:
        ValueError: a folder without an adapter, or as `load_engine`.
        UnsupportedError: as `KernelSet.resolve`.
    """
    if source.model is not None and source.target is not None:
        return widened_subject(source, source.model, source.target)
    if source.model is not None:
        config = source.model.config
        config = replace(config, max_seq_len=max(config.max_seq_len, source.num_slots))
        target = Target(source.device, source.dtype, config.head_dim)
        kernels = KernelSet.resolve(target, source.backend)
        prefill = prefill_kernels(target, source.backend)
        model = random_target(config, target, kernels, prefill)
        adapter = random_adapter(
            AdapterConfig.for_target(config, source.kind, source.model.exit_layer),
            model.weights.norm,
        )
        hf = hf_config_of(config, source.model.rope_theta)
        return Subject(source.model.name, None, model, adapter, hf)
    path, model, loaded = load_engine(
        source.target or "", source.adapter, source.dtype, source.device, source.backend
    )
    if loaded is None:
        raise ValueError(f"adapter: expected one for {path}, got none")
    return Subject(path.name, path, model, loaded, hf_config(path))


def widened_subject(source: Source, model: Model, target: str | Path) -> Subject:
    """A small target and its adapter, at the size of `model`."""
    made, adapter = widened(
        target, source.adapter, model.shape, source.dtype, source.device, backend=source.backend
    )
    path = target_path(target)
    if adapter is None:
        raise ValueError(f"adapter: expected one for {path}, got none")
    hf = hf_config_of(made.config, hf_config(path).rope_parameters["rope_theta"])
    return Subject(f"{path.name} as {model.name}", path, made, adapter, hf)


def random_target(
    config: ModelConfig, target: Target, kernels: KernelSet, prefill: KernelSet | None = None
) -> Llama:
    """Random weights, made on the device where they stay; on a CPU in large pages, as those of
    checkpoints are.
    """
    pages = HugePages()
    c, f, d, dtype = config.hidden_size, config.intermediate_size, config.head_dim, target.dtype
    q, kv = config.num_heads * d, config.num_kv_heads * d

    def placed(x: Tensor) -> Tensor:
        return pages.empty(tuple(x.shape), dtype).copy_(x) if x.device.type == "cpu" else x

    def matrix(num_out: int, num_in: int) -> Tensor:
        return placed(random_weight(num_out, num_in, dtype))

    def norm(width: int) -> Tensor:
        return placed(random_norm_weight(width, dtype))

    def layer() -> LayerWeights:
        return LayerWeights(
            input_norm=norm(c),
            qkv=matrix(q + 2 * kv, c),
            o=matrix(c, q),
            post_norm=norm(c),
            gate_up=matrix(2 * f, c),
            down=matrix(c, f),
            q_norm=norm(d) if config.qk_norm else None,
            k_norm=norm(d) if config.qk_norm else None,
        )

    with target.device:
        embed = matrix(config.vocab_size, c)
        layers = tuple(layer() for _ in range(config.num_layers))
        head = embed if config.tie_embeddings else matrix(config.vocab_size, c)
        return Llama(config, LlamaWeights(embed, layers, norm(c), head), kernels, prefill)


def random_adapter(config: AdapterConfig, like: Tensor) -> Adapter:
    """Random, on the device and in the dtype of `like`."""
    with torch.device("meta"):
        adapter = Adapter(config)
    with like.device:
        tensors = {
            name: random_norm_weight(p.shape[0], like.dtype)
            if p.ndim == 1
            else random_weight(*p.shape, like.dtype)
            for name, p in adapter.named_parameters()
        }
    filled(adapter, tensors)
    return adapter


def hf_config_of(config: ModelConfig, rope_theta: float) -> Any:
    """transformers' configuration of a target without biases and RoPE scaling."""
    return AutoConfig.for_model(
        config.family,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_seq_len,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=None,
        eos_token_id=None,
    )
