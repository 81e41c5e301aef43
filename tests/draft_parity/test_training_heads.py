"""What Medusa-1 and the EAGLE-style head learn from is what their drafters compute, in packed
windows too.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.eagle import EagleDrafter
from kangaroo.draft.medusa import MedusaDrafter
from kangaroo.draft.states import StateDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import Request
from kangaroo.models.llama import Llama
from kangaroo.train import heads
from kangaroo.train.heads import EagleStudent, MedusaStudent
from kangaroo.train.target import FrozenTarget, States
from tests.engines import CPU, SMALL, load, make_eagle, make_medusa
from tests.factories import make_checkpoint
from tests.sampling.test_mutants import mutated

DEPTH, LENGTHS = 5, (3, 70, 1, 2, 9)  # of documents; one is longer than a KV_CHUNK
DELTAS = range(1, DEPTH + 1)
CONFIG = DraftConfig(1, max_depth=DEPTH, confidence=0.0)
FAMILIES = ("llama-gqa-llama3", "qwen2", "qwen3")
KINDS = [("medusa", FAMILIES[0]), *(("eagle", family) for family in FAMILIES)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The drafter and the student of the same weights."""
    kind, family = request.param
    path: Path = make_checkpoint(tmp_path_factory.mktemp("target"), family, **SMALL)
    model, target = load(path), FrozenTarget.load(path, 1, torch.float32, CPU)
    if kind == "medusa":
        medusa = make_medusa(model, DEPTH)
        return MedusaDrafter(model, CONFIG, medusa), MedusaStudent(medusa)
    eagle = make_eagle(model)
    return EagleDrafter(model, CONFIG, eagle), EagleStudent(eagle, target)


def packed(model: Llama) -> States:
    """Random states of documents in a row; exit states are not read."""
    generator = torch.Generator().manual_seed(0)
    shape = 1, sum(LENGTHS), model.config.hidden_size
    last = torch.empty(shape).normal_(0.0, 3.0, generator=generator)
    weights, eps = model.weights, model.config.rms_norm_eps
    normed = F.rms_norm(last, weights.norm.shape, weights.norm, eps)
    ids = torch.randint(model.config.vocab_size, shape[:2], generator=generator)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    unread = torch.full(shape, torch.nan)
    return States(unread, last, normed, ids, unread, positions)


def taught(both: Any, states: States) -> Tensor:
    """What every slot's head reads, by delta: [D, T, C]."""
    drafter, student = both
    rope = drafter.model.rope.to(states.last.dtype)
    return torch.stack([out[0] for out in student.hidden(states, rope, DELTAS)])


def drafted(drafter: StateDrafter, ids: list[int], last: Tensor, root: int) -> Iterator[Tensor]:
    """The engine's, for deltas 1, 2, ...: of a document [T] whose last states are [T, C], behind
    slot `root`; the tokens are drafted as they stand there.
    """
    state = Decoder(drafter.model, drafter, CONFIG).new_state(1, len(ids))
    state.requests.append(Request(ids[: root + 1], 0))
    state.settle([0], [0])
    if root:
        drafter.prefill(state, last[None, :root], last[None, :root])
        state.settle([root], [root])
    tree = DraftTree.root(ids[root])
    for token in [*ids[root + 1 :], 0][:DEPTH]:
        h = drafter.states(state, [tree])
        if isinstance(drafter, EagleDrafter):
            weights, eps = drafter.model.weights, drafter.model.config.rms_norm_eps
            h = F.rms_norm(h, weights.norm.shape, weights.norm, eps)
        yield h[0, 0]
        tree.add(token, parent=len(tree) - 1)


def error(both: Any) -> float:
    """The largest difference between the two, over what float32 alone may cost."""
    drafter, student = both
    states = packed(drafter.model)
    full = taught(both, states)
    student.module.double()
    wide = replace(states, last=states.last.double(), normed=states.normed.double())
    rounding = (full - taught(both, wide)).abs().max().item()
    student.module.float()
    largest = 0.0
    for begin, length in zip(accumulate(LENGTHS, initial=0), LENGTHS, strict=False):
        own = slice(begin, begin + length)
        ids, last = states.ids[0, own].tolist(), states.last[0, own]
        for slot in range(min(length, DEPTH) if isinstance(drafter, EagleDrafter) else 0):
            # Where the root would lie in front of the document it is the first slot.
            beyond = full[slot:, begin + slot] - full[slot, begin + slot]
            largest = max(largest, beyond.abs().max().item())
        for root in {0, 1, 2, 30, 62, 63, 64, 65, length - 1} & set(range(length)):
            for depth, h in enumerate(drafted(drafter, ids, last, root)):
                difference = (full[depth, begin + root + depth] - h).abs().max().item()
                largest = max(largest, difference)
    return largest / (4 * rounding)


@torch.no_grad()
def test_equals_the_engine(both: Any) -> None:
    assert error(both) <= 1


def test_every_parameter_learns(both: Any) -> None:
    drafter, student = both
    student.module.requires_grad_(True)
    out = taught(both, packed(drafter.model))
    own = torch.stack([student.head(delta, drafter.model.weights.lm_head) for delta in DELTAS])
    logits = torch.einsum("dtc,dvc->dtv", out, own)
    logits.logsumexp(-1).sum().backward()
    student.module.requires_grad_(False)
    for name, p in student.module.named_parameters():
        assert p.grad is not None
        assert p.grad.abs().max() > 0, name


# Kind, name, function, what stands in it, what a mistake would put there.
MUTANTS: list[tuple[str, str, Any, str, str]] = [
    ("medusa", "shift", heads.earlier, "steps, 0))", "steps - 1, 0))"),
    ("medusa", "documents", heads.earlier, "positions < steps", "positions < 0"),
    ("eagle", "shift", heads.earlier, "steps, 0))", "steps - 1, 0))"),
    ("eagle", "documents", heads.earlier, "positions < steps", "positions < 0"),
    ("eagle", "verified", heads.attention, "- len(drafted))", "- len(drafted) + 1)"),
    ("eagle", "passes", heads.attention, "range(len(drafted) - 1, -1, -1)", "range(len(drafted))"),
    ("eagle", "documents of drafts", heads.attention, "positions < distance", "positions < 0"),
    ("eagle", "values", heads.attention, "values.append(moved[1])", "values.append(theirs)"),
    ("eagle", "own states", EagleStudent._passes, "earlier(last", "earlier(states.last"),
]


@torch.no_grad()
@pytest.mark.parametrize(
    ("both", "mutant"),
    [
        pytest.param((kind, FAMILIES[0]), mutant, id=f"{kind}-{title}")
        for kind, title, *mutant in MUTANTS
    ],
    indirect=["both"],
)
def test_mutants_are_killed(both: Any, monkeypatch: pytest.MonkeyPatch, mutant: list[Any]) -> None:
    monkeypatch.setattr(mutant[0], "__code__", mutated(*mutant))
    assert not error(both) <= 1  # perhaps no number
