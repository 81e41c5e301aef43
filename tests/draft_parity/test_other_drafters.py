"""Every draft, and how sure the drafter is of it, is that of a slow definition by the tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from kangaroo.config import DraftConfig
from kangaroo.draft import states
from kangaroo.draft.draft_model import ModelDrafter
from kangaroo.draft.eagle import EagleDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.lookup import continuation
from kangaroo.draft.medusa import MedusaDrafter
from kangaroo.draft.skipping import SkippingDrafter
from kangaroo.draft.states import StateDrafter
from kangaroo.engine.batch import Batch
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import PastKeyValues, Request
from kangaroo.models.adapter import BareExit
from kangaroo.models.llama import Llama
from tests.draft.test_kangaroo import OneInThree
from tests.draft_parity.from_scratch import FromScratch
from tests.engines import (
    QUICK_BACKENDS,
    SMALL,
    load,
    make_eagle,
    make_medusa,
    make_prompt,
    request_of,
    shortened,
)
from tests.factories import make_checkpoint
from tests.sampling.test_mutants import mutated

CONFIG = DraftConfig(2, max_depth=4, confidence=0.1)
SKIPPED = {1, 4}
# Prompts and what follows them: some are short, and join beside others that have waited to draft.
LENS = ((40, 9), (30, 19), (9, 13), (1, 4), (1, 8), (2, 3), (1, 6), (1, 9), (1, 5), (1, 7))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = SMALL | {"num_hidden_layers": 6}
    return make_checkpoint(tmp_path_factory.mktemp("target"), "llama-gqa-llama3", **overrides)


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def model(request: pytest.FixtureRequest, path: Path) -> Llama:
    return load(path, str(request.param))


@pytest.fixture(scope="module")
def small(model: Llama, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """Another family, other heads, fewer and narrower layers."""
    narrow: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    path = make_checkpoint(tmp_path_factory.mktemp("small"), "mistral", **(SMALL | narrow))
    return load(path, "reference")


def scratch(model: Llama, exit_layer: int = 1) -> FromScratch:
    """Says what comes next by the model's own norm and head."""
    bare = BareExit(model.config, model.weights.norm, exit_layer)
    return FromScratch(model, bare, torch.float64)


@dataclass
class Way:
    """A drafter, and its definition: probabilities [V] behind `tokens`, drafted from `root` on."""

    drafter: Any
    definition: Callable[[list[int], int], Tensor]


def of_model(model: Llama, draft_model: Llama) -> Way:
    slow = scratch(draft_model)
    return Way(
        ModelDrafter(model, CONFIG, draft_model),
        lambda tokens, _: slow.probabilities(slow.target_states(tokens)[1])[-1],
    )


def bare_exit(model: Llama) -> Way:
    slow = scratch(model, CONFIG.exit_layer)
    return Way(
        KangarooDrafter(model, slow.adapter, CONFIG),
        lambda tokens, _: slow.probabilities(slow.target_states(tokens)[0])[-1],
    )


def skipping(model: Llama) -> Way:
    """What is verified has passed all layers, and each layer that is left sees it as it was."""
    slow = scratch(model)

    def probabilities(tokens: list[int], root: int) -> Tensor:
        h = model.weights.embed[tokens].double()
        for number, layer in enumerate(model.weights.layers):
            done = slow.layer(h, layer)
            h = torch.cat([done[:root], h[root:]]) if number in SKIPPED else done
        return slow.probabilities(h)[-1]

    return Way(SkippingDrafter(model, CONFIG, SKIPPED), probabilities)


def medusa(model: Llama) -> Way:
    """Of the newest verified state, and how far behind it the token is, alone."""
    slow, module = scratch(model), make_medusa(model).double()

    def probabilities(tokens: list[int], root: int) -> Tensor:
        last = slow.norm(slow.target_states(tokens)[1], model.weights.norm)
        x, head = F.pad(last, (0, 0, 1, 0))[root], module.of(len(tokens) - root)
        x = x + F.silu(head.weight @ x + head.bias)
        return (head.head @ x).softmax(-1)

    return Way(MedusaDrafter(model, CONFIG, make_medusa(model)), probabilities)


def eagle(model: Llama) -> Way:
    """Row by row behind the root; the rows in front of it are made of the target's states."""
    slow, module = scratch(model), make_eagle(model)

    def probabilities(tokens: list[int], root: int) -> Tensor:
        token = slow.norm(model.weights.embed[tokens].double(), module.embed_norm)
        states = F.pad(slow.target_states(tokens)[1], (0, 0, 1, 0))[: root + 1]
        while True:
            x = slow.linear(token[: len(states)], module.embed_fc)
            x = x + slow.linear(slow.norm(states, module.state_norm), module.state_fc)
            out = slow.layer(x, module.layer())
            if len(out) == len(tokens):
                return slow.probabilities(out)[-1]
            states = torch.cat([states, out[-1:]])

    return Way(EagleDrafter(model, CONFIG, module), probabilities)


WAYS: dict[str, Callable[[Llama, Llama], Way]] = {
    "draft model": lambda model, small: of_model(model, shortened(model, 4)),
    "draft model of another family": of_model,
    "bare exit": lambda model, small: bare_exit(model),
    "skipping": lambda model, small: skipping(model),
    "medusa": lambda model, small: medusa(model),
    "eagle": lambda model, small: eagle(model),
}


