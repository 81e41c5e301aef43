"""Prefill through libraries: the same tokens, and decoding behind it still has the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kangaroo import cache
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine import decode
from kangaroo.engine.decode import Decoder
from kangaroo.engine.llm import KangarooForCausalLM
from kangaroo.engine.loading import load_engine, prefill_kernels
from kangaroo.engine.state import DecodeState, PastKeyValues, Request
from kangaroo.models.llama import Llama
from kangaroo_kernels import KernelSet, Target, testing
from kangaroo_kernels.kernel_set import LIBRARY_OPS
from tests.engines import (
    SMALL,
    Run,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
)
from tests.factories import make_checkpoint

CPU = torch.device("cpu")
PROMPT_LEN, NUM_TOKENS = 300, 24  # in one pass, which is longer than the positions at hand
BY_LIBRARY = dict.fromkeys(LIBRARY_OPS, "library")


def through_libraries(model: Llama) -> Llama:
    """The same target whose prompts go through libraries."""
    target = Target(CPU, model.weights.norm.dtype, model.config.head_dim)
    libraries = KernelSet.resolve(target, **BY_LIBRARY)
    return Llama(model.config, model.weights, model.kernels, libraries)


@pytest.fixture(scope="module")
def model() -> Llama:
    return through_libraries(load_engine("tiny-py", None, None, "cpu", "auto")[1])


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    """Python, which this target knows."""
    tokenizer = KangarooForCausalLM.from_pretrained("tiny-py").tokenizer
    ids: list[int] = tokenizer(Path(cache.__file__).read_text())["input_ids"]
    return ids[:PROMPT_LEN]


@pytest.fixture(scope="module")
def plain(model: Llama, prompt: list[int]) -> Run:
    return autoregressive(model, prompt, NUM_TOKENS)


def test_tokens_are_those_of_the_reference(prompt: list[int], plain: Run) -> None:
    reference = load_engine("tiny-py", None, None, "cpu", "reference")[1]
    expected = autoregressive(reference, prompt, NUM_TOKENS)
    assert plain.tokens == expected.tokens
    torch.testing.assert_close(plain.logits, expected.logits, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_speculation_changes_no_bit(
    model: Llama, prompt: list[int], plain: Run, kind: AdapterKind
) -> None:
    adapter = load_engine("tiny-py", kind, None, "cpu", "auto")[2]
    assert adapter is not None
    exit_layer = adapter.config.exit_layer
    chain = DraftConfig(exit_layer, 6, 0.4)
    tree = DraftConfig(exit_layer, 6, 0.4, draft="tree", max_nodes=16)
    for drafter in (
        KangarooDrafter(model, adapter, chain),
        chain_drafter(model, adapter, chain),
        BranchingDrafter(model, adapter, tree),
    ):
        run = decoder_of(drafter).run(prompt, NUM_TOKENS)
        assert run.tokens == plain.tokens
        testing.assert_same_bits(run.logits, plain.logits)
        assert run.num_accepted > NUM_TOKENS // 3, "the adapter has seen the prompt"


@pytest.fixture
def small(tmp_path: Path) -> Llama:
    path = make_checkpoint(tmp_path, "llama-gqa-llama3", **SMALL)
    return through_libraries(load(path, "native"))


def test_decoding_is_left_to_its_own_kernels(small: Llama) -> None:
    """Prompts of one token, and every round, know nothing of libraries."""
    libraries, counts = small.prefill_kernels, []
    assert libraries is not None

    def counted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        counts.append(x.shape[1])
        return libraries.linear(x, *args, **kwargs)

    counting = replace(libraries, linear=counted)
    model, ids = Llama(small.config, small.weights, small.kernels, counting), make_prompt(small, 20)
    autoregressive(model, ids[:1], 9)
    assert counts == []
    autoregressive(model, ids, 9)
    assert counts == [19] * 2 * small.config.num_layers


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_turns_of_a_conversation(small: Llama, kind: AdapterKind) -> None:
    """What is kept between calls has the bits that it was made with, drafts or none."""
    adapter, config = make_adapter(small, kind, 1), DraftConfig(1, 4, 0.0)
    drafters = (
        KangarooDrafter(small, adapter, config),
        KangarooDrafter(small, None, DraftConfig(1, 0)),
    )
    pasts, ids = [PastKeyValues() for _ in drafters], make_prompt(small, 30)
    for turn in range(4):
        said = []
        for drafter, past in zip(drafters, pasts, strict=True):
            request = Request(list(ids), 11)
            decoder = Decoder(small, drafter, drafter.config, keep_logits=True)
            rounds = list(decoder.generate(request, past))
            said.append((request.tokens, torch.cat([r.logits for r in rounds])))
        (tokens, logits), (plain_tokens, plain_logits) = said
        assert tokens == plain_tokens
        testing.assert_same_bits(logits, plain_logits)
        ids = tokens + make_prompt(small, 5 + turn, seed=turn)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that was made."""

    num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in tensors(args, kwargs)}
        for made in tensors(result):
            storage = made.untyped_storage()
            if storage.data_ptr() not in known:
                self.num_bytes = max(self.num_bytes, storage.nbytes())
        return result


def tensors(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Prepared(Decoder):
    """Makes its state before memory is looked at."""

    state: DecodeState

    def new_state(self, batch: int, num_slots: int) -> DecodeState:
        return self.state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_prompt_takes_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """But for keys and values, the most is the gates and ups of one pass. (The masks that SDPA has
    on a CPU are smaller here.)
    """
    inner, chunk, config = 1024, 64, DraftConfig(1, 0)
    monkeypatch.setattr(decode, "LIBRARY_CHUNK", chunk)
    overrides = SMALL | {"intermediate_size": inner, "max_position_embeddings": 640}
    path = make_checkpoint(tmp_path, "llama", **overrides)
    model = through_libraries(load(path, "native", dtype))
    for prompt_len in (chunk + 1, 3 * chunk, 9 * chunk):
        decoder = Prepared(model, KangarooDrafter(model, None, config), config)
        decoder.state = Decoder.new_state(decoder, 1, prompt_len)
        with Largest() as largest:
            decoder.prefill(Request(make_prompt(model, prompt_len), 0))
        assert largest.num_bytes == chunk * 2 * inner * dtype.itemsize


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_who_prefills(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries on a GPU, if nothing else was asked for."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(KernelSet, "resolve", lambda *args, **ops: asked.append((args, ops)))
    target = Target(torch.device(device), torch.bfloat16, 64)
    for backend in ("auto", "native", "triton", "reference"):
        assert prefill_kernels(target, backend) is None
    assert asked == ([] if device == "cpu" else [((target,), BY_LIBRARY)])
