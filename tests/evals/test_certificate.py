"""A certificate passes where the engine is whole, and names the promise that a fault breaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo import KangarooForCausalLM
from kangaroo.engine import decode
from kangaroo.engine.loading import TINY_PY
from kangaroo.evals import checks, margins
from kangaroo.evals.certificate import CHECKS, certify, identity
from kangaroo.evals.subject import Settings, Subject
from kangaroo.models.llama import Llama
from kangaroo_kernels.draws import Draws
from tests.factories import edit_tensors
from tests.folders import make_folder

PROMPTS = ((5, 30, 6, 30, 7), (150, 158, 222, 13, 59, 160, 163))
SETTINGS = Settings(max_new_tokens=8, seed=3, num_draws=50)
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "deep_prefix")


def verdicts(certificate: dict[str, Any]) -> dict[str, str]:
    return {name: check["verdict"] for name, check in certificate["checks"].items()}


def failed(llm: KangarooForCausalLM) -> set[str]:
    """The checks that fail."""
    certificate = certify(Subject(llm, PROMPTS[:1], SETTINGS), {})
    found = {name for name, verdict in verdicts(certificate).items() if verdict != "pass"}
    assert certificate["verdict"] == ("fail" if found else "pass")
    assert len(certificate["claims"]) == len(CHECKS) - len(found)
    drafting = "not verified: logits fail" if "logits" in found else "verified"
    assert certificate["drafting"] == drafting
    for name in found:
        assert certificate["checks"][name]["failures"]
    json.dumps(certificate)
    return found


# Where everything is as promised.


@pytest.mark.parametrize("kind", ["paper", "deep_prefix"])
def test_a_sound_engine_passes(folder: Path, kind: str) -> None:
    """And every check has compared something, with drafts accepted and refused."""
    llm = KangarooForCausalLM.from_pretrained(folder, kind)
    names: list[str] = []
    certificate = certify(Subject(llm, PROMPTS, SETTINGS), identity(folder, kind), names.append)
    assert verdicts(certificate) == dict.fromkeys(CHECKS, "pass")
    assert (certificate["verdict"], certificate["drafting"]) == ("pass", "verified")
    assert names == list(CHECKS)
    counts = {name: check["counts"] for name, check in certificate["checks"].items()}
    assert counts["greedy"]["tokens"] == 2 * 3 * 8
    assert counts["logits"]["num_tokens"] == 2 * counts["logits"]["rules"] * 8
    assert counts["logits"]["num_drafted"] > counts["logits"]["num_tokens"]
    assert counts["law"]["tests"] == 6
    assert 0 < counts["law"]["accepted"] < counts["law"]["drafted"]
    assert all(number >= 6 for number in counts["stops"].values())
    assert counts["seeds"]["runs"] == 2 * 3 * 5
    assert certificate["engine"]["kernels"]["linear"] in ("native", "reference")
    assert certificate["adapter"]["kind"] == kind
    assert len(certificate["target"]["weights"]) == 64


def test_tiny_py_passes() -> None:
    llm = KangarooForCausalLM.from_pretrained(TINY_PY)
    prompt = tuple(llm.tokenizer("def add(a, b):\n")["input_ids"])
    certificate = certify(Subject(llm, (prompt,), Settings(16, 0, 25)), {})
    assert verdicts(certificate) == dict.fromkeys(CHECKS, "pass")


def test_without_an_adapter_nothing_is_said_about_drafting(folder: Path) -> None:
    llm = KangarooForCausalLM.from_pretrained(folder)
    certificate = certify(Subject(llm, PROMPTS, SETTINGS), identity(folder, None))
    assert verdicts(certificate) == dict.fromkeys(CHECKS, "pass") | {"logits": "not run"}
    assert certificate["verdict"] == "pass"
    assert certificate["drafting"].startswith("not verified: there is no adapter")
    assert certificate["adapter"] is None
    assert certificate["settings"]["drafting"] == ["off"]
    assert not any("draft" in claim for claim in certificate["claims"])


def test_nothing_drafted_is_no_pass(llm: KangarooForCausalLM) -> None:
    """One token leaves no room for a draft."""
    certificate = certify(Subject(llm, PROMPTS, replace(SETTINGS, max_new_tokens=1)), {})
    found = certificate["checks"]["logits"]
    assert (found["verdict"], found["counts"]["num_drafted"]) == ("not run", 0)
    expected = "not verified: nothing was drafted with max_new_tokens=1"
    assert certificate["drafting"] == expected
    assert not any("draft" in claim for claim in certificate["claims"])


def test_ends_that_were_not_tried_are_no_pass(llm: KangarooForCausalLM, monkeypatch: Patch) -> None:
    """No text of this continuation will do for a stop string."""
    monkeypatch.setattr(checks, "UNFINISHED", "")  # which every text holds
    found = checks.stops(Subject(llm, PROMPTS[:1], SETTINGS))
    assert (found.verdict, found.not_run) == ("not run", "nothing was tried of: stop strings")
    assert found.counts["stop_strings"] == 0 < found.counts["eos_token_id"]


def test_other_weights_are_another_target(folder: Path, tmp_path: Path) -> None:
    """The deep layers too, which no adapter's fingerprint has in it."""
    same = make_folder(tmp_path / "same")
    assert identity(same, None)["target"]["weights"] == identity(folder, None)["target"]["weights"]
    edit_tensors(
        same / "model.safetensors", lambda t: t["model.layers.1.mlp.up_proj.weight"].neg_()
    )
    about = identity(same, None)["target"]
    assert about["shallow_layers"] == identity(folder, None)["target"]["shallow_layers"]
    assert about["weights"] != identity(folder, None)["target"]["weights"]


