"""Every option of transformers' generate, by what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Decide what is generated.
HONOURED = frozenset(
    {"max_length", "max_new_tokens", "eos_token_id", "pad_token_id", "return_dict_in_generate"}
)
STOPPING = frozenset({"max_time", "stop_strings"})
DRAWN = frozenset({"do_sample", "num_return_sequences"})
# Kept of every new token; `output_logprobs` is ours.
OUTPUTS = frozenset({"output_logits", "output_logprobs", "output_scores"})
# Shape every row of logits, transformers' own processors do it; most probable token or drawn one.
PROCESSING = frozenset(
    {
        "repetition_penalty",
        "no_repeat_ngram_size",
        "bad_words_ids",
        "sequence_bias",
        "suppress_tokens",
        "begin_suppress_tokens",
        "min_length",
        "min_new_tokens",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "remove_invalid_values",
    }
)
# Cannot change the tokens of a sequence behind a given prompt, whatever they say.
IRRELEVANT = frozenset(
    {
        "bos_token_id",
        "disable_compile",
        "transformers_version",
        "_from_model_config",
    }
)
# Shape a distribution that only sampling draws from.
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
# What changes nothing. A field in none of the sets above is refused unless it is unset, empty, or:
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
        "synced_gpus",
        "assistant_model",
        "assistant_tokenizer",
        "negative_prompt_ids",
        "negative_prompt_attention_mask",
        "custom_generate",
        "inputs_embeds",
        "position_ids",
        "token_type_ids",
    }
)
# OpenAI's, which transformers has not.
PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})
PROCESSOR_OPTIONS = frozenset({"logits_processor", "prefix_allowed_tokens_fn"})
STOPPING_OPTIONS = frozenset({"stopping_criteria", "tokenizer"})
DEFAULT_NEW_TOKENS = 20  # transformers' own, where nothing says how many
