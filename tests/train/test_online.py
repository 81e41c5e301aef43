"""An adapter that learns while its engine works: what it learns from, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, AdapterKind
from kangaroo.engine import decode
from kangaroo.models.adapter_io import load_adapter
from kangaroo.models.fingerprint import fingerprint
from kangaroo.train.config import LossConfig
from kangaroo.train.documents import Document
from kangaroo.train.online import EngineTeacher, Learner, OnlineConfig, OnlineLearner
from kangaroo.train.run import prepare
from kangaroo.train.target import FrozenTarget, States
from kangaroo.train.trainer import accumulate_gradient
from kangaroo.train.windows import WindowSet
from tests.engines import CPU, FIXED, load, make_adapter, make_medusa, make_prompt
from tests.train.tiny import make_config

EXIT_LAYER, PROMPT_LEN, NEW = 2, 6, 18


def make_llm(target: Path, kind: AdapterKind, dtype: torch.dtype = torch.float32) -> Any:
    llm = KangarooForCausalLM.from_pretrained(target, dtype=dtype)
    adapter = make_adapter(llm.model, kind, EXIT_LAYER)
    return KangarooForCausalLM(llm.model, adapter, llm.path, llm.generation_config)


def answer(llm: KangarooForCausalLM, seed: int = 0) -> Tensor:
    """A prompt and what the target writes, [PROMPT_LEN + NEW]."""
    prompt = make_prompt(llm.model, PROMPT_LEN, seed)
    options: dict[str, Any] = {"max_new_tokens": NEW, "eos_token_id": None}
    ids = llm.generate(prompt, **options, **FIXED)
    assert isinstance(ids, Tensor)
    return ids[0]


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def test_states_are_those_that_training_sees(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PREFILL_CHUNK", 7)
    model, frozen = load(target), FrozenTarget.load(target, EXIT_LAYER, torch.float32, CPU)
    ids = torch.tensor([make_prompt(model, 17)])
    own, wanted = EngineTeacher(model, EXIT_LAYER).states(ids), frozen.states(ids)
    for name in ("exit", "last", "normed", "successor"):
        found, expected = getattr(own, name), getattr(wanted, name)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=name)
    assert torch.equal(own.ids, wanted.ids)


class Noted:
    """In place of an optimiser: keeps the gradient that it is asked to step with."""

    def __init__(self, module: torch.nn.Module):
        self.module, self.param_groups = module, list[Any]()

    def step(self) -> None:
        self.gradient = gradient_of(self.module)

    def zero_grad(self) -> None:
        pass


def gradient_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_the_gradient_is_the_trainers(target: Path, tmp_path: Path, kind: AdapterKind) -> None:
    """That of the same answers as windows of one batch; each weighs by its new tokens."""
    llm = make_llm(target, kind)
    answers = [answer(llm, seed)[: PROMPT_LEN + NEW - 9 * seed] for seed in (0, 1)]
    documents = [Document(ids, torch.arange(len(ids)) >= PROMPT_LEN) for ids in answers]
    run = prepare(
        make_config(tmp_path, target, {"adapter.kind": kind, "loss": LossConfig(soft=1.0, tv=0.5)})
    )
    run = replace(run, windows=WindowSet(documents, 24, None, []))
    run.student.module.load_state_dict(llm.adapter.state_dict())
    wanted = accumulate_gradient(run, step=0)
    clip_grad_norm_(run.student.module.parameters(), 1.0)
    expected = gradient_of(run.student.module)
    noted = Noted(run.student.module)
    learner = Learner(
        run.target,
        run.student,
        run.rope,
        OnlineConfig(every=2, loss=run.config.loss),
        max_depth=run.config.adapter.max_depth,
        optimizer=noted,  # type: ignore[arg-type]
    )
    assert learner.observe(answers[0], PROMPT_LEN) is None
    assert learner.observe(answers[1].tolist(), PROMPT_LEN) == pytest.approx(wanted, rel=1e-5)
    assert noted.gradient.keys() == expected.keys() == dict(llm.adapter.named_parameters()).keys()
    for name, grad in expected.items():
        error = (noted.gradient[name] - grad).abs().max()
        assert error <= 1e-4 * grad.abs().max(), name


def test_it_learns_and_the_output_stays(target: Path) -> None:
    llm = make_llm(target, "deep_prefix")
    assert llm.adapter is not None
    before, texts = weights(llm.adapter), [answer(llm, seed) for seed in range(4)]
    learner = OnlineLearner(llm, OnlineConfig(every=4, lr=3e-3, loss=LossConfig(kl=1.0)))
    losses = list[float]()
    for _ in range(20):
        told = [learner.observe(ids, PROMPT_LEN) for ids in texts]
        assert told[:3] == [None, None, None]
        losses += [loss for loss in told if loss is not None]
    assert len(losses) == 20
    assert losses[-1] < 0.5 * losses[0]
    after, own = weights(llm.adapter), weights(learner.student.module)
    for name, p in after.items():
        assert torch.equal(p, own[name]), name
        assert not torch.equal(p, before[name]), name
    assert all(torch.equal(answer(llm, seed), ids) for seed, ids in enumerate(texts))


def test_long_sequences_are_learnt_from_at_their_ends(target: Path) -> None:
    """The same step as that of the first and the last tokens alone."""
    llm = make_llm(target, "deep_prefix")
    ids, losses = answer(llm), []
    for given, prompt_len in ((ids, PROMPT_LEN), (torch.cat([ids[:1], ids[-8:]]), 2)):
        learner = OnlineLearner(make_llm(target, "deep_prefix"), OnlineConfig(every=1, max_len=8))
        losses.append(learner.observe(given, prompt_len))
    assert losses[0] == losses[1]


def test_it_learns_where_gradients_are_off_and_in_the_engines_dtype(target: Path) -> None:
    llm = make_llm(target, "deep_prefix", torch.bfloat16)
    with torch.inference_mode():
        learner = OnlineLearner(llm, OnlineConfig(every=1))
        learner.observe(answer(llm), PROMPT_LEN)
    own = weights(learner.student.module)
    for name, p in weights(llm.adapter).items():
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, own[name].bfloat16()), name
    assert own["qkv"].dtype == torch.float32


def test_what_was_learnt_is_saved(target: Path, tmp_path: Path) -> None:
    llm = make_llm(target, "paper")
    learner = OnlineLearner(llm, OnlineConfig(every=1))
    learner.observe(answer(llm), PROMPT_LEN)
    learner.save(f"{tmp_path}/learnt")
    marks = fingerprint(target, EXIT_LAYER)
    found = load_adapter(tmp_path / "learnt", torch.float32, CPU, marks)
    assert found.config == llm.adapter.config
    for name, p in weights(found).items():
        assert torch.equal(p, llm.adapter.get_parameter(name)), name


def test_a_loss_that_is_not_finite_changes_nothing(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = make_llm(target, "paper")
    learner, ids = OnlineLearner(llm, OnlineConfig(every=1)), answer(llm)
    learner.observe(ids, PROMPT_LEN)
    before, states = weights(llm.adapter), learner.teacher.states

    def broken(ids: Tensor) -> States:
        return replace(states(ids), exit=torch.full_like(states(ids).exit, torch.nan))

    with monkeypatch.context() as patch:
        patch.setattr(learner.teacher, "states", broken)
        with pytest.raises(FloatingPointError, match="loss: expected a finite number, got nan"):
            learner.observe(ids, PROMPT_LEN)
    for module in (llm.adapter, learner.student.module):
        assert all(torch.equal(p, before[name]) for name, p in weights(module).items())
    assert learner.observe(ids, PROMPT_LEN) is not None
    assert all(p.isfinite().all() for p in llm.adapter.parameters())


def test_a_first_loss_that_is_not_finite_leaves_nothing_behind(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of exit states, by which steps are scaled, is that of a sequence that counts."""
    llm = make_llm(target, "paper")
    learner, ids = OnlineLearner(llm, OnlineConfig(every=1)), answer(llm)
    states = learner.teacher.states
    with monkeypatch.context() as patch:
        patch.setattr(
            learner.teacher, "states", lambda ids: replace(states(ids), exit=states(ids).exit / 0)
        )
        with pytest.raises(FloatingPointError, match="loss: expected a finite number"):
            learner.observe(ids, PROMPT_LEN)
    learner.observe(ids, PROMPT_LEN)
    assert all(p.isfinite().all() for p in llm.adapter.parameters())