class Said(NamedTuple):
    """`token` behind `tokens`, which are drafted behind slot `root`."""

    tokens: list[int]
    root: int
    token: int
    confidence: float


class Sometimes(OneInThree):
    """Drafts in every other round or so."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def depth(self, requests: Sequence[Request]) -> int:
        return CONFIG.max_depth * self.rng.randrange(2)


def drafted(way: Way) -> list[Said]:
    """Of every sequence and round, in a batch that drafts in some rounds, so that some are behind,
    by more or less, and others are not; then of a text that is gone on with.
    """
    plain, found = way.drafter._next_tokens, list[Said]()

    def watched(*arguments: Any) -> Any:
        *_, state, trees, growing = arguments
        tokens, confidences = plain(*arguments)
        for b in growing:
            text, root = state.requests[b].tokens, state.prefix_lens[b]
            said = int(tokens[b]), float(confidences[b])
            found.append(Said(text + trees[b].tokens[1:], root, *said))
        return tokens, confidences

    way.drafter._next_tokens = watched
    decoder = Decoder(way.drafter.model, way.drafter, CONFIG)
    decoder.pace = Sometimes()
    batch = Batch(decoder, 3, 80)
    for seed, (length, num_new) in enumerate(LENS):
        batch.add(request_of(make_prompt(way.drafter.model, length, seed), num_new))
    while len(batch):
        batch.step()
    past, text = PastKeyValues(), make_prompt(way.drafter.model, 30)
    for length in (12, 30):  # the second begins as the first does, and goes on otherwise
        assert list(decoder.generate(request_of(text[:length], 9), past))
    return found


def is_right(way: Way) -> bool:
    found = drafted(way)
    assert len(found) > 50
    for tokens, root, token, confidence in found:
        row = way.definition(tokens, root)
        if int(row.argmax()) != token or abs(float(row[token]) - confidence) > 1e-4:
            return False
    return True


@pytest.mark.parametrize("name", WAYS)
def test_every_draft(model: Llama, small: Llama, name: str) -> None:
    assert is_right(WAYS[name](model, small))


LEARNS = "self._learn(state.adapter_kv, [tree.tokens for tree in trees], h_deep)"
FORGETS = "state.adapter_kv.num_nodes = h_deep.shape[1]"
# Way, name, function, what stands in it, what a mistake would put there.
MUTANTS: list[tuple[str, str, Callable[..., Any], str, str]] = [
    ("draft model", "last slot", ModelDrafter._catch_up, "len(tokens) - 1]", "-1]"),
    ("draft model", "behind by one", ModelDrafter._catch_up, "1 + max(", "1 + min(1, *"),
    ("skipping", "other layers", SkippingDrafter.states, "start - first, stop - first", "0, 1"),
    ("skipping", "one cache", SkippingDrafter.states, "start >= exit_layer", "False"),
    ("bare exit", "slot before", KangarooDrafter._catch_up, "lag : lag + 1", "0:1"),
    ("medusa", "one block", MedusaDrafter.states, "max(map(len, trees))", "1"),
    ("medusa", "one head", MedusaDrafter._next_tokens, "max(map(len, trees))).head", "1).head"),
    ("medusa", "no beginning", states.newest, "slots < 0", "slots < -1"),
    ("medusa", "slot before", states.newest, "own.num_nodes - 1", "own.num_nodes - 2"),
    ("eagle", "no beginning", states.newest, "slots < 0", "slots < -1"),
    ("eagle", "own states forgotten", EagleDrafter.states, "nodes, h)", "nodes, 0 * h)"),
    ("eagle", "other tokens", StateDrafter.prefill, "own.slots.committed[0]", "0"),
    ("eagle", "shift", StateDrafter._learn, "h_deep[:, :-1]", "h_deep[:, 1:]"),
    ("eagle", "no rewrite", StateDrafter.verified, LEARNS, FORGETS),
    ("medusa", "nothing learnt", StateDrafter.verified, LEARNS, FORGETS),
]


@pytest.mark.parametrize("model", ["native"], indirect=True)
@pytest.mark.parametrize(
    ("name", "mutant"),
    [pytest.param(name, mutant, id=f"{name}-{title}") for name, title, *mutant in MUTANTS],
)
def test_mutants_are_killed(
    model: Llama, small: Llama, monkeypatch: pytest.MonkeyPatch, name: str, mutant: list[Any]
) -> None:
    monkeypatch.setattr(mutant[0], "__code__", mutated(*mutant))
    try:
        right = is_right(WAYS[name](model, small))
    except (ValueError, IndexError, RuntimeError):
        right = False
    assert not right


@pytest.mark.parametrize("max_ngram_size", [1, 2, 3, 5])
def test_lookup_is_that_of_transformers(max_ngram_size: int) -> None:
    """On texts of few different tokens, long and short."""
    generator, num_found = torch.Generator().manual_seed(0), 0
    theirs = PromptLookupCandidateGenerator(
        num_output_tokens=4, max_matching_ngram_size=max_ngram_size, max_length=1000
    )
    for length in range(1, 60):
        text = torch.randint(2 + length // 4, (1, length), generator=generator)
        expected = theirs.get_candidates(text)[0][0, length:].tolist()
        assert list(continuation(text[0].tolist(), 4, max_ngram_size)) == expected
        num_found += bool(expected)
    assert 10 < num_found < 60
