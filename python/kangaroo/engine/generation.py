"""What a call of generate asks for, in transformers' words: done or refused, never ignored."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from kangaroo_kernels import UnsupportedError

# Decide what is generated.
HONOURED = frozenset({"max_length", "max_new_tokens", "eos_token_id", "return_dict_in_generate"})
# Cannot change the tokens of one greedy sequence behind a given prompt, whatever they say.
IRRELEVANT = frozenset(
    {
        "pad_token_id",
        "bos_token_id",
        "disable_compile",
        "transformers_version",
        "_from_model_config",
    }
)
# Shape a distribution that greedy decoding never draws from.
SAMPLING = frozenset(
    {
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "top_h",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "renormalize_logits",
    }
)
# Every other field is refused unless it is unset, empty, or asks for what is done anyway:
NEUTRAL: Mapping[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "renormalize_logits": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "early_stopping": False,
    "length_penalty": 1.0,
    "num_return_sequences": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "remove_invalid_values": False,
    "token_healing": False,
    "guidance_scale": 1.0,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    "use_cache": True,
    "cache_implementation": "dynamic",
    "low_memory": False,
    "use_mtp": False,
    "is_assistant": False,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
}
# Parameters of transformers' generate that are no fields of GenerationConfig.
CALL_OPTIONS = frozenset(
    {
        "logits_processor",
        "stopping_criteria",
        "prefix_allowed_tokens_fn",
        "synced_gpus",
        "assistant_model",
        "assistant_tokenizer",
        "tokenizer",
        "negative_prompt_ids",
        "negative_prompt_attention_mask",
        "custom_generate",
        "past_key_values",
        "inputs_embeds",
        "position_ids",
        "token_type_ids",
    }
)
DEFAULT_NEW_TOKENS = 20  # transformers' own, where nothing says how many


@dataclass(frozen=True)
class Plan:
    """What to generate.

    Attributes:
        max_new_tokens: at most, end-of-sequence token included.
        eos_ids: tokens that end the sequence; they are part of it.
        return_dict: a GenerateOutput rather than the ids alone.
    """

    max_new_tokens: int
    eos_ids: frozenset[int]
    return_dict: bool


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
        UnsupportedError: an option that means something else than greedy decoding of one sequence.
    """
    values = merge(folder, given, options)
    for name, value in options.items():
        if name in CALL_OPTIONS and not _is_empty(value):
            raise UnsupportedError(f"{name}: not supported; leave it out")
    for name in refused(values, vars(folder)):
        raise _refusal(name, values[name], vars(folder).get(name))
    return Plan(
        max_new_tokens=_new_tokens(values, vars(folder), prompt_len, max_seq_len),
        eos_ids=eos_ids(values["eos_token_id"]),
        return_dict=bool(values["return_dict_in_generate"]),
    )


def merge(
    folder: GenerationConfig, given: GenerationConfig | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Every field of GenerationConfig with the value that rules.

    Raises:
        ValueError: an option that neither GenerationConfig nor transformers' generate knows.
    """
    fields = vars(GenerationConfig())
    ours = {} if given is None else {k: v for k, v in vars(given).items() if v is not None}
    unknown = sorted(options.keys() - fields.keys() - CALL_OPTIONS)
    unknown += sorted(name for name in ours.keys() - fields.keys() if not name.startswith("_"))
    if unknown:
        raise ValueError(f"generate has no option {', '.join(unknown)}")
    values = {name: vars(folder).get(name) for name in fields} | ours
    return values | {name: value for name, value in options.items() if name in fields}


def refused(values: Mapping[str, Any], folder: Mapping[str, Any]) -> list[str]:
    """Fields whose value asks for something else than greedy decoding of one sequence.

    Sampling parameters that a folder carries for those who sample are no such request.
    """
    return [
        name
        for name, value in values.items()
        if name not in HONOURED | IRRELEVANT
        and not _is_empty(value)
        and value != NEUTRAL.get(name)
        and not (name in SAMPLING and value == folder.get(name))
        and not name.startswith("_")
    ]


def greedy_options(folder: GenerationConfig) -> dict[str, Any]:
    """The options that turn the folder's defaults into plain greedy decoding; {} if they are."""
    values = merge(folder, None, {})
    return {name: NEUTRAL.get(name) for name in refused(values, vars(folder))}


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, list | tuple | dict) and not value)


def _refusal(name: str, value: Any, inherited: Any) -> ValueError | UnsupportedError:
    if name in SAMPLING:
        return ValueError(f"{name}={value!r}: has no effect on greedy decoding; leave it out")
    where = " (from generation_config.json)" if value == inherited else ""
    return UnsupportedError(
        f"{name}={value!r}{where}: not supported, only greedy decoding of one sequence is; "
        f"pass {name}={NEUTRAL.get(name)!r}"
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


def eos_ids(value: int | Iterable[int] | Tensor | None) -> frozenset[int]:
    """The tokens that `eos_token_id` names.

    Raises:
        ValueError: it names something else than integers.
    """
    if isinstance(value, Tensor):
        value = value.flatten().tolist()
    if value is None:
        return frozenset()
    ids = [value] if isinstance(value, int) else list(value)
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ValueError(f"eos_token_id: expected a token id or a list of them, got {value!r}")
    return frozenset(ids)
