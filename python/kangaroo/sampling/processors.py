"""What shapes a row of logits: transformers' own processors, in transformers' own order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PretrainedConfig

from kangaroo.sampling.penalties import CountPenalty
from kangaroo_kernels.draws import Draw

MOST_TOP_K = 2**31 - 1  # what kernels take; more than any vocabulary has
DRAWN_BY_KERNELS = frozenset({"temperature", "top_k", "top_p", "min_p"})


@dataclass(frozen=True)
class Shaping:
    """Everything between a row of logits and the distribution it stands for.

    Attributes:
        fields: of GenerationConfig, those that are not idle (`temperature`, `bad_words_ids`, ...).
        do_sample: draw from the distribution; False: take its most probable token.
        penalties: presence and frequency, see CountPenalty.
        logits_processor: the caller's own: callables (input_ids [1, T], scores [1, V]) -> scores.
        prefix_allowed_tokens_fn: as transformers' generate takes it.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    do_sample: bool = False
    penalties: tuple[float, float] = (0.0, 0.0)
    logits_processor: tuple[Callable[..., Tensor], ...] = ()
    prefix_allowed_tokens_fn: Callable[[int, Tensor], list[int]] | None = None

    @property
    def is_idle(self) -> bool:
        """Plain greedy decoding."""
        return self == Shaping()

    def draw(self, seed: int, sequence: int) -> Draw | None:
        """The same as kernels do it, of a sequence that is sampled by the numbers of its places;
        None: it is not, or processors do more than they can.
        """
        own = any(self.penalties) or self.logits_processor or self.prefix_allowed_tokens_fn
        if not self.do_sample or own or not self.fields.keys() <= DRAWN_BY_KERNELS:
            return None
        given = {name: value for name, value in self.fields.items() if value is not None}
        if "top_k" in given:
            given["top_k"] = min(given["top_k"], MOST_TOP_K)
        return Draw(**({"temperature": 1.0} | given), seed=seed, sequence=sequence)


@dataclass(frozen=True)
class Lengths:
    """What processors may ask about a sequence: its prompt's and greatest length, and its ends."""

    prompt_len: int
    total_len: int
    eos_ids: frozenset[int]


class _Host(GenerationMixin):
    """All that the mixin needs of a model to make processors for it."""

    config = PretrainedConfig()


def processors(
    shaping: Shaping, lengths: Lengths, device: torch.device, number: int = 0
) -> tuple[LogitsProcessorList, LogitsProcessorList]:
    """Those of the target's rows, and those of the drafter's, for sequence `number` of a call.

    The caller's own are called for the target's rows alone, once for every token that is written
    and in their order, as transformers calls them: they may keep state, and no draft disturbs it.
    A draft that they would forbid costs a rejection, nothing else.

    Raises:
        ValueError: a field with a value that transformers refuses.
    """
    own = shaping.logits_processor
    counted = [CountPenalty(lengths.prompt_len, *shaping.penalties)] * any(shaping.penalties)
    config = GenerationConfig(**shaping.fields, do_sample=shaping.do_sample)
    config.max_length, config.num_beams, config.num_return_sequences = lengths.total_len, 1, 1
    ends = sorted(lengths.eos_ids)
    config._eos_token_tensor = torch.tensor(ends, device=device) if ends else None

    def build(
        own: Iterable[Callable[..., Tensor]], prefix: Callable[[int, Tensor], list[int]] | None
    ) -> LogitsProcessorList:
        host: Any = _Host()
        made: LogitsProcessorList = host._get_logits_processor(
            config,
            input_ids_seq_length=lengths.prompt_len,
            prefix_allowed_tokens_fn=prefix,
            logits_processor=LogitsProcessorList(own),
            device=str(device),
        )
        return made

    allowed = shaping.prefix_allowed_tokens_fn
    prefix = None if allowed is None else lambda _, ids: allowed(number, ids)
    try:
        return build((*counted, *own), prefix), build(counted, None)
    except (TypeError, AttributeError, IndexError, RuntimeError) as error:
        asked = ", ".join(f"{name}={value!r}" for name, value in shaping.fields.items())
        raise ValueError(f"{asked}: no logits processor can be made of it: {error}") from error
