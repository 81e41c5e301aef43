"""Documents that share a window are to target and adapter what each is alone."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterConfig, AdapterKind
from kangaroo.models.adapter import Adapter, VerifiedStates
from kangaroo.models.families import model_config
from kangaroo.models.llama import rope_table
from kangaroo.train.config import LossConfig
from kangaroo.train.documents import Document
from kangaroo.train.forward import draft_hidden, full_sequence
from kangaroo.train.loss import vocabulary_loss
from kangaroo.train.run import exit_scale, prepare
from kangaroo.train.target import FrozenTarget
from kangaroo.train.trainer import accumulate_gradient, deltas_of
from kangaroo.train.windows import Windows, WindowSet
from tests.engines import CPU
from tests.factories import make_checkpoint
from tests.train.tiny import make_config, write_jsonl

BOS, EOS, EXIT_LAYER = 1, 2, 2


def conversations() -> list[Document]:
    """Of 5 to 29 tokens; the first half of each is a question."""
    generator = torch.Generator().manual_seed(0)
    documents = []
    for length in (29, 8, 12, 5, 20, 17, 9):
        ids = torch.randint(3, 263, (length,), generator=generator)
        ids[0], ids[-1] = BOS, EOS
        documents.append(Document(ids, torch.arange(length) >= length // 2))
    return documents


def apart(windows: Windows) -> list[Windows]:
    """Every document of every window in a window of its own."""
    found = []
    for row, positions in enumerate(windows.positions):
        begins = [*(positions == 0).nonzero().flatten().tolist(), len(positions)]
        for start, stop in pairwise(begins):
            place = slice(row, row + 1), slice(start, stop)
            ids, mask = windows.ids[place], windows.mask[place]
            found.append(Windows(ids, mask, windows.positions[place]))
    return found


def loss_and_gradient(
    target: FrozenTarget, adapter: Adapter, rope: Tensor, windows: Windows, delta: int
) -> tuple[float, Tensor]:
    """Nothing is said of positions where the window is one document."""
    adapter.zero_grad()
    packed = bool((windows.positions[:, 1:] == 0).any())
    states = target.states(windows.ids, windows.positions if packed else None)
    seen = VerifiedStates(states.exit, states.last, states.successor)
    out = full_sequence(adapter, seen, rope, delta=delta, positions=states.positions)
    draft = draft_hidden(adapter, out[windows.mask])
    normed = states.normed[windows.mask]
    loss = vocabulary_loss(draft, normed, target.head, LossConfig(soft=1.0))
    loss.backward()
    gradients = [p.grad.flatten() for p in adapter.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_loss_and_gradient_are_the_sums_over_documents(target: Path, kind: AdapterKind) -> None:
    frozen, config = FrozenTarget.load(target, EXIT_LAYER, torch.float32, CPU), model_config(target)
    adapter = Adapter(AdapterConfig.for_target(config, kind, EXIT_LAYER))
    adapter.reset(0)
    adapter.o.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    packed = WindowSet(conversations(), 32, BOS, [EOS]).evenly()
    assert len(packed) == 4
    assert ((packed.positions == 0).sum(1) > 1).all()
    for delta in (1, 3):
        state = frozen, adapter, rope_table(config, CPU)
        loss, gradient = loss_and_gradient(*state, packed, delta)
        losses, gradients = zip(
            *(
                loss_and_gradient(*state, alone, delta)
                for alone in apart(packed)
                if alone.mask.any()
            ),
            strict=True,
        )
        assert len(losses) == 7
        assert loss == pytest.approx(sum(losses), rel=1e-5)
        total = torch.stack(gradients).sum(0)
        assert (gradient - total).abs().max() <= 1e-4 * total.abs().max()


@pytest.mark.parametrize("family", ["llama-gqa-llama3", "mistral", "qwen2", "qwen3"])
def test_states_of_a_document_do_not_know_its_neighbours(tmp_path: Path, family: str) -> None:
    frozen = FrozenTarget.load(make_checkpoint(tmp_path, family), EXIT_LAYER, torch.float32, CPU)
    packed = WindowSet(conversations(), 32, BOS, [EOS]).evenly()
    together = frozen.states(packed.ids, packed.positions)
    alone = [frozen.states(document.ids) for document in apart(packed)]
    for name in ("exit", "last", "normed"):
        joined = torch.cat([getattr(states, name)[0] for states in alone])
        found = getattr(together, name).flatten(0, 1)
        torch.testing.assert_close(found, joined, rtol=1e-4, atol=1e-4)


def test_a_run_steps_and_judges_documents_apart(target: Path, tmp_path: Path) -> None:
    lines = [{"input_ids": d.ids.tolist(), "loss_mask": d.answer.tolist()} for d in conversations()]
    data = write_jsonl(tmp_path / "masked.jsonl", lines)
    changes = {"data": data, "windows.seq_len": 32, "eval.prompt_len": 2}
    config = make_config(tmp_path, target, changes)
    run = prepare(config)
    adapter = run.student.module
    assert isinstance(adapter, Adapter)
    adapter.o.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    windows = run.windows.sample(0, config.windows.batch_size)
    documents = [document for document in apart(windows) if document.mask.any()]
    assert len(documents) > config.windows.batch_size
    step = run.target, adapter, run.rope
    (delta,) = deltas_of(run.student, config.adapter.max_depth, config.seed, 0)
    num_slots = int(windows.mask.sum())
    losses = [loss_and_gradient(*step, document, delta)[0] for document in documents]
    adapter.zero_grad()
    assert accumulate_gradient(run, 0) == pytest.approx(sum(losses) / num_slots, rel=1e-5)
    together = run.judge.teacher_forced(windows, [1, 3])
    scores = [run.judge.teacher_forced(document, [1, 3]) for document in documents]
    for n in range(2):
        confidence = sum(s.confidence[n] * s.num_slots for s in scores) / num_slots
        assert together.confidence[n] == pytest.approx(confidence, rel=1e-5)
    for window in (windows[:1], windows[1:]):
        alone = [run.target.states(d.ids).exit[d.mask] for d in apart(window)]
        median = torch.cat(alone).square().mean(-1).sqrt().median().item()
        states = run.target.states(window.ids, window.positions)
        assert exit_scale(states, window.mask).item() == pytest.approx(median, rel=1e-5)