# Faults, one in each place.


def test_kernels_whose_bits_depend_on_the_number_of_rows(
    llm: KangarooForCausalLM, monkeypatch: Patch
) -> None:
    """No token is another one; only the bits tell."""
    sound = Llama.logits

    def logits(self: Llama, h: Tensor) -> Tensor:
        return sound(self, h) * (1 + 2e-7 * (h.shape[1] > 1))

    monkeypatch.setattr(Llama, "logits", logits)
    assert failed(llm) == {"logits"}


def test_a_target_that_is_another(llm: KangarooForCausalLM, monkeypatch: Patch) -> None:
    """The same wrong logits in every way of decoding: transformers alone can tell."""
    sound = Llama.logits
    monkeypatch.setattr(Llama, "logits", lambda self, h: sound(self, h.flip(-1)))
    assert failed(llm) == {"greedy"}


def test_drafts_that_are_believed(llm: KangarooForCausalLM) -> None:
    sound = llm.model.kernels.verify_tree

    def verify_tree(logits: Tensor, tokens: Tensor, parents: Tensor, **rest: Any) -> Any:
        verdict = sound(logits, tokens, parents, **rest)
        alone = len(tokens) == 1  # beside others node 1 may be padding
        if alone and tokens.shape[1] > 1 and int(verdict.path_len) == 1:
            verdict.path[0, 1] = 1
            verdict = verdict._replace(path_len=verdict.path_len + 1)
        return verdict

    with served_by(llm, verify_tree=verify_tree):
        assert failed(llm) >= {"greedy", "logits", "stops"}


@contextmanager
def served_by(llm: KangarooForCausalLM, **ops: Any) -> Iterator[None]:
    """With other functions in place of some of its kernels."""
    kernels = llm.model.kernels
    llm.model.kernels = replace(kernels, **ops)
    try:
        yield
    finally:
        llm.model.kernels = kernels


def drawn_otherwise(llm: KangarooForCausalLM, change: Callable[[Draws], Draws]) -> set[str]:
    """The checks that fail where kernels read other draws than those they are given."""
    sound = llm.model.kernels.draw_tokens

    def draw_tokens(logits: Tensor, draws: Draws, *rest: Any, **options: Any) -> Any:
        return sound(logits, change(draws), *rest, **options)

    with served_by(llm, draw_tokens=draw_tokens):
        return failed(llm)


