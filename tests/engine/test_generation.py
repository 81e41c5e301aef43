"""Every option of transformers' generate is honoured, harmless or refused; none is ignored."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin

from kangaroo.engine.generation import Plan, greedy_options, plan, samplers
from kangaroo.engine.options import (
    CALL_OPTIONS,
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
from kangaroo.sampling.processors import Shaping
from kangaroo_kernels import UnsupportedError

FIELDS = sorted(vars(GenerationConfig()))
FOLDER = GenerationConfig(eos_token_id=2)
CHAT = GenerationConfig(  # as instruction-tuned checkpoints come
    do_sample=True,
    temperature=0.6,
    top_p=0.9,
    top_k=20,
    repetition_penalty=1.05,
    eos_token_id=[2, 3],
)
GREEDY = {"do_sample": False, "repetition_penalty": 1.0}


def make_plan(
    folder: GenerationConfig = FOLDER, given: GenerationConfig | None = None, **options: Any
) -> Plan:
    return plan(folder, given, options, prompt_len=10, max_seq_len=100)


def test_the_lists_are_about_fields_that_exist_and_do_not_overlap() -> None:
    of_fields = [HONOURED, STOPPING, DRAWN, PROCESSING, IRRELEVANT, SAMPLING]
    sets = [*of_fields, CALL_OPTIONS, PROCESSOR_OPTIONS, STOPPING_OPTIONS, PENALTIES]
    assert sum(map(len, sets)) == len(frozenset().union(*sets))
    assert not (HONOURED | IRRELEVANT) & NEUTRAL.keys()
    assert frozenset().union(*of_fields) <= set(FIELDS)
    assert not (CALL_OPTIONS | PROCESSOR_OPTIONS | STOPPING_OPTIONS) & set(FIELDS)


def test_neutral_values_are_transformers_defaults() -> None:
    """What transformers fills in itself is never refused."""
    defaults = GenerationConfig._get_default_generation_params()
    for name in set(defaults) - HONOURED - IRRELEVANT:
        assert not defaults[name] or NEUTRAL[name] == defaults[name], name


@pytest.mark.parametrize(
    "name", sorted(set(FIELDS) - HONOURED - STOPPING - DRAWN - PROCESSING - IRRELEVANT - OUTPUTS)
)
def test_fields_that_are_set_are_refused(name: str) -> None:
    """By option and by config alike; unset and neutral values pass."""
    with pytest.raises((ValueError, UnsupportedError), match=f"^{name}='odd'.*: (not|has no)"):
        make_plan(**{name: "odd"})
    config = GenerationConfig()
    setattr(config, name, "odd")
    with pytest.raises((ValueError, UnsupportedError), match=f"^{name}='odd'"):
        make_plan(given=config)
    for value in (None, [], NEUTRAL.get(name)):
        assert make_plan(**{name: value}) == make_plan()


@pytest.mark.parametrize("name", sorted(IRRELEVANT))
def test_fields_that_cannot_matter_pass(name: str) -> None:
    assert make_plan(**{name: 7}) == make_plan()


@pytest.mark.parametrize("name", sorted(CALL_OPTIONS))
def test_other_parameters_of_generate_are_refused_where_set(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^{name}: not supported"):
        make_plan(**{name: object()})
    assert make_plan(**{name: None}) == make_plan()


def test_all_parameters_of_generate_are_known() -> None:
    ours = {"self", "inputs", "generation_config", "streamer", "kwargs"}
    parameters = set(inspect.signature(GenerationMixin.generate).parameters)
    assert parameters - ours <= CALL_OPTIONS | PROCESSOR_OPTIONS | STOPPING_OPTIONS


def test_unknown_options_are_all_named() -> None:
    config = GenerationConfig(num_drafts=3)
    with pytest.raises(ValueError, match="^generate has no option max_tokens, update, num_drafts$"):
        make_plan(given=config, max_tokens=5, update=None)


# Which value rules.


def test_options_above_config_above_folder() -> None:
    folder = GenerationConfig(max_new_tokens=3, eos_token_id=2)
    given = GenerationConfig(max_new_tokens=4)
    assert make_plan(folder) == Plan(3, frozenset({2}), False, pad_id=2)
    assert make_plan(folder, given) == Plan(4, frozenset({2}), False, pad_id=2)
    assert make_plan(folder, given, max_new_tokens=5, eos_token_id=7) == Plan(
        5, frozenset({7}), False, pad_id=7
    )
    assert make_plan(folder, return_dict_in_generate=True).return_dict


def test_the_configs_are_left_as_they_are() -> None:
    given = GenerationConfig(max_new_tokens=4)
    before = [vars(FOLDER) | {}, vars(given) | {}]
    make_plan(FOLDER, given, max_new_tokens=5, eos_token_id=7)
    assert [vars(FOLDER), vars(given)] == before


# What comes with chat models.


def test_a_folder_that_samples_does() -> None:
    fields = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.05}
    assert make_plan(CHAT).shaping == Shaping(fields, do_sample=True)
    greedy = make_plan(CHAT, do_sample=False)
    assert greedy.shaping == Shaping({"repetition_penalty": 1.05})
    assert make_plan(CHAT, **GREEDY) == Plan(20, frozenset({2, 3}), False, pad_id=2)


def test_top_k_is_50_unless_it_is_switched_off() -> None:
    """As in transformers: unset is 50, None as an option is none."""
    assert make_plan(do_sample=True).shaping.fields == {"top_k": 50}
    for value in (None, 0):
        assert make_plan(do_sample=True, top_k=value).shaping.fields == {"top_k": value}


def test_sampling_parameters_of_ones_own_are_refused() -> None:
    """The folder's are there for those who sample; one's own would be ignored silently."""
    for given, options in ((None, {"temperature": 0.7}), (GenerationConfig(temperature=0.7), {})):
        with pytest.raises(ValueError, match="^temperature=0.7: has no effect on greedy decoding"):
            make_plan(CHAT, given, **GREEDY, **options)


def test_greedy_options_turn_a_folder_greedy() -> None:
    assert greedy_options(CHAT) == GREEDY
    assert greedy_options(FOLDER) == {}


# Drawing.


@pytest.mark.parametrize("value", [1, "yes"])
def test_do_sample_is_yes_or_no(value: Any) -> None:
    with pytest.raises(ValueError, match=f"^do_sample: expected True or False, got {value!r}$"):
        make_plan(do_sample=value)


@pytest.mark.parametrize("value", [0, 1.5, True, "3"])
def test_numbers_of_sequences_that_cannot_be(value: Any) -> None:
    with pytest.raises(ValueError, match="^num_return_sequences: expected a whole number of at"):
        make_plan(num_return_sequences=value, do_sample=True)


def test_only_drawn_sequences_can_be_several() -> None:
    with pytest.raises(ValueError, match="^num_return_sequences: expected 1 for greedy decoding"):
        make_plan(num_return_sequences=2)
    several = make_plan(num_return_sequences=3, do_sample=True, pad_token_id=9)
    assert (several.num_return_sequences, several.pad_id) == (3, 9)
    assert make_plan(num_return_sequences=3, do_sample=True).pad_id == 2
    assert make_plan(eos_token_id=[5, 3]).pad_id == 5, "transformers' choice"
    with pytest.raises(ValueError, match="^pad_token_id: expected a token id, got 'odd'"):
        make_plan(pad_token_id="odd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "temperature": "hot"}, "temperature"),
        ({"do_sample": True, "top_k": -1}, "top_k"),
        ({"do_sample": True, "top_k": 2.5}, "top_k"),
        ({"do_sample": True, "top_p": 1.0 - 2}, "top_p"),
        ({"do_sample": True, "top_p": "most"}, "top_p='most'"),
        ({"do_sample": True, "min_p": 2.0}, "min_p"),
        ({"repetition_penalty": -1.0}, "penalty"),
        ({"bad_words_ids": [3]}, "bad_words_ids"),
        ({"sequence_bias": {(3,): 1}}, "sequence_bias"),
        ({"min_new_tokens": "two"}, "min_new_tokens='two'"),
        ({"exponential_decay_length_penalty": (3, 1.1), "eos_token_id": None}, "exponential"),
        ({"logits_processor": [3]}, "logits_processor: expected callables, got 3"),
    ],
)
def test_values_of_which_no_processor_can_be_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samplers(make_plan(**options), [10], None, torch.device("cpu"))


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_penalties(name: str) -> None:
    assert make_plan(**{name: 0.0}) == make_plan(**{name: None}) == make_plan()
    assert sorted(make_plan(**{name: 1}).shaping.penalties) == [0.0, 1.0]
    for value in ("much", 2.5, float("nan")):
        with pytest.raises(ValueError, match=f"^{name}: expected a number from -2 to 2, got"):
            make_plan(**{name: value})


def test_seeds() -> None:
    device = torch.device("cpu")
    with pytest.raises(ValueError, match="^seed=3: has no effect on greedy decoding"):
        samplers(make_plan(repetition_penalty=2.0), [10], 3, device)
    with pytest.raises(ValueError, match="^seed: expected a whole number"):
        samplers(make_plan(do_sample=True), [10], -3, device)
    assert samplers(make_plan(), [10, 12], None, device) == [None, None]


def test_rules_of_sampling() -> None:
    device = torch.device("cpu")
    for options in ({}, {"repetition_penalty": 2.0}):
        with pytest.raises(ValueError, match="^draft_sampling='coupled': has no effect on greedy"):
            samplers(make_plan(**options), [10], None, device, "coupled")
    wrong: Any = "gumbel"
    message = r"^draft_sampling: expected one of \('coupled', 'rejection'\), got 'gumbel'$"
    with pytest.raises(ValueError, match=message):
        samplers(make_plan(do_sample=True), [10], None, device, wrong)
    for given, rule in ((None, "coupled"), ("coupled", "coupled"), ("rejection", "rejection")):
        [sampler] = samplers(make_plan(do_sample=True), [10], None, device, given)  # type: ignore
        assert sampler is not None
        assert sampler.draft_sampling == rule


# Lengths.


def test_lengths() -> None:
    assert make_plan().max_new_tokens == 20
    assert make_plan(max_length=17).max_new_tokens == 7
    assert make_plan(GenerationConfig(max_length=90)).max_new_tokens == 80
    assert plan(FOLDER, None, {}, prompt_len=90, max_seq_len=100).max_new_tokens == 10


def test_max_new_tokens_rules_over_max_length() -> None:
    with pytest.warns(UserWarning, match="max_length is not used"):
        assert make_plan(max_length=17, max_new_tokens=3).max_new_tokens == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_plan(GenerationConfig(max_length=90), max_new_tokens=3).max_new_tokens == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, "7", True])
@pytest.mark.parametrize("name", ["max_new_tokens", "max_length"])
def test_lengths_that_cannot_be(name: str, value: Any) -> None:
    message = f"^{name}: expected a whole number of at least 1, got {value!r}$"
    with pytest.raises(ValueError, match=message):
        make_plan(**{name: value})


def test_a_max_length_that_the_prompt_fills() -> None:
    with pytest.raises(
        ValueError, match="^max_length: expected more than the 10 tokens of the prompt"
    ):
        make_plan(max_length=10)
    with pytest.raises(ValueError, match="^max_length: expected more than the 100 tokens"):
        plan(FOLDER, None, {}, prompt_len=100, max_seq_len=100)


# Ends.


@pytest.mark.parametrize(
    ("value", "eos_ids"),
    [
        (5, {5}),
        ([5, 6], {5, 6}),
        ((5,), {5}),
        (torch.tensor([5, 6]), {5, 6}),
        ([], set()),
        (None, set()),
    ],
)
def test_end_of_sequence_tokens(value: Any, eos_ids: set[int]) -> None:
    """With None, none ends the sequence: an option overrules the folder, as in transformers."""
    assert make_plan(eos_token_id=value).eos_ids == eos_ids


@pytest.mark.parametrize("value", ["</s>", [1.5], [True]])
def test_end_of_sequence_tokens_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="^eos_token_id: expected a token id or a list of them"):
        make_plan(eos_token_id=value)
