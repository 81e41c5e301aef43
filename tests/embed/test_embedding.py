"""Programs that know the C ABI alone decode what the engine decodes, and draft what it drafts."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kangaroo import KangarooForCausalLM
from kangaroo.cli import app
from kangaroo.config import ADAPTER_KINDS
from kangaroo.models.adapter_io import init_adapter
from kangaroo.zoo.corpus import is_held_out
from tests.embed.conftest import PROGRAMS, Embedded
from tests.engines import FIXED
from tests.factories import edit_json, make_checkpoint

NUM_NEW, PROMPT_LEN, NUM_PROMPTS = 64, 280, 2  # prompts of more than one pass


@dataclass(frozen=True)
class Exported:
    """The same target and adapter, for the engine and for a program."""

    llm: KangarooForCausalLM
    file: Path


Export = Callable[[str, str, str], Exported]


@pytest.fixture(scope="module")
def export(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export and load export(target, adapter, dtype), each once."""
    known: dict[tuple[str, str, str], Exported] = {}

    def exported(target: str, adapter: str, dtype: str) -> Exported:
        key = (target, adapter, dtype)
        if key not in known:
            file = tmp_path_factory.mktemp("exports") / "file.safetensors"
            options = ["--model", target, "--adapter", adapter, "--dtype", dtype]
            result = CliRunner().invoke(app, ["export", *options, "--out", str(file)])
            assert result.exit_code == 0, result.stderr
            llm = KangarooForCausalLM.from_pretrained(
                target, adapter, dtype=dtype, backend="native"
            )
            known[key] = Exported(llm, file)
        return known[key]

    return exported


def held_out_texts() -> list[str]:
    """Files of the standard library that tiny-py was not trained on."""
    root = Path(sysconfig.get_path("stdlib"))
    held_out = [file for file in sorted(root.glob("*.py")) if is_held_out(file.name)]
    return [file.read_text() for file in held_out[:NUM_PROMPTS]]


def check(
    embedded: Embedded, exported: Exported, prompt: list[int], confidence: float, num_new: int
) -> None:
    """Drafting and not, both programs: the engine's ids, in the engine's rounds."""
    for max_depth in (6, 0):
        rule = FIXED | {"max_depth": max_depth, "confidence": confidence}
        rounds = exported.llm.rounds(prompt, max_new_tokens=num_new, **rule)
        expected = [token for each in rounds for token in each.tokens]
        speculation = rounds.speculation
        told = f"{speculation.num_rounds} rounds, {speculation.num_drafted} tokens drafted\n"
        for program in PROGRAMS:
            result = embedded(program, exported.file, num_new, max_depth, confidence, *prompt)
            assert (result.returncode, result.stderr) == (0, told)
            assert [int(token) for token in result.stdout.split()] == expected


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, "float32") for kind in ADAPTER_KINDS), ("deep_prefix", "bfloat16")]
)
def test_tiny_py(embedded: Embedded, export: Export, kind: str, dtype: str) -> None:
    exported = export("tiny-py", kind, dtype)
    for text in held_out_texts():
        prompt = exported.llm.tokenizer(text)["input_ids"][:PROMPT_LEN]
        assert len(prompt) == PROMPT_LEN
        check(embedded, exported, prompt, 0.4, NUM_NEW)


@pytest.mark.parametrize("family", ["llama-bias", "qwen3", "qwen2"])
def test_families(embedded: Embedded, export: Export, tmp_path: Path, family: str) -> None:
    """Biases, norms of heads, grouped queries, wide heads, tied and untied heads."""
    target = make_checkpoint(tmp_path / "target", family)
    init_adapter(target, 1, tmp_path / "adapter", "deep_prefix", seed=0)
    exported = export(str(target), str(tmp_path / "adapter"), "float32")
    check(embedded, exported, [5], 0.0, NUM_NEW)
    check(embedded, exported, list(range(3, 40)), 0.0, 219)  # the whole context


def test_ends_at_a_token_that_ends(embedded: Embedded, export: Export, tmp_path: Path) -> None:
    target = make_checkpoint(tmp_path / "target", "llama")
    init_adapter(target, 1, tmp_path / "adapter", "paper", seed=0)
    whole = KangarooForCausalLM.from_pretrained(target).rounds([5], max_new_tokens=9, max_depth=0)
    tokens = [token for each in whole for token in each.tokens]
    expected = tokens[: tokens.index(tokens[4]) + 1]
    edit_json(target / "generation_config.json", eos_token_id=[262, tokens[4]])
    exported = export(str(target), str(tmp_path / "adapter"), "float32")
    for program in PROGRAMS:
        result = embedded(program, exported.file, 9, 3, 0.0, 5)
        assert [int(token) for token in result.stdout.split()] == expected


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_wrong_is_said(
    embedded: Embedded, export: Export, tmp_path: Path, program: str
) -> None:
    good = export("tiny-py", "paper", "float32").file
    cut, other = tmp_path / "cut.safetensors", tmp_path / "other.safetensors"
    cut.write_bytes(good.read_bytes()[:-1])
    other.write_bytes(b"\2\0\0\0\0\0\0\0{}")

    def refused(why: str, *arguments: object) -> None:
        result = embedded(program, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert why in result.stderr

    refused("absent: No such file", tmp_path / "absent", 8, 6, 0.4, 5)
    refused("expected a file, got something else", tmp_path, 8, 6, 0.4, 5)
    refused("data_offsets: expected a range in", cut, 8, 6, 0.4, 5)
    refused("not an export of kangaroo", other, 8, 6, 0.4, 5)
    refused("tokens: expected 0 to 4095, got 4096", good, 8, 6, 0.4, 5, 4096, 5)
    refused("tokens: expected 0 to 4095, got -1", good, 8, 6, 0.4, -1)
    refused("NUM_NEW_TOKENS: expected 0 to 1023", good, 1024, 6, 0.4, 5)
    refused("MAX_DEPTH: expected 0 to 63", good, 8, 64, 0.4, 5)
    refused("TOKEN: expected", good, 8, 6, 0.4, "x")
    refused("CONFIDENCE: expected a number, got ''", good, 8, 6, "", 5)
    refused("usage", good, 8, 6, 0.4)
