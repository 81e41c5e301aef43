"""What the target cannot do is refused before anything is computed, with the limit named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kangaroo.config import DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.decode import Decoder, check_context
from kangaroo.models.llama import Llama
from kangaroo_kernels import UnsupportedError
from tests.engines import SMALL, autoregressive, load, request_of
from tests.factories import make_checkpoint

WINDOW = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return load(make_checkpoint(tmp_path_factory.mktemp("target"), "llama", **SMALL))


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "message"),
    [
        ([], 5, "prompt: expected at least one token, got none"),
        ([1, 61, 2], 5, r"prompt: expected tokens in \[0, 61\), got 61"),
        ([1, -1, 70], 5, r"prompt: expected tokens in \[0, 61\), got -1"),
        ([1, 2], -1, "max_new_tokens: expected at least 0, got -1"),
        ([1] * 320, 1, "max_new_tokens: expected at most 0 behind 320 prompt tokens .*, got 1"),
        ([1], 320, "max_new_tokens: expected at most 319 behind 1 prompt tokens .*, got 320"),
    ],
)
def test_bad_arguments(
    model: Llama,
    monkeypatch: pytest.MonkeyPatch,
    prompt: list[int],
    max_new_tokens: int,
    message: str,
) -> None:
    monkeypatch.setattr(Llama, "embed", lambda *_: pytest.fail("something was computed"))
    drafter = KangarooDrafter(model, None, DraftConfig(1))
    with pytest.raises(ValueError, match=f"^{message}$"):
        next(Decoder(model, drafter, drafter.config).generate(request_of(prompt, max_new_tokens)))


def test_the_ends_of_the_vocabulary_are_inside(model: Llama) -> None:
    assert len(autoregressive(model, [0, 60], 3).tokens) == 3


def test_a_full_context_and_no_new_tokens(model: Llama) -> None:
    check_context(model.config, request_of([1] * 320, 0))
    with pytest.raises(ValueError, match="at most -1 behind 321 prompt tokens"):
        check_context(model.config, request_of([1] * 321, 0))


def test_sliding_window(tmp_path: Path) -> None:
    """Up to the window it is plain attention; past it the engine would be wrong, so it refuses."""
    overrides = SMALL | {"sliding_window": WINDOW}
    windowed = load(make_checkpoint(tmp_path / "windowed", "mistral", **overrides))
    assert windowed.config.sliding_window == WINDOW
    plain = load(make_checkpoint(tmp_path / "plain", "mistral", **SMALL))
    prompt = [3, 1, 4, 1, 5]
    tokens = autoregressive(windowed, prompt, WINDOW - 5)
    assert torch.equal(tokens.logits, autoregressive(plain, prompt, WINDOW - 5).logits)
    message = f"sliding-window.*: {WINDOW + 1} tokens .* window of {WINDOW}$"
    with pytest.raises(UnsupportedError, match=message):
        autoregressive(windowed, prompt, WINDOW - 4)