def test_a_sampler_that_is_biased(llm: KangarooForCausalLM) -> None:
    """It draws from sharper rows than it was asked for."""
    change = lambda draws: draws._replace(temperature=draws.temperature / 10)  # noqa: E731
    assert drawn_otherwise(llm, change) == {"law"}


def test_seeds_that_settle_nothing(llm: KangarooForCausalLM) -> None:
    """Other ones in every call, or the same for all."""
    no_seed = lambda d: d._replace(seed=torch.randint_like(d.seed, 2**53))  # noqa: E731
    one_seed = lambda d: d._replace(seed=torch.ones_like(d.seed))  # noqa: E731
    for change in (no_seed, one_seed):
        assert drawn_otherwise(llm, change) == {"seeds"}


def test_a_stop_that_is_late(llm: KangarooForCausalLM, monkeypatch: Patch) -> None:
    """With drafting on as off."""
    sound = decode.until

    def late(history: list[int], tokens: list[int], *rest: Any) -> tuple[list[int], bool]:
        kept, ended = sound(history, tokens, *rest)
        return tokens[: len(kept) + 1], ended

    monkeypatch.setattr(decode, "until", late)
    assert failed(llm) == {"stops"}


# Where ids part from those of transformers.


def test_margins() -> None:
    exact = torch.tensor([1.0, 1.5, 0.0], dtype=torch.float64)
    logits = torch.tensor([1.25, 1.375, 0.0])
    margins_of_both = {"margin": 0.5, "their_margin": 0.0, "bound": 0.5}
    assert margins.margin(exact, logits, 0, 1) == margins_of_both | {"certified": True}
    assert not margins.margin(exact, logits, 2, 1)["certified"]
    assert not margins.margin(exact, exact, 0, 1)["certified"]
    assert margins.margin(exact, exact, 1, 1)["certified"]


@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [
        ([1, 2], [1, 2], None),
        ([1, 2], [1, 3], 1),
        ([1], [1, 3], 1),
        ([1, 2], [1], 1),
        ([], [], None),
    ],
)
def test_the_first_difference(ours: list[int], theirs: list[int], place: int | None) -> None:
    assert margins.first_difference(ours, theirs) == place


def test_near_ties_in_16_bits_are_certified(folder: Path, monkeypatch: Patch) -> None:
    """Many short prompts, so that ids part somewhere; wrong logits are not excused by rounding."""
    llm = KangarooForCausalLM.from_pretrained(folder, dtype="bfloat16")
    prompts = tuple((token, token + 1, 5) for token in range(10, 250, 4))
    subject = Subject(llm, prompts, Settings(max_new_tokens=8))
    found = margins.greedy_equality(subject)
    assert found.verdict == "pass"
    assert found.counts["divergences"] == found.counts["certified"] == len(found.remarks) > 0
    for remark in found.remarks:
        assert 0 <= remark["margin"] <= remark["bound"]
        assert 0 <= remark["their_margin"] <= remark["bound"]
    sound = Llama.logits
    monkeypatch.setattr(Llama, "logits", lambda self, h: sound(self, 1.5 * h + 0.5 * h.roll(1, -1)))
    assert margins.greedy_equality(subject).verdict == "fail"


@pytest.mark.parametrize("length", [3, 9])
def test_that_one_of_them_ends_is_no_near_tie(
    llm: KangarooForCausalLM, monkeypatch: Patch, length: int
) -> None:
    sound: Callable[..., tuple[list[int], Tensor]] = margins.Transformers.greedy

    def greedy(
        self: margins.Transformers, prompt: Sequence[int], n: int
    ) -> tuple[list[int], Tensor]:
        return sound(self, prompt, length)

    monkeypatch.setattr(margins.Transformers, "greedy", greedy)
    found = margins.greedy_equality(Subject(llm, PROMPTS[:1], Settings(max_new_tokens=6)))
    assert found.verdict == "fail"
    assert found.failures[0]["lengths"] == {"ours": min(length + 1, 6), "theirs": min(length, 7)}
