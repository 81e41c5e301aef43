"""Weights: what is read, and that nothing damaged or strange is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kangaroo.models.families import model_config
from kangaroo.models.llama import LlamaWeights
from kangaroo.models.weights import load_target
from tests.factories import edit_json, edit_tensors, make_checkpoint
from tests.models.conftest import Copy, one_line

CPU = torch.device("cpu")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Q, EMBED, HEAD = (
    "model.layers.1.self_attn.q_proj.weight",
    "model.embed_tokens.weight",
    "lm_head.weight",
)


def load(path: Path, dtype: torch.dtype = torch.float32) -> LlamaWeights:
    return load_target(path, model_config(path), dtype, CPU)


def tensors_of(weights: LlamaWeights) -> list[Tensor]:
    layers = [
        tensor
        for layer in weights.layers
        for tensor in (getattr(layer, name) for name in layer.__slots__)
        if tensor is not None
    ]
    return [weights.embed, weights.norm, weights.lm_head, *layers]


def assert_same(weights: LlamaWeights, others: LlamaWeights) -> None:
    pairs = zip(tensors_of(weights), tensors_of(others), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_fuses_projections_in_order(pristine: dict[str, Path]) -> None:
    stored = load_file(pristine["whole"] / SINGLE)
    layer = load(pristine["whole"]).layers[1]
    for fused, names in {
        "qkv": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        "qkv_bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
        "gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "k_norm": ("self_attn.k_norm.weight",),
        "post_norm": ("post_attention_layernorm.weight",),
    }.items():
        parts = [stored[f"model.layers.1.{name}"] for name in names]
        assert torch.equal(getattr(layer, fused), torch.cat(parts)), fused


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_contiguous_of_one_dtype_and_own_their_memory(
    copy: Copy, dtype: torch.dtype
) -> None:
    path = copy("whole")
    weights = load(path, dtype)
    before = [t.clone() for t in tensors_of(weights)]
    (path / SINGLE).write_bytes(bytes((path / SINGLE).stat().st_size))
    for tensor, kept in zip(tensors_of(weights), before, strict=True):
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        assert torch.equal(tensor, kept)


def test_tied_head_is_the_embedding(pristine: dict[str, Path]) -> None:
    weights = load(pristine["tied"])
    assert weights.lm_head is weights.embed
    untied = load(pristine["whole"])
    assert not torch.equal(untied.lm_head, untied.embed)


def test_shards_hold_the_same_weights(pristine: dict[str, Path]) -> None:
    assert len(list(pristine["sharded"].glob("*.safetensors"))) > 3
    assert_same(load(pristine["sharded"]), load(pristine["whole"]))


def test_bfloat16_checkpoint_in_float32(tmp_path: Path, pristine: dict[str, Path]) -> None:
    path = make_checkpoint(
        tmp_path, "qwen3-bias-tied", tie_word_embeddings=False, dtype=torch.bfloat16
    )
    widened = load(path)
    assert {t.dtype for t in tensors_of(widened)} == {torch.float32}
    rounded = load(pristine["whole"], torch.bfloat16)
    pairs = zip(tensors_of(widened), tensors_of(rounded), strict=True)
    assert all(torch.equal(a, b.float()) for a, b in pairs)


def refused(path: Path, *messages: str) -> None:
    with pytest.raises(ValueError, match=one_line(*messages)):
        load(path)


@pytest.mark.parametrize(
    ("edit", "messages"),
    [
        (lambda t: t.pop(Q), (f"missing tensor {Q}",)),
        (lambda t: [t.pop(n) for n in sorted(t)[:3]], ("missing tensor", "(and 2 more)")),
        (lambda t: t.update(strange=torch.ones(1)), ("surplus tensor strange",)),
        (lambda t: t.update({Q: t[Q].T}), (f"tensor {Q}", "(128, 64)", "(64, 128)")),
        (lambda t: t.update({Q: t[Q][1:]}), (f"tensor {Q}", "(128, 64)", "(127, 64)")),
        (lambda t: t.update({Q: t[Q].flatten()}), (f"tensor {Q}", "(8192,)")),
        (lambda t: t.update({Q: t[Q].to(torch.int8)}), (f"tensor {Q}", "got I8")),
        (lambda t: t.update({EMBED: t[EMBED][:-1]}), (f"tensor {EMBED}", "(262, 64)")),
    ],
)
def test_wrong_tensors(
    copy: Copy, edit: Callable[[dict[str, Tensor]], object], messages: tuple[str, ...]
) -> None:
    path = copy("whole")
    edit_tensors(path / SINGLE, edit)
    refused(path, str(path / SINGLE), *messages)


def test_bias_that_config_does_not_mention(copy: Copy) -> None:
    path = copy("whole")
    edit_json(path / "config.json", attention_bias=False)
    refused(path, SINGLE, "surplus tensor model.layers.0.self_attn.k_proj.bias")


def test_rotary_buffers_are_harmless(copy: Copy, pristine: dict[str, Path]) -> None:
    path = copy("whole")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(path / SINGLE, lambda t: t.update({name: torch.ones(8)}))
    assert_same(load(path), load(pristine["whole"]))


def test_tied_head_stored_apart(copy: Copy, pristine: dict[str, Path]) -> None:
    path = copy("tied")
    edit_tensors(path / SINGLE, lambda t: t.update({HEAD: t[EMBED].clone()}))
    assert_same(load(path), load(pristine["tied"]))
    edit_tensors(path / SINGLE, lambda t: t[HEAD][7].add_(1e-3))
    refused(path, str(path / SINGLE), HEAD, "tie_word_embeddings")


@pytest.mark.parametrize("kept", [0, 7, 100, -1, -100_000])
def test_truncated_file(copy: Copy, kept: int) -> None:
    path = copy("whole")
    content = (path / SINGLE).read_bytes()
    (path / SINGLE).write_bytes(content[:kept])
    refused(path, f"{path / SINGLE}: truncated or corrupt")


def test_file_with_bytes_behind(copy: Copy) -> None:
    path = copy("whole")
    with (path / SINGLE).open("ab") as stream:
        stream.write(b"\0")
    refused(path, f"{path / SINGLE}: truncated or corrupt")


def test_truncated_shard(copy: Copy) -> None:
    path = copy("sharded")
    shard = sorted(path.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    refused(path, f"{shard}: truncated or corrupt")


def weight_map(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((path / INDEX).read_text())["weight_map"]
    return found


def test_index_names_an_absent_file(copy: Copy) -> None:
    path = copy("sharded")
    (path / weight_map(path)[Q]).unlink()
    refused(path, str(path / INDEX), "no such file", weight_map(path)[Q])


@pytest.mark.parametrize("file_name", ["../outside.safetensors", "/etc/passwd", "..", 3, None])
def test_index_names_no_file_of_the_folder(copy: Copy, file_name: object) -> None:
    path = copy("sharded")
    edit_json(path / INDEX, weight_map=weight_map(path) | {Q: file_name})
    refused(path, str(path / INDEX), Q)


def test_index_and_shards_disagree(copy: Copy) -> None:
    path = copy("sharded")
    true = weight_map(path)
    home = path / true[Q]
    other = next(name for name in true.values() if name != true[Q])
    edit_json(path / INDEX, weight_map=true | {Q: other})
    refused(path, Q, INDEX)
    edit_json(path / INDEX, weight_map={n: file for n, file in true.items() if n != Q})
    refused(path, str(home), Q, INDEX)
    edit_json(path / INDEX, weight_map=true | {"strange": true[Q]})
    refused(path, str(home), "missing tensor strange", INDEX)


def test_tensor_in_two_shards(copy: Copy) -> None:
    path = copy("sharded")
    home, other = (
        weight_map(path)[Q],
        next(f for f in weight_map(path).values() if f != weight_map(path)[Q]),
    )
    q = load_file(path / home)[Q]
    edit_tensors(path / other, lambda t: t.update({Q: q}))
    refused(path, Q, home, other)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_invalid_index(copy: Copy, content: str) -> None:
    path = copy("sharded")
    (path / INDEX).write_text(content)
    refused(path, str(path / INDEX))


def test_pickled_weights_only(copy: Copy) -> None:
    path = copy("whole")
    (path / SINGLE).unlink()
    refused(path, str(path), f"no {SINGLE} and no {INDEX}")
    torch.save({}, path / "pytorch_model.bin")
    refused(path, str(path), "*.bin", "save_pretrained")


def test_nothing_is_loaded_from_a_damaged_checkpoint(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy("sharded")
    last = path / weight_map(path)["model.norm.weight"]
    edit_tensors(last, lambda t: t.update({"model.norm.weight": torch.ones(65)}))
    monkeypatch.setattr("kangaroo.models.files.TensorFiles.read", pytest.fail)
    refused(path, str(last), "model.norm.weight", "(64,)", "(65,)")
