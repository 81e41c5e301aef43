"""The target's logits are transformers' logits, for every family, backend and cut into calls."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from kangaroo.cache import SlotCache
from kangaroo.models.families import model_config
from kangaroo.models.llama import Llama
from kangaroo.models.weights import load_target
from kangaroo_kernels import KernelSet, Target, UnsupportedError
from tests.engines import num_live
from tests.factories import FAMILIES, make_checkpoint

EXIT_LAYER, NUM_TOKENS = 2, 72  # more than one KV_CHUNK
CPU = torch.device("cpu")


def load(path: Path, backend: str, dtype: torch.dtype = torch.float32) -> Llama:
    config = model_config(path)
    try:
        # verify_tree takes no part in a forward pass and has no native implementation.
        target = Target(CPU, dtype, config.head_dim)
        kernels = KernelSet.resolve(target, backend, verify_tree="reference")
    except (UnsupportedError, ImportError) as refusal:
        pytest.skip(str(refusal))
    return Llama(config, load_target(path, config, dtype, CPU), kernels)


def chain_logits(llama: Llama, tokens: Tensor, cuts: list[int], draft: bool = False) -> Tensor:
    """Logits of tokens [1, N] by way of the exit layer, in calls that end at `cuts` and at N.

    `draft`: calls after the first add nodes to a tree in progress instead of committed slots.
    """
    config, n = llama.config, tokens.shape[1]
    shallow, deep = (
        SlotCache((2 * layers, 1, config.num_kv_heads), n, config.head_dim, llama.weights.embed)
        for layers in (EXIT_LAYER, config.num_layers - EXIT_LAYER)
    )
    logits = []
    for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
        nodes = shallow.chain(stop - start)
        h = llama.layers(llama.embed(tokens[:, start:stop]), 0, EXIT_LAYER, shallow, nodes)
        h = llama.layers(h, EXIT_LAYER, config.num_layers, deep, nodes)
        logits.append(llama.logits(h))
        if start == 0 or not draft:
            shallow.commit([stop])
            deep.commit([stop])
    assert num_live(shallow) == num_live(deep) == n
    return torch.cat(logits, dim=1)


def hf_logits(path: Path, tokens: Tensor) -> Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        logits: Tensor = model.eval()(tokens).logits
    return logits


def some_tokens(path: Path) -> Tensor:
    return torch.randint(0, model_config(path).vocab_size, (1, NUM_TOKENS))


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(tmp_path: Path, family: str, backend: str) -> None:
    path = make_checkpoint(tmp_path, family)
    llama, tokens = load(path, backend), some_tokens(path)
    expected = hf_logits(path, tokens)
    assert expected.std() > 0.5, "these weights would not show a mistake"
    whole = chain_logits(llama, tokens, cuts=[])
    torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-4)
    split = chain_logits(llama, tokens, cuts=[1, 30, 66])
    torch.testing.assert_close(split, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_nodes_of_a_chain_are_slots_to_be(tmp_path: Path, backend: str) -> None:
    path = make_checkpoint(tmp_path, "llama-gqa-llama3")
    llama, tokens = load(path, backend), some_tokens(path)
    drafted = chain_logits(llama, tokens, cuts=[60, 61, 70], draft=True)
    torch.testing.assert_close(drafted, hf_logits(path, tokens), atol=1e-4, rtol=1e-4)


def test_frequencies_are_bitwise_those_of_transformers(tmp_path: Path) -> None:
    for family in ("llama", "llama-linear", "llama-gqa-llama3", "llama-yarn", "qwen3"):
        path = make_checkpoint(tmp_path / family, family)
        rotary = AutoModelForCausalLM.from_pretrained(path).model.rotary_emb
        config = model_config(path)
        assert torch.equal(torch.tensor(config.rope_inv_freq), rotary.inv_freq), family
        assert config.rope_scale == rotary.attention_scaling, family
    assert config.rope_scale == 1.0
