"""Where a sequence ends, as transformers decides it: token by token, inside a round too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import MaxTimeCriteria, StopStringCriteria

# (input_ids [1, T], scores: None) -> [1] bool, or a bool
Criterion = Callable[[Tensor, None], Any]


@dataclass(frozen=True)
class Stopping:
    """What ends a sequence besides its length and its end-of-sequence tokens.

    Attributes:
        max_time: seconds after which no token follows.
        stop_strings: the sequence ends with the token that completes one of them.
        criteria: the caller's own, asked once for every token that is written, in their order.
        tokenizer: of `stop_strings`; None: the folder's.
    """

    max_time: float | None = None
    stop_strings: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    tokenizer: PreTrainedTokenizerBase | None = None

    def start(self, tokenizer: Callable[[], PreTrainedTokenizerBase]) -> tuple[Criterion, ...]:
        """All of them as criteria; the clock runs from now on. `tokenizer` loads the folder's."""
        own: list[Criterion] = []
        if self.max_time is not None:
            own.append(MaxTimeCriteria(self.max_time))
        if self.stop_strings:
            own.append(StopStringCriteria(self.tokenizer or tokenizer(), list(self.stop_strings)))
        return (*own, *self.criteria)


def stopping_of(values: Mapping[str, Any], options: Mapping[str, Any]) -> Stopping:
    """From fields of GenerationConfig, and generate's own `stopping_criteria` and `tokenizer`.

    Raises:
        ValueError: an impossible value, or a tokenizer that nothing asks for.
    """
    max_time, strings = values["max_time"], values["stop_strings"]
    criteria = callables_of("stopping_criteria", options)
    strings = (strings,) if isinstance(strings, str) else tuple(strings or ())
    if max_time is not None and not (isinstance(max_time, int | float) and max_time > 0):
        raise ValueError(f"max_time: expected seconds above 0, got {max_time!r}")
    if bad := [string for string in strings if not isinstance(string, str) or not string]:
        raise ValueError(f"stop_strings: expected texts that are not empty, got {bad[0]!r}")
    tokenizer = options.get("tokenizer")
    if tokenizer is not None and not strings:
        raise ValueError("tokenizer: has no effect without stop_strings; leave it out")
    return Stopping(max_time, strings, criteria, tokenizer)


def callables_of(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], ...]:
    """Those that an option lists; () where it is not given.

    Raises:
        ValueError: it is no list of callables.
    """
    given = options.get(name)
    if given is None:
        return ()
    if not isinstance(given, Iterable):
        raise ValueError(f"{name}: expected a list of callables, got {given!r}")
    found = tuple(given)
    if bad := [each for each in found if not callable(each)]:
        raise ValueError(f"{name}: expected callables, got {bad[0]!r}")
    return found


def until(
    history: list[int],
    tokens: list[int],
    eos_ids: Set[int],
    criteria: Sequence[Criterion],
    device: torch.device,
) -> tuple[list[int], bool]:
    """`tokens` behind `history` up to and including the first that ends the sequence, and whether
    one does.
    """
    for count, token in enumerate(tokens, 1):
        ended = token in eos_ids
        if criteria:
            ids = torch.tensor([history + tokens[:count]], device=device)
            # All are asked, as by transformers: each may keep count.
            verdicts = [bool(torch.as_tensor(criterion(ids, None)).any()) for criterion in criteria]
            ended = ended or any(verdicts)
        if ended:
            return tokens[:count], True
    return tokens, False
