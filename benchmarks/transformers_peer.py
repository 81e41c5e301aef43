"""transformers' own greedy decoding: eager, or with a static cache and torch.compile."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, CompileConfig
from transformers.generation.streamers import BaseStreamer

from kangaroo.evals.paired import Run


class FirstToken(BaseStreamer):
    """Notes when the first new token is there."""

    def __init__(self) -> None:
        self.num_puts, self.at_s = 0, 0.0

    def put(self, value: Tensor) -> None:
        """The first put is the prompt."""
        self.num_puts += 1
        if self.num_puts == 2:
            self.at_s = perf_counter()

    def end(self) -> None:
        """Nothing to close."""


def load(path: Path) -> Any:
    """The folder's model in float32, with SDPA attention."""
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa").eval()


class Transformers:
    """`generate` of a model.

    Args:
        compile_mode: of torch.compile, with a static cache; None: eager.
    """

    def __init__(self, model: Any, new_tokens: int, compile_mode: str | None = None):
        self.model = model
        self.options = {"max_new_tokens": new_tokens, "do_sample": False, "use_cache": True}
        if compile_mode is not None:
            config = CompileConfig(mode=compile_mode, fullgraph=True, dynamic=False)
            config._compile_all_devices = True  # by itself it compiles for GPUs alone
            self.options |= {"cache_implementation": "static", "compile_config": config}

    @torch.inference_mode()
    def __call__(self, prompt: list[int]) -> Run:
        """Decode; the first token, which the prefill makes, is charged like a later one."""
        ids, first = torch.tensor([prompt]), FirstToken()
        started = perf_counter()
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), streamer=first, **self.options
        )
        stopped = perf_counter()
        new = out[0, len(prompt) :].tolist()
        decode_s = (stopped - first.at_s) * len(new) / max(len(new) - 1, 1)
        return Run(new, stopped - started - decode_s, decode_s)
