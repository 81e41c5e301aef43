"""What a call of generate asks for, in transformers' words: done or refused, never ignored."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from kangaroo.config import DraftSampling
from kangaroo.engine.options import (
    CALL_OPTIONS,
    DEFAULT_NEW_TOKENS,
    DRAWN,
    HONOURED,
    IRRELEVANT,
    NEUTRAL,
    OUTPUTS,
    PENALTIES,
    PROCESSING,
    PROCESSOR_OPTIONS,
    SAMPLING,
    STOPPING,
    STOPPING_OPTIONS,
)
from kangaroo.engine.stopping import Stopping, callables_of, stopping_of
from kangaroo.sampling.processors import Lengths, Shaping, processors
from kangaroo.sampling.sampler import Sampler
from kangaroo.sampling.source import CounterSource
from kangaroo_kernels import UnsupportedError


@dataclass(frozen=True)
class Plan:
    """What to generate.

    Attributes:
        max_new_tokens: at most, end-of-sequence token included.
        eos_ids: tokens that end the sequence; they are part of it.
        return_dict: a GenerateOutput rather than the ids alone.
        stopping: what else ends the sequence.
        shaping: of the logits, and whether tokens are drawn.
        num_return_sequences: drawn independently of each other.
        pad_id: fills up the shorter of several sequences; None: no token of the folder does.
        output_logits, output_scores, output_logprobs: of the new tokens, in the GenerateOutput.
    """

    max_new_tokens: int
    eos_ids: frozenset[int]
    return_dict: bool
    stopping: Stopping = field(default_factory=Stopping)
    shaping: Shaping = field(default_factory=Shaping)
    num_return_sequences: int = 1
    pad_id: int | None = None
    output_logits: bool = False
    output_scores: bool = False
    output_logprobs: bool = False


def plan(
    folder: GenerationConfig,
    given: GenerationConfig | None,
    options: Mapping[str, Any],
    prompt_len: int,
    max_seq_len: int,
) -> Plan:
    """Options, above the caller's GenerationConfig, above the folder's; None in a config is unset.

    Raises:
        ValueError: an option that does not exist, has no effect or has an impossible value.
        UnsupportedError: an option that means something else than decoding behind one prompt.
    """
    values = merge(folder, given, options)
    for name, value in options.items():
        if name in CALL_OPTIONS and not _is_empty(value):
            raise UnsupportedError(f"{name}: not supported; leave it out")
    for name in refused(values, vars(folder)):
        raise _refusal(name, values[name], vars(folder).get(name))
    ends = eos_list(values["eos_token_id"])
    outputs = {name: bool(values.get(name) or options.get(name)) for name in OUTPUTS}
    for name, wanted in outputs.items():
        if wanted and not values["return_dict_in_generate"]:
            raise ValueError(f"{name}: has no effect without return_dict_in_generate=True")
    pad_id = values["pad_token_id"]
    if pad_id is None and ends:
        pad_id = ends[0]
    if pad_id is not None and (not isinstance(pad_id, int) or isinstance(pad_id, bool)):
        raise ValueError(f"pad_token_id: expected a token id, got {pad_id!r}")
    return Plan(
        max_new_tokens=_new_tokens(values, vars(folder), prompt_len, max_seq_len),
        eos_ids=frozenset(ends),
        return_dict=bool(values["return_dict_in_generate"]),
        stopping=stopping_of(values, options),
        shaping=_shaping(values, options),
        num_return_sequences=_num_sequences(values),
        pad_id=pad_id,
        **outputs,
    )


def samplers(
    wanted: Plan,
    prompt_lens: Sequence[int],
    seed: int | None,
    device: torch.device,
    draft_sampling: DraftSampling | None = None,
) -> list[Sampler | None]:
    """One for every sequence to return, those of the first prompt first; None decodes plainly
    greedily.

    Args:
        prompt_lens: of the prompts.
        seed: None takes one from torch's own generator.
        draft_sampling: None is "coupled".

    Raises:
        ValueError: a seed or `draft_sampling` that has no effect or is none, or a processor that
            cannot be made.
    """
    shaping = wanted.shaping
    for name, value in (("seed", seed), ("draft_sampling", draft_sampling)):
        if value is not None and not shaping.do_sample:
            raise ValueError(f"{name}={value!r}: has no effect on greedy decoding; leave it out")
    if shaping.is_idle:
        return [None] * len(prompt_lens)
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ())) if shaping.do_sample else 0
    source, rule = CounterSource(seed), draft_sampling or "coupled"
    made: list[Sampler | None] = []
    for prompt_len in prompt_lens:
        lengths = Lengths(prompt_len, prompt_len + wanted.max_new_tokens, wanted.eos_ids)
        for _ in range(wanted.num_return_sequences):
            number = len(made)
            shapers = processors(shaping, lengths, device, number)
            draw = shaping.draw(seed, number) if rule == "coupled" else None
            made.append(Sampler(source, number, *shapers, shaping.do_sample, rule, draw))
    return made


def merge(
    folder: GenerationConfig, given: GenerationConfig | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Every field of GenerationConfig with the value that rules.

    Raises:
        ValueError: an option that neither GenerationConfig nor transformers' generate knows.
    """
    fields = vars(GenerationConfig())
    known, extra = fields.keys(), vars(folder)  # which may say more than transformers knows,
    named = {} if given is None else {k: v for k, v in vars(given).items() if v is not None}
    ours = {k: v for k, v in named.items() if k in known or extra.get(k) != v}  # as may its copy
    of_calls = CALL_OPTIONS | PROCESSOR_OPTIONS | STOPPING_OPTIONS | OUTPUTS | PENALTIES
    unknown = sorted(options.keys() - fields.keys() - of_calls)
    unknown += sorted(name for name in ours.keys() - known if not name.startswith("_"))
    if unknown:
        raise ValueError(f"generate has no option {', '.join(unknown)}")
    values = {name: vars(folder).get(name) for name in fields} | ours
    if values["top_k"] is None:  # the one default of transformers that is not idle
        values["top_k"] = NEUTRAL["top_k"]
    return values | {name: value for name, value in options.items() if name in fields}


