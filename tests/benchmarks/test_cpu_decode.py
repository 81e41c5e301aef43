"""`benchmarks/cpu_decode.py`: peers run the same weights, bars judge, a flipped bit is found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from benchmarks import cpu_decode, cpu_race, llama_cpp_peer, logit_bits, verify_rows
from benchmarks.bars import Bar, exit_code
from benchmarks.models import TINY_PY
from benchmarks.racing import split
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.evals import bits
from kangaroo.evals.recording import Recording
from kangaroo_kernels import native
from tests.engines import kernel_set, load, make_adapter, make_prompt
from tests.factories import make_checkpoint

SIZES = {"hidden_size": 128, "head_dim": 32, "tie_word_embeddings": True}
NEW_TOKENS = 12
needs_llama_cpp = pytest.mark.skipif(
    bool(llama_cpp_peer.absent()), reason=f"not installed: {', '.join(llama_cpp_peer.absent())}"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    return make_checkpoint(folder, "llama-tied", **SIZES | {"num_hidden_layers": 2})


def engine(path: Path, backend: str, kind: Any = "paper") -> KangarooForCausalLM:
    model = load(path, backend)
    return KangarooForCausalLM(model, make_adapter(model, kind, 1), path, GenerationConfig())


@pytest.mark.parametrize(
    ("bar", "verdict"),
    [
        (Bar("", 1.0, 1.0), "PASS"),
        (Bar("", 0.99, 1.0), "FAIL"),
        (Bar("", 1.25, 1.25, at_least=False), "PASS"),
        (Bar("", 1.26, 1.25, at_least=False), "FAIL"),
        (Bar("", math.nan, 1.0), "FAIL"),
        (Bar("", math.nan, 1.0, at_least=False), "FAIL"),
        (Bar("", None, 1.0, note="not installed"), "NOT MEASURED"),
    ],
)
def test_bars(bar: Bar, verdict: str) -> None:
    assert bar.verdict == bar.as_dict()["verdict"] == verdict
    assert str(bar).startswith(verdict)
    assert bar.note in str(bar)
    assert exit_code([Bar("", 2.0, 1.0), bar]) == (verdict == "FAIL")


def test_one_flipped_bit_is_found(path: Path) -> None:
    model = load(path, "native")
    plain = bits.plain(model, make_prompt(model, 9), NEW_TOKENS)
    logits = plain.logits.clone()
    # The lowest bit of the smallest logit: no token and no printed figure would show it.
    logits.view(torch.int32)[7, int(logits[7].argmin())] ^= 1
    tally = bits.Tally()
    tally.add(plain, plain)
    assert exit_code(logit_bits.bars(tally, NEW_TOKENS)) == 0
    tally.add(replace(plain, logits=logits), plain)
    assert (tally.differing_bits, tally.differing_rows, tally.differing_tokens) == (1, 1, 0)
    assert exit_code(logit_bits.bars(tally, NEW_TOKENS)) == 1


def test_rows_of_other_tokens_are_found(path: Path) -> None:
    """Equal logits prove nothing where they are not those that the tokens came from."""
    model = load(path, "native")
    plain = bits.plain(model, make_prompt(model, 9), NEW_TOKENS)
    strange: Recording = replace(plain, logits=plain.logits.roll(1, dims=1))
    tally = bits.Tally()
    tally.add(strange, strange)
    assert tally.differing_bits == 0
    assert exit_code(logit_bits.bars(tally, NEW_TOKENS)) == 1


def test_bits_of_both_adapters_by_every_rule(path: Path) -> None:
    llms = {kind: engine(path, "native", kind) for kind in ADAPTER_KINDS}
    prompts = [make_prompt(llms["paper"].model, 9, seed) for seed in range(2)]
    tally = logit_bits.compare(llms, prompts, NEW_TOKENS)
    wanted = len(prompts) * len(llms) * len(logit_bits.RULES) * NEW_TOKENS
    assert (tally.num_tokens, tally.num_plain_tokens) == (wanted, len(prompts) * NEW_TOKENS)
    assert exit_code(logit_bits.bars(tally, wanted)) == 0
    assert exit_code(logit_bits.bars(tally, wanted + 1)) == 1


@pytest.mark.parametrize("wanted", [1, 2048, 2049, 50_000, 200_000])
def test_enough_tokens_are_planned(wanted: int) -> None:
    prompts, new_tokens = logit_bits.plan(50, 8, wanted, 944)
    assert prompts <= 50
    assert prompts * new_tokens * 8 >= wanted


@needs_llama_cpp
def test_gguf_has_the_same_weights(path: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    auto: Any = AutoModelForCausalLM
    hf_model = auto.from_pretrained(path)
    llama_cpp_peer.write_gguf(hf_model, tmp_path / "model.gguf")
    tensors = {
        t.name: torch.from_numpy(t.data.copy()) for t in GGUFReader(tmp_path / "model.gguf").tensors
    }
    weights = hf_model.model.layers[1].self_attn
    halves = SIZES["head_dim"] // 2
    for name, expected in (("attn_q", weights.q_proj.weight), ("attn_k", weights.k_proj.weight)):
        stored = tensors[f"blk.1.{name}.weight"].view(-1, halves, 2, SIZES["hidden_size"])
        assert torch.equal(stored.transpose(1, 2).reshape(expected.shape), expected)
    assert torch.equal(tensors["blk.1.attn_v.weight"], weights.v_proj.weight)
    assert "output.weight" not in tensors


def test_a_gguf_is_refused_where_it_would_be_wrong(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    auto: Any = AutoModelForCausalLM
    hf_model = auto.from_pretrained(make_checkpoint(tmp_path, "llama-yarn"))
    with pytest.raises(ValueError, match="no GGUF of a llama with yarn RoPE"):
        llama_cpp_peer.write_gguf(hf_model, tmp_path / "model.gguf")


def test_the_race(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """All that are installed; every bar is there, whoever is."""
    llms = {kind: engine(path, "native", kind) for kind in ADAPTER_KINDS}
    prompts = {str(n): make_prompt(llms["paper"].model, 9, seed=n) for n in range(3)}
    tuning, measured = split(prompts, 1)
    monkeypatch.setattr("benchmarks.racing.MAX_DEPTHS", (4,))
    monkeypatch.setattr("benchmarks.racing.CONFIDENCES", (0.5,))
    terms = cpu_race.Terms(1, NEW_TOKENS, 1, measured, tuning, compile_modes=())
    bars, record = cpu_race.decode_bars(llms, engine(path, "reference"), terms)
    verdicts = {bar.name: bar.verdict for bar in bars}
    assert verdicts["native AR over transformers compiled"] == "NOT MEASURED"
    assert verdicts["Kangaroo's runs with other ids than native AR"] == "PASS"
    rows = {row["name"]: row for row in record["results"]}
    assert rows.keys() >= {"native", "reference", "transformers", *ADAPTER_KINDS}
    if not llama_cpp_peer.absent():
        assert verdicts["logits of the GGUF"] == "PASS"
        assert rows["llama.cpp"]["num_tokens"] == len(measured) * NEW_TOKENS
    json.dumps(record)

    monkeypatch.setattr(llama_cpp_peer, "absent", lambda: ["gguf"])
    bars, record = cpu_race.decode_bars(llms, engine(path, "reference"), terms)
    assert record["missing"]["llama.cpp"] == "not installed: gguf"
    assert "not installed: gguf" in capsys.readouterr().out


def test_a_divergence_has_a_margin(path: Path) -> None:
    model = load(path, "native")
    prompt = make_prompt(model, 9)
    ours = bits.plain(model, prompt, NEW_TOKENS)
    second = int(ours.logits[5].topk(2).indices[1])
    theirs = [*ours.tokens[:5], second, *ours.tokens[6:]]
    [found] = cpu_race.divergences(
        model, {"a": prompt, "b": prompt}, [ours.tokens] * 2, [ours.tokens, theirs]
    )
    top = ours.logits[5].topk(2).values
    assert found == {"prompt": "b", "token": 5, "logit_margin": round((top[0] - top[1]).item(), 6)}


def test_rows_through_a_layer() -> None:
    kernel_set("native", TINY_PY.heads.head_dim)
    bars, record = verify_rows.verify_bars(1, context=64, sizes=TINY_PY)
    assert [bar.limit for bar in bars] == [verify_rows.LIMIT] * len(verify_rows.DTYPES)
    assert [figure["rows"] for figure in record["float32"]] == list(verify_rows.ROWS)
    json.dumps(record)


def test_a_line_is_appended_and_the_exit_code_is_that_of_the_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(given: Any) -> tuple[list[Bar], dict[str, Any]]:
        return [Bar("speed", given.repeats, 2)], {"found": 7}

    monkeypatch.setattr(cpu_decode, "verify", part)
    out = tmp_path / "results" / "cpu_decode.jsonl"
    for repeats, code in ((2, 0), (1, 1)):
        options = ["--only", "verify", "--repeats", str(repeats), "--threads", "1"]
        assert cpu_decode.main([*options, "--out", str(out)]) == code
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["bars"][0]["verdict"] for line in lines] == ["PASS", "FAIL"]
    assert lines[0].keys() >= {"commit", "device", "torch", "threads", "arguments", "verify"}


def test_the_instructions_that_are_asked_for_serve_and_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_set("native", TINY_PY.heads.head_dim)
    seen: list[str] = []

    def part(given: Any) -> tuple[list[Bar], dict[str, Any]]:
        seen.append(native.C.build_info()["isa"])
        return [], {}

    monkeypatch.setattr(cpu_decode, "verify", part)
    out, before = tmp_path / "cpu_decode.jsonl", native.C.build_info()["isa"]
    try:
        options = ["--only", "verify", "--isa", "portable", "--threads", "1"]
        cpu_decode.main([*options, "--out", str(out)])
    finally:
        native.C.select_isa(before)
    assert [*seen, json.loads(out.read_text())["isa"]] == ["portable"] * 2


@needs_llama_cpp
def test_a_peer_that_breaks_is_named_with_its_words(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise AttributeError("llama_get_memory\nand more")

    monkeypatch.setattr(cpu_race, "llama_cpp_peers", broken)
    llm, entered = engine(path, "native"), cpu_race.Field()
    terms = cpu_race.Terms(1, NEW_TOKENS, 1, {"a": [1, 2]}, {}, compile_modes=())
    assert cpu_race.enter_llama_cpp(entered, llm, terms) == {}
    assert entered.missing == {"llama.cpp": "AttributeError: llama_get_memory"}
    entered.enter("mute", {"one": broken, "two": broken}, terms)
    assert entered.missing["mute"].startswith("one: AttributeError: llama_get_memory")
    assert not entered.contestants
