"""llama.cpp's greedy decoding of the same weights: a GGUF file, and the C API without a sampler.

Where llama-cpp-python or gguf are missing, importing this module still works; `absent` names them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Set
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from benchmarks.provenance import installed
from kangaroo.evals.paired import Run

PACKAGES = {"llama-cpp-python": "llama_cpp", "gguf": "gguf"}


def absent() -> list[str]:
    """The packages that are not installed here."""
    return [name for name, module in PACKAGES.items() if not find_spec(module)]


@dataclass(frozen=True)
class Options:
    """What llama.cpp lets one choose and what changes its speed on a CPU.

    Attributes:
        kv_dtype: of its cache, "f32" or "f16".
    """

    flash_attention: bool
    kv_dtype: str

    def __str__(self) -> str:
        return f"KV {self.kv_dtype}{', flash attention' if self.flash_attention else ''}"


EXACT = Options(flash_attention=False, kv_dtype="f32")  # flash attention rounds to float16
ALL_OPTIONS = tuple(Options(*chosen) for chosen in product((False, True), ("f32", "f16")))


def interleaved(rows: Tensor, head_dim: int) -> Tensor:
    """Query or key rows [H * D, ...] in llama.cpp's order: it rotates neighbours, where Hugging
    Face's checkpoints have the two halves of a head.
    """
    halves = rows.view(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def write_gguf(model: Any, file: Path) -> None:
    """A transformers model of type "llama" as a float32 GGUF file without a tokenizer.

    Raises:
        ValueError: another type, or a RoPE that is scaled.
    """
    from gguf import MODEL_ARCH, GGUFWriter, LlamaFileType, get_tensor_name_map

    config, rope = model.config, model.config.rope_parameters
    if config.model_type != "llama" or rope["rope_type"] != "default":
        raise ValueError(f"no GGUF of a {config.model_type} with {rope['rope_type']} RoPE")
    writer = GGUFWriter(file, "llama")
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp then takes the embeddings
        rotated = ".q_proj." in name or ".k_proj." in name
        tensor = interleaved(tensor, config.head_dim) if rotated else tensor
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.float().numpy()
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Model:
    """A GGUF file loaded by llama.cpp, whose messages are dropped."""

    def __init__(self, file: Path):
        import llama_cpp

        self.api = llama_cpp
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self.pointer = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
        if not self.pointer:
            raise RuntimeError(f"{file}: llama.cpp cannot load it")
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self.pointer)
        )

    def about(self) -> dict[str, Any]:
        """Version and instruction sets, for the record."""
        system = self.api.llama_print_system_info().decode().strip(" |")
        return {"llama_cpp_python": installed("llama-cpp-python"), "llama_cpp_system": system}


class LlamaCpp:
    """Greedy decoding in a context of `num_slots` tokens.

    As in our own loop all prompt tokens but the last are the prefill, and the last is the first
    step of decoding.
    """

    def __init__(self, model: Model, options: Options, threads: int, num_slots: int):
        api = model.api
        parameters = api.llama_context_default_params()
        if not hasattr(parameters, "flash_attn_type"):
            raise RuntimeError("this llama-cpp-python is too old to choose flash attention")
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = num_slots
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = int(options.flash_attention)
        kv_type = {"f32": api.GGML_TYPE_F32, "f16": api.GGML_TYPE_F16}[options.kv_dtype]
        parameters.type_k = parameters.type_v = kv_type
        parameters.no_perf = True
        self.api, self.model = api, model
        self.context = api.llama_init_from_model(model.pointer, parameters)
        if not self.context:
            raise RuntimeError(f"{options}: llama.cpp makes no such context")
        finalize(self, api.llama_free, self.context)
        self.address, self.row = 0, np.empty(0)

    def forward(self, batch: Any) -> np.ndarray:
        """The logits [V] behind the last token of a batch, valid until the next call."""
        if code := self.api.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode: {code}")
        row = self.api.llama_get_logits_ith(self.context, -1)
        address = ctypes.addressof(row.contents)
        if address != self.address:  # a new array each time would cost as much as the argmax
            self.address, self.row = address, np.ctypeslib.as_array(row, (self.model.vocab_size,))
        return self.row

    def prefill(self, prompt: list[int]) -> tuple[Any, Any]:
        """Forget everything, take in all but the last token; that one as a C array and a batch."""
        api = self.api
        api.llama_memory_clear(api.llama_get_memory(self.context), False)
        if history := prompt[:-1]:
            tokens = (ctypes.c_int32 * len(history))(*history)
            self.forward(api.llama_batch_get_one(tokens, len(history)))
        token = (ctypes.c_int32 * 1)(prompt[-1])
        return token, api.llama_batch_get_one(token, 1)

    def logits(self, prompt: list[int]) -> Tensor:
        """[V] behind the prompt."""
        return torch.from_numpy(self.forward(self.prefill(prompt)[1]).copy())

    def generate(self, prompt: list[int], new_tokens: int, eos_ids: Set[int] = frozenset()) -> Run:
        """Up to `new_tokens` tokens, up to and including the first of `eos_ids`."""
        started = perf_counter()
        (token, batch), new = self.prefill(prompt), []
        prefilled = perf_counter()
        while len(new) < new_tokens:
            token[0] = int(self.forward(batch).argmax())
            new.append(token[0])
            if token[0] in eos_ids:
                break
        return Run(new, prefilled - started, perf_counter() - prefilled)
