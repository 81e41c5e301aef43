"""Sampling with a real model: transformers' processors on every row, and seeds that settle all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from kangaroo import KangarooForCausalLM
from kangaroo.config import DRAFT_SAMPLINGS
from kangaroo.engine.llm import GenerateOutput
from kangaroo.sampling.penalties import CountPenalty
from kangaroo.sampling.sampler import Sampler
from kangaroo_kernels import UnsupportedError
from tests.engines import FIXED

PROMPT = [5, 30, 6, 30, 7]
TREE = FIXED | {"draft": "tree", "draft_top_k": 3, "max_nodes": 9, "max_depth": 3}
SHAPINGS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": [[30], [6, 7]]},
    {"sequence_bias": {(11,): 4.0, (11, 12): 6.0}},
    {"suppress_tokens": list(range(100)), "begin_suppress_tokens": [150, 151]},
    {"min_new_tokens": 6, "eos_token_id": list(range(2, 200))},
    {"min_length": 9, "eos_token_id": list(range(2, 200))},
    {"exponential_decay_length_penalty": (3, 1.5), "eos_token_id": [40]},
    {"forced_eos_token_id": 44},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "remove_invalid_values": True},
]
WARPS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"top_k": 5},
    {"top_p": 0.4, "top_k": 0},
    {"min_p": 0.3},
    {"typical_p": 0.5},
    {"top_h": 0.5},
    {"epsilon_cutoff": 0.004},
    {"eta_cutoff": 0.05},
    {"temperature": 2.0, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.4},
    {"temperature": 0.7, "renormalize_logits": True, "bad_words_ids": [[30]]},
]


class Bumps(LogitsProcessor):
    """Keeps count of its calls, which no function of its arguments could know."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += 1
        assert input_ids.shape[1] == len(PROMPT) + self.calls - 1  # in order, none left out
        return scores.roll(self.calls, dims=-1)


def allowed(batch: int, ids: Tensor) -> list[int]:
    return [10, 11, 12] if ids[-1] % 2 else [20, 21, 23]


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "deep_prefix")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def new_ids(llm: KangarooForCausalLM, **options: Any) -> list[int]:
    options = {"max_new_tokens": 12, "eos_token_id": None} | options
    return torch.as_tensor(llm.generate(PROMPT, **options))[0, len(PROMPT) :].tolist()


def sample(llm: KangarooForCausalLM, seed: int, **options: Any) -> list[int]:
    return new_ids(llm, do_sample=True, seed=seed, **options)


@pytest.mark.parametrize("options", SHAPINGS, ids=lambda options: "-".join(options))
@pytest.mark.parametrize("max_depth", [0, 3])
def test_greedy_decoding_with_processors_is_transformers(
    llm: KangarooForCausalLM, theirs: Any, options: dict[str, Any], max_depth: int
) -> None:
    options = {"max_new_tokens": 12, "eos_token_id": None, "do_sample": False} | options
    expected = theirs.generate(torch.tensor([PROMPT]), **options)
    assert torch.as_tensor(llm.generate(PROMPT, max_depth=max_depth, **options)).equal(expected)


@pytest.mark.parametrize("max_depth", [0, 3])
def test_processors_of_ones_own(llm: KangarooForCausalLM, theirs: Any, max_depth: int) -> None:
    """Those that keep state too: they are called once for every token that is written."""
    options: dict[str, Any] = {"max_new_tokens": 12, "eos_token_id": None, "do_sample": False}
    prompt = torch.tensor([PROMPT])
    for make in (
        lambda: {"logits_processor": LogitsProcessorList([Bumps()])},
        lambda: {"prefix_allowed_tokens_fn": allowed},
    ):
        draft = FIXED | {"max_depth": max_depth, "confidence": 0.0}
        ours = llm.generate(prompt, **draft, **make(), **options)
        assert torch.as_tensor(ours).equal(theirs.generate(prompt, **make(), **options))


def test_penalties_on_counts(llm: KangarooForCausalLM, theirs: Any) -> None:
    """The arithmetic, and the same tokens as transformers'."""
    ids = torch.tensor([[7, 1, 2, 2, 3, 2]])
    got = CountPenalty(1, presence=0.5, frequency=0.25)(ids, torch.zeros(1, 5))
    assert got.tolist() == [[0, -0.75, -1.25, -0.75, 0]]
    penalty = [CountPenalty(len(PROMPT), presence=1.5, frequency=0.5)]
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    prompt = torch.tensor([PROMPT])
    expected = theirs.generate(prompt, logits_processor=LogitsProcessorList(penalty), **options)
    for given in (
        {"logits_processor": penalty},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5, "draft": "tree"},
    ):
        ours = llm.generate(prompt, **given, **options)
        assert torch.as_tensor(ours).equal(expected)


