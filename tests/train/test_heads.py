"""Medusa-1 and the EAGLE-style head, trained by the trainer and deployed from their folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo import KangarooForCausalLM
from kangaroo.config import HEAD_KINDS, DraftConfig, HeadKind
from kangaroo.costs import Cost, RoundCosts, layer_parameters
from kangaroo.draft.states import StateDrafter
from kangaroo.engine.decode import Decoder
from kangaroo.engine.decoders import Decoders
from kangaroo.engine.drafting import plain_drafter
from kangaroo.evals.subject import Subject
from kangaroo.models.eagle import Eagle
from kangaroo.models.families import model_config
from kangaroo.models.medusa import Medusa
from kangaroo.train.checkpoint import run_folder
from kangaroo.train.config import LossConfig, NewAdapter
from kangaroo.train.config_file import as_yaml, read_config
from kangaroo.train.evaluate import Judge
from kangaroo.train.heads import EagleStudent, MedusaStudent
from kangaroo.train.run import prepare
from kangaroo.train.simulate import simulate_cr
from kangaroo.train.target import FrozenTarget
from kangaroo.train.trainer import REPORT, accumulate_gradient, train_adapter
from tests.engines import CPU, decoder_of, make_prompt
from tests.train.tiny import make_config

DEPTH, NEW_TOKENS = 3, 16


@pytest.fixture(scope="module", params=HEAD_KINDS)
def trained(
    request: pytest.FixtureRequest, target: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of forty steps, interrupted after ten and resumed; its config comes from
    a file.
    """
    changes = {"adapter.kind": request.param, "optim.num_steps": 40, "checkpoint_every": 10}
    changes |= {"eval.every": 0, "optim.lr": 1e-2, "loss": LossConfig(kl=1.0)}
    config = make_config(tmp_path_factory.mktemp("run"), target, changes)
    file = config.out.with_suffix(".yaml")
    file.write_text(as_yaml(config))

    def interrupt(progress: Any) -> None:
        if progress.step == 10:
            raise KeyboardInterrupt

    assert not train_adapter(read_config(file, []), interrupt).completed
    assert run_folder(config.out).exists()
    assert train_adapter(read_config(file, [("resume", True)]), lambda progress: None).completed
    return config.out