def refused(values: Mapping[str, Any], folder: Mapping[str, Any]) -> list[str]:
    """Fields whose value asks for what is not done.

    Sampling parameters that a folder carries for those who sample are no such request.
    """
    return [
        name
        for name in _unusual(values)
        if name not in DRAWN | PROCESSING | STOPPING | OUTPUTS
        and not (name in SAMPLING and (values["do_sample"] or values[name] == folder.get(name)))
    ]


def greedy_options(folder: GenerationConfig) -> dict[str, Any]:
    """The options that turn the folder's defaults into plain greedy decoding; {} if they are."""
    names = _unusual(merge(folder, None, {}))
    return {name: NEUTRAL.get(name) for name in names if name not in SAMPLING}


def _unusual(values: Mapping[str, Any]) -> list[str]:
    """Fields with a say in what is generated, that say something."""
    return [
        name
        for name, value in values.items()
        if name not in HONOURED | IRRELEVANT
        and not _is_empty(value)
        and value != NEUTRAL.get(name)
        and not name.startswith("_")
    ]


def _shaping(values: Mapping[str, Any], options: Mapping[str, Any]) -> Shaping:
    if not isinstance(values["do_sample"], bool | None):
        raise ValueError(f"do_sample: expected True or False, got {values['do_sample']!r}")
    names = PROCESSING | SAMPLING if values["do_sample"] else PROCESSING
    fields = {name: values[name] for name in _unusual(values) if name in names}
    if values["do_sample"]:
        fields["top_k"] = values["top_k"]
    return Shaping(
        fields=fields,
        do_sample=bool(values["do_sample"]),
        penalties=_penalties(options),
        logits_processor=callables_of("logits_processor", options),
        prefix_allowed_tokens_fn=options.get("prefix_allowed_tokens_fn"),
    )


def _penalties(options: Mapping[str, Any]) -> tuple[float, float]:
    values = []
    for name in ("presence_penalty", "frequency_penalty"):
        value = options.get(name) or 0.0
        if not isinstance(value, int | float) or not -2.0 <= value <= 2.0:
            raise ValueError(f"{name}: expected a number from -2 to 2, got {value!r}")
        values.append(float(value))
    return values[0], values[1]


def _num_sequences(values: Mapping[str, Any]) -> int:
    number = values["num_return_sequences"]
    if number is None:
        return 1
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(
            f"num_return_sequences: expected a whole number of at least 1, got {number!r}"
        )
    if number > 1 and not values["do_sample"]:
        raise ValueError(
            f"num_return_sequences: expected 1 for greedy decoding, got {number}; "
            "pass do_sample=True"
        )
    return number


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, list | tuple | dict) and not value)


def _refusal(name: str, value: Any, inherited: Any) -> ValueError | UnsupportedError:
    if name in SAMPLING:
        return ValueError(f"{name}={value!r}: has no effect on greedy decoding; leave it out")
    where = " (from generation_config.json)" if value == inherited else ""
    return UnsupportedError(
        f"{name}={value!r}{where}: not supported; pass {name}={NEUTRAL.get(name)!r}"
    )


def _new_tokens(
    values: Mapping[str, Any], folder: Mapping[str, Any], prompt_len: int, max_seq_len: int
) -> int:
    new, total = values["max_new_tokens"], values["max_length"]
    for name, value in (("max_new_tokens", new), ("max_length", total)):
        if value is not None and (
            not isinstance(value, int) or isinstance(value, bool) or value < 1
        ):
            raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    if new is not None:
        if total is not None and total != folder.get("max_length"):
            warnings.warn("max_length is not used: max_new_tokens is given too", stacklevel=4)
        return int(new)
    if total is None:
        total = min(prompt_len + DEFAULT_NEW_TOKENS, max_seq_len)
    if total <= prompt_len:
        raise ValueError(
            f"max_length: expected more than the {prompt_len} tokens of the prompt, got {total}; "
            "max_new_tokens counts new tokens alone"
        )
    return int(total) - prompt_len


def eos_list(value: int | Iterable[int] | Tensor | None) -> list[int]:
    """The tokens that `eos_token_id` names, in its order.

    Raises:
        ValueError: it names something else than integers.
    """
    if isinstance(value, Tensor):
        value = value.flatten().tolist()
    if value is None:
        return []
    ids: list[Any] = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(token, Integral) and not isinstance(token, bool) for token in ids):
        raise ValueError(f"eos_token_id: expected a token id or a list of them, got {value!r}")
    return [int(token) for token in ids]