@pytest.mark.parametrize("options", WARPS, ids=lambda options: "-".join(options) or "plain")
def test_every_row_is_shaped_as_in_transformers(
    llm: KangarooForCausalLM,
    theirs: Any,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    """Row by row of the target, with drafts rejected in between. Beside them is a processor that
    changes nothing, for kernels know none.
    """
    rows: dict[int, Tensor] = {}
    plain_row = Sampler.row

    def row(self: Sampler, processors: Any, ids: list[int], *logits: Any) -> Tensor:
        made = plain_row(self, processors, ids, *logits)
        if processors is self.target:
            rows[len(ids)] = made[0].clone()
        return made

    monkeypatch.setattr(Sampler, "row", row)
    own = {"logits_processor": [lambda ids, scores: scores]}
    new = sample(llm, 3, max_depth=3, confidence=0.0, **FIXED, **own, **options)
    sequence = torch.tensor([PROMPT + new])
    config = theirs._prepare_generation_config(None, do_sample=True, **options)[0]
    theirs._prepare_special_tokens(config, device="cpu")
    shape = theirs._get_logits_processor(config, input_ids_seq_length=len(PROMPT), device="cpu")
    with torch.no_grad():
        logits = theirs(sequence).logits.float()
    for position in range(len(PROMPT), len(PROMPT) + len(new)):
        ids = sequence[:, :position]
        expected = shape(ids, logits[:, position - 1].clone()).softmax(-1)[0]
        torch.testing.assert_close(rows[position].float(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rule", DRAFT_SAMPLINGS)
@pytest.mark.parametrize(
    "draft", [{"max_depth": 0}, FIXED | {"max_depth": 1}, FIXED | {"max_depth": 4}, TREE]
)
def test_a_seed_settles_everything(
    llm: KangarooForCausalLM, draft: dict[str, Any], rule: str
) -> None:
    """Nothing else does: no other call, and no generator of torch's."""
    options = {"confidence": 0.0, "draft_sampling": rule} | draft
    first = sample(llm, 1, **options)
    torch.manual_seed(99)
    assert sample(llm, 2, **options) != first
    assert sample(llm, 1, **options) == first


RULES: list[dict[str, Any]] = [
    {"max_depth": 6, "confidence": 0.0, "adaptive": True},
    FIXED | {"max_depth": 1},
    FIXED | {"max_depth": 6, "confidence": 0.0},
    FIXED | {"max_depth": 4, "confidence": 0.01},
    TREE,
    {"draft": "tree", "tree_widths": [3, 2, 1]},
]


@pytest.mark.parametrize("adapter", ["paper", "deep_prefix"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.4, "top_p": 0.9}, WARPS[-2]], ids=str)
def test_no_draft_changes_a_token(folder: Path, adapter: str, options: dict[str, Any]) -> None:
    """Of several sequences with one seed: all as without drafting, and not because none is kept."""
    llm = KangarooForCausalLM.from_pretrained(folder, adapter)
    options = {"do_sample": True, "seed": 3, "num_return_sequences": 3} | options
    options |= {"max_new_tokens": 20, "eos_token_id": None, "return_dict_in_generate": True}
    plain = llm.generate(PROMPT, draft="off", **options)
    num_accepted = 0
    for rule in RULES:
        output = llm.generate(PROMPT, **rule, **options)
        assert output.sequences.equal(plain.sequences), rule  # type: ignore[union-attr]
        num_accepted += output.speculation.num_accepted  # type: ignore[union-attr]
    assert num_accepted > 0


def test_by_rejection_drafts_change_tokens(llm: KangarooForCausalLM) -> None:
    """So what the test above sees is the coupled rule's doing."""
    runs = [
        sample(llm, 3, draft_sampling="rejection", max_depth=depth, confidence=0.0)
        for depth in (0, 1, 4)
    ]
    assert len(set(map(tuple, runs))) > 1
    assert sample(llm, 3, draft="off") not in runs


def test_without_a_seed_torchs_generator_settles_it(llm: KangarooForCausalLM) -> None:
    def draw(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return new_ids(llm, do_sample=True)

    assert draw(5) == draw(5) != draw(6)


@pytest.mark.parametrize("rule", DRAFT_SAMPLINGS)
@pytest.mark.parametrize("draft", [{"max_depth": 0}, {"max_depth": 3}, TREE])
def test_the_best_of_one_is_greedy(
    llm: KangarooForCausalLM, draft: dict[str, Any], rule: str
) -> None:
    assert sample(llm, 4, top_k=1, draft_sampling=rule, **draft) == new_ids(llm)


def test_an_end_of_sequence_token_ends_it(llm: KangarooForCausalLM) -> None:
    full = sample(llm, 8, max_depth=3, confidence=0.0)
    for end in (full[0], full[5], full[9]):
        cut = sample(llm, 8, max_depth=3, confidence=0.0, eos_token_id=end)
        assert cut == full[: full.index(end) + 1]


def test_several_sequences(llm: KangarooForCausalLM) -> None:
    """Independent, of different lengths, the first as if it were alone."""
    options: dict[str, Any] = {"do_sample": True, "seed": 6, "max_new_tokens": 12}
    options |= {"eos_token_id": list(range(2, 40)), "pad_token_id": 1, "suppress_tokens": [1]}
    output = llm.generate(PROMPT, num_return_sequences=4, return_dict_in_generate=True, **options)
    assert isinstance(output, GenerateOutput)
    assert output.sequences is not None
    assert output.speculation is not None
    rows = output.sequences.tolist()
    alone = torch.as_tensor(llm.generate(PROMPT, **options))[0].tolist()
    assert rows[0][: len(alone)] == alone
    assert len({tuple(row) for row in rows}) == 4
    lens = [len(row) - row.count(1) for row in rows]
    assert len(set(lens)) > 1
    assert all(set(row[length:]) <= {1} for row, length in zip(rows, lens, strict=True))
    assert output.speculation.num_tokens == sum(lens) - 4 * len(PROMPT)
    for call in (
        lambda: llm.rounds(PROMPT, num_return_sequences=4, **options),
        lambda: llm.generate(PROMPT, num_return_sequences=4, streamer=Silent(), **options),
    ):
        with pytest.raises(UnsupportedError, match="expected one sequence .* got 4"):
            call()


class Silent(BaseStreamer):
    """Prints nothing."""

    def put(self, value: Tensor) -> None:
        pass

    def end(self) -> None:
        pass