@pytest.fixture(scope="module")
def llm(target: Path, trained: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(target, adapter=trained)


def test_training_lowers_the_loss(target: Path, llm: KangarooForCausalLM, trained: Path) -> None:
    """Of the same windows; and every parameter has its share in that."""
    module = llm.adapter
    assert module is not None
    changes = {"adapter.kind": module.config.kind, "loss": LossConfig(kl=1.0)}
    run = prepare(make_config(trained.parent, target, changes))
    fresh = accumulate_gradient(run, step=0)
    for name, p in run.student.module.named_parameters():
        assert p.grad is not None
        assert p.grad.abs().max() > 0, name
    run.student.module.load_state_dict(module.state_dict())
    assert accumulate_gradient(run, step=0) < 0.8 * fresh


def test_its_folder_drafts_what_was_trained(
    target: Path, llm: KangarooForCausalLM, trained: Path
) -> None:
    """What evaluation promises is what decoding does."""
    module = llm.adapter
    frozen = FrozenTarget.load(target, 2, torch.float32, CPU)
    student: Any = (
        MedusaStudent(module) if isinstance(module, Medusa) else EagleStudent(module, frozen)
    )
    judge = Judge(frozen, student, llm.model.rope, batch_size=2)
    prompts = [make_prompt(llm.model, 10, seed) for seed in (1, 2)]
    trace = judge.greedy_trace(torch.tensor(prompts), NEW_TOKENS, DEPTH)
    ranked = trace.confidence.flatten().sort().values
    middle = float(ranked[len(ranked) // 2 :][:2].mean())  # between two, lest rounding decide
    for confidence, max_depth in [(0.0, DEPTH), (middle, 2), (1.0, DEPTH)]:
        drafter = plain_drafter(llm.model, module, DraftConfig(1, max_depth, confidence))
        runs = [
            decoder_of(drafter).run(prompt, length)
            for prompt, length in zip(prompts, trace.num_slots, strict=True)
        ]
        num_rounds = sum(len(run.rounds) for run in runs)
        ratio, drafts = simulate_cr(trace, confidence, max_depth)
        assert ratio == pytest.approx(sum(trace.num_slots) / num_rounds)
        if confidence in (0.0, 1.0):  # else drafts behind a wrong one may be as many as they like
            assert drafts == pytest.approx(sum(run.num_drafted for run in runs) / num_rounds)
    deployed, best = llm.draft_config(), json.loads((trained / REPORT).read_text())["best"]
    assert (deployed.max_depth, deployed.confidence) == (best["max_depth"], best["confidence"])


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 3}])
def test_the_same_tokens_with_it_and_without(
    llm: KangarooForCausalLM, options: dict[str, Any]
) -> None:
    """From `generate`, one and many, and behind a prompt that was prefilled."""
    prompts = [make_prompt(llm.model, length) for length in (9, 1, 20)]
    options = options | {"max_new_tokens": 20}
    plain = llm.generate(prompts, draft="off", **options)
    bold = {"adaptive": False, "confidence": 0.0, "max_depth": DEPTH}
    assert torch.equal(llm.generate(prompts, **bold, **options), plain)
    past = llm.prefill(prompts[2][:12])
    rounds = llm.rounds(prompts[2], **bold, **options, past_key_values=past)
    own = llm.generate([prompts[2]], draft="off", **options)[0, 20:].tolist()
    assert [token for each in rounds for token in each.tokens] == own
    assert rounds.speculation.num_drafted > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draft": "tree"}, "draft: .* drafts chains alone, got 'tree'"),
        ({"exit_layer": 2}, "exit_layer: the adapter was trained for 1, got 2"),
    ],
)
def test_what_it_cannot_do(llm: KangarooForCausalLM, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        llm.rounds([1, 2], max_new_tokens=4, **options)
    if isinstance(llm.adapter, Medusa):
        with pytest.raises(ValueError, match="max_depth: expected at most 3, the number of draft"):
            llm.rounds([1, 2], max_new_tokens=4, max_depth=4)


def test_whole_rounds_on_the_device_are_kangaroos(llm: KangarooForCausalLM) -> None:
    """Where there are such, the ordinary loop serves."""
    decoders = Decoders(llm.model, llm.adapter, llm.head, runtime=pytest.fail)
    for decoder in (
        decoders.of(llm.draft_config(), sampled=False),
        decoders.of_batch(llm.draft_config(), keep_logits=False),
    ):
        assert type(decoder) is Decoder
        assert isinstance(decoder.drafter, StateDrafter)


def test_options_of_kangaroos_own(target: Path, trained: Path) -> None:
    for option in ({"draft_head": "int8"}, {"draft_vocab": [1, 2]}):
        with pytest.raises(ValueError, match="has no effect with adapter.kind"):
            KangarooForCausalLM.from_pretrained(target, adapter=trained, **option)


def test_checks_of_kangaroos_own(llm: KangarooForCausalLM) -> None:
    with pytest.raises(ValueError, match="adapter: kind: expected paper or deep_prefix, got"):
        Subject(llm, ((1, 2, 3),))


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_no_exit_layer(kind: HeadKind) -> None:
    with pytest.raises(ValueError, match=f"exit_layer: has no effect on kind '{kind}'"):
        NewAdapter(kind, exit_layer=3)


def test_cost(target: Path, llm: KangarooForCausalLM) -> None:
    """Counted from the tensors themselves."""
    config, module = model_config(target), llm.adapter
    assert module is not None
    cost, layer = Cost.of(config, module.config), layer_parameters(config)
    head = llm.model.weights.lm_head.numel()
    assert (cost.shallow, cost.deep, cost.head) == (0, 4 * layer, head)
    matrices = [p.numel() for p in module.parameters() if p.ndim == 2]
    if isinstance(module, Medusa):
        assert DEPTH * (cost.adapter + cost.head) == sum(matrices)
        assert cost.refresh == 0
    else:
        assert isinstance(module, Eagle)
        keys_and_values = module.qkv[config.num_heads * config.head_dim :].numel()
        fc = module.embed_fc.numel() + module.state_fc.numel()
        assert cost.adapter == sum(matrices)
        assert cost.refresh == fc + keys_and_values
    drafter = plain_drafter(llm.model, module, DraftConfig(1, DEPTH))
    draft = (cost.adapter + cost.head) / (cost.deep + cost.head + cost.refresh)
    assert drafter.costs() == RoundCosts(pytest.approx(draft), 0.08)