@pytest.mark.parametrize(
    ("ids", "prompt_len", "words"),
    [
        ([[5, 6, 7]], 1, r"token_ids: expected one sequence \[T\], got \[1, 3\]"),
        ([5, 6], 0, "prompt_len: expected 1 to 1, got 0"),
        ([5, 6], 2, "prompt_len: expected 1 to 1, got 2"),
        ([5, 263], 1, r"token_ids: expected numbers in \[0, 263\), got"),
        ([-1, 5], 1, r"token_ids: expected numbers in \[0, 263\), got"),
    ],
)
def test_bad_sequences_are_refused(
    target: Path, ids: list[Any], prompt_len: int, words: str
) -> None:
    learner = OnlineLearner(make_llm(target, "paper"), OnlineConfig(every=1))
    with pytest.raises(ValueError, match=words):
        learner.observe(ids, prompt_len)
    with pytest.raises(ValueError, match="learn: expected a sequence that waits, got none"):
        learner.learn()


def test_engines_that_cannot_learn_are_refused(target: Path) -> None:
    llm = KangarooForCausalLM.from_pretrained(target)
    with pytest.raises(ValueError, match="adapter: expected one that can learn, got none"):
        OnlineLearner(llm)
    medusa = KangarooForCausalLM(llm.model, make_medusa(llm.model), llm.path, llm.generation_config)
    with pytest.raises(ValueError, match="kind: expected paper or deep_prefix, got medusa"):
        OnlineLearner(medusa)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every: expected at least 1, got 0"),
        ({"max_len": 1}, "max_len: expected at least 2, got 1"),
        ({"lr": 0.0}, "lr: expected more than 0, got 0.0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OnlineConfig(**options)
