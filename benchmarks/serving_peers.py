"""vLLM and SGLang, where they are installed: the same weights, one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

import torch

from benchmarks.racing import Decode, Terms
from benchmarks.subjects import Subject
from benchmarks.transformers_peer import shared
from kangaroo.evals.paired import Run
from kangaroo_kernels import UnsupportedError

SERVERS = {"vLLM": "vllm", "SGLang": "sglang"}
WORKSPACE_BYTES = 6e9  # beside the weights: keys and values, graphs, activations
Generate = Callable[[list[int], int], list[int]]  # prompt, new tokens -> their ids


def served(name: str, subject: Subject, terms: Terms) -> Decode:
    """A server's continuations.

    Raises:
        UnsupportedError: it is not installed, or there is no GPU.
    """
    if not find_spec(SERVERS[name]):
        raise UnsupportedError("not installed")
    device = subject.model.weights.norm.device
    if device.type != "cuda":
        raise UnsupportedError("serves on a GPU alone")
    made = {"vLLM": vllm, "SGLang": sglang}[name]
    generate = made(folder_of(subject), subject, memory_share(subject))

    def decode(prompt: list[int]) -> Run:
        """The prefill is what a single token takes."""
        started = perf_counter()
        generate(prompt, 1)
        first = perf_counter()
        new = generate(prompt, terms.new_tokens)
        prefill_s = first - started
        rest_s = perf_counter() - first - prefill_s
        return Run(new, prefill_s, rest_s * len(new) / max(len(new) - 1, 1))

    return decode


def folder_of(subject: Subject) -> Path:
    """The weights as a checkpoint: the subject's own, or one that is written for the servers; the
    machine's temporary folder keeps it.
    """
    if subject.path is not None:
        return subject.path
    folder = Path(mkdtemp(prefix="kangaroo-bench-"))
    shared(subject).save_pretrained(folder)
    return folder


def memory_share(subject: Subject) -> float:
    """The part of the GPU's memory that a server may take."""
    weights = subject.model.weights
    used = sum(parameter.nbytes for parameter in shared(subject).parameters())
    total = torch.cuda.get_device_properties(weights.norm.device).total_memory
    return min(0.9, (used + WORKSPACE_BYTES) / total)


def dtype_of(subject: Subject) -> str:
    return str(subject.model.weights.norm.dtype).removeprefix("torch.")


def vllm(folder: Path, subject: Subject, share: float) -> Generate:
    """By the library's own interface for one process, without a tokenizer."""
    package: Any = import_module("vllm")
    engine = package.LLM(
        model=str(folder),
        skip_tokenizer_init=True,
        dtype=dtype_of(subject),
        gpu_memory_utilization=share,
        enable_prefix_caching=False,
        max_model_len=min(4096, subject.model.config.max_seq_len),
    )

    def generate(prompt: list[int], new_tokens: int) -> list[int]:
        rule = package.SamplingParams(
            temperature=0.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False
        )
        [request] = engine.generate([{"prompt_token_ids": prompt}], rule, use_tqdm=False)
        return list(request.outputs[0].token_ids)

    return generate


def sglang(folder: Path, subject: Subject, share: float) -> Generate:
    """Likewise."""
    package: Any = import_module("sglang")
    engine = package.Engine(
        model_path=str(folder),
        skip_tokenizer_init=True,
        dtype=dtype_of(subject),
        mem_fraction_static=share,
        disable_radix_cache=True,
    )

    def generate(prompt: list[int], new_tokens: int) -> list[int]:
        rule = {"temperature": 0.0, "max_new_tokens": new_tokens, "ignore_eos": True}
        return list(engine.generate(input_ids=prompt, sampling_params=rule)["output_ids"])

    return generate
