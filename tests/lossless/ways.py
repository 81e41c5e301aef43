"""Ten ways to decode, here and in transformers, and what must be the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor

from kangaroo import KangarooForCausalLM
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.llm import GenerateOutput
from kangaroo.zoo import corpus
from kangaroo_kernels import testing
from tests.engines import (
    FIXED,
    SMALL,
    NoisyDrafter,
    ScriptedBranches,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
)
from tests.factories import make_checkpoint
from tests.folders import TEXTS

PENALTY = 1.2
# What a token depends on besides the logits, in transformers' words.
SHAPES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalties": {"repetition_penalty": PENALTY, "no_repeat_ngram_size": 3},
    "ends": {
        "bad_words_ids": [[40], [41, 42], [7, 7, 7]],
        "min_new_tokens": 9,
        "eos_token_id": [5, 100, 150, 200],
    },
    "stop strings": {},  # see `stop_string`
    "biases": {
        "sequence_bias": {(11,): 2.0, (12, 13): 4.0, (60,): -3.0},
        "suppress_tokens": list(range(80, 95)),
        "begin_suppress_tokens": list(range(95, 200)),
    },
}
BEST_OF_ONE = {"do_sample": True, "top_k": 1, "seed": 3}  # as greedy, by way of all random numbers


@dataclass(frozen=True)
class Way:
    """One way to decode.

    Attributes:
        shape: a name in SHAPES.
        options: of drafting and drawing; they change no token.
        knows: drafts are no adapter's: often the target's own tokens.
    """

    shape: str
    options: dict[str, Any] = field(default_factory=dict)
    knows: bool = False


WAYS = {
    "chain": Way("greedy", {"max_depth": 6, "confidence": 0.25}),
    "chain that is often right": Way("greedy", {"max_depth": 5, "confidence": 0.0}, knows=True),
    "adaptive chain": Way("greedy", {"confidence": 0.0, "adaptive": True}, knows=True),
    "tree": Way("greedy", {"draft": "tree"}),
    "wide tree that is often right": Way(
        "greedy",
        {"draft": "tree", "draft_top_k": 3, "max_nodes": 48, "confidence": 0.0},
        knows=True,
    ),
    "static tree": Way("greedy", {"draft": "tree", "tree_widths": (3, 2, 1)}),
    "chain and penalties": Way("penalties", {"max_depth": 4, "confidence": 0.0}),
    "tree and ends": Way("ends", {"draft": "tree", "confidence": 0.0, "max_nodes": 24}),
    "chain and stop strings": Way("stop strings", {"max_depth": 6, "confidence": 0.05}),
    "drawn chain": Way("greedy", {"max_depth": 4, "confidence": 0.0} | BEST_OF_ONE),
    "drawn tree and biases": Way("biases", {"draft": "tree", "draft_top_k": 4} | BEST_OF_ONE),
}
MAX_PROMPT_LEN = 90


@dataclass(frozen=True)
class Made:
    """New tokens, and the row [len(tokens), V] that each was chosen from."""

    tokens: list[int]
    rows: Tensor
    num_drafted: int = 0
    num_accepted: int = 0


class Rows(LogitsProcessor):
    """Keeps what it is asked about: last of the processors, it sees what the others made."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.rows.append(scores.clone())
        return scores


@cache
def tokenizer() -> Any:
    """Of bytes, for stop strings."""
    return corpus.train_tokenizer(TEXTS, 263)


class Engine:
    """One target here and in transformers, with every kind of adapter at both exits."""

    def __init__(self, path: Path, family: str, seed: int, num_tokens: int):
        overrides = SMALL | {"vocab_size": 263, "num_hidden_layers": 3}
        make_checkpoint(
            path,
            family,
            seed=seed,
            **(overrides | {"max_position_embeddings": MAX_PROMPT_LEN + num_tokens}),
        )
        self.num_tokens, self.model = num_tokens, load(path, "native")
        self.llms = [
            KangarooForCausalLM(
                self.model, make_adapter(self.model, kind, exit_layer), path, GenerationConfig()
            )
            for kind in ("paper", "deep_prefix")
            for exit_layer in (1, 2)
        ]
        self.theirs: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.theirs.generation_config.eos_token_id = None
        self.exact = deepcopy(self.theirs).double()

    def plain(self, llm: KangarooForCausalLM, prompt: list[int], shape: dict[str, Any]) -> Made:
        """Nothing is drafted."""
        if shape:
            return self.shaped(llm, prompt, {"max_depth": 0} | shape)
        run = autoregressive(self.model, prompt, self.num_tokens)
        return Made(run.tokens, run.logits)

    def drafted(
        self, llm: KangarooForCausalLM, prompt: list[int], way: Way, plain: Made, shape: Any
    ) -> Made:
        if way.shape != "greedy" or "do_sample" in way.options:
            return self.shaped(llm, prompt, FIXED | way.options | shape)
        config, model, adapter = llm.draft_config(**FIXED | way.options), llm.model, llm.adapter
        assert adapter is not None
        if way.knows:
            knowing = ScriptedBranches if config.draft == "tree" else NoisyDrafter
            drafter: KangarooDrafter = knowing(model, adapter, config, prompt + plain.tokens)
        else:
            own = BranchingDrafter if config.draft == "tree" else chain_drafter
            drafter = own(model, adapter, config)
        run = decoder_of(drafter).run(prompt, self.num_tokens)
        return Made(run.tokens, run.logits, run.num_drafted, run.num_accepted)

    def shaped(self, llm: KangarooForCausalLM, prompt: list[int], options: dict[str, Any]) -> Made:
        """By `generate`; greedy decoding without processors has another judge."""
        keep = Rows()
        output = llm.generate(
            prompt,
            max_new_tokens=self.num_tokens,
            return_dict_in_generate=True,
            logits_processor=[keep],
            **options,
        )
        assert isinstance(output, GenerateOutput)
        assert output.sequences is not None
        assert output.speculation is not None
        tokens, did = output.sequences[0, len(prompt) :].tolist(), output.speculation
        # A round that ends the sequence may have asked about what would have come behind the end.
        rows = torch.cat(keep.rows[: len(tokens)])
        return Made(tokens, rows, did.num_drafted, did.num_accepted)

    def transformers(self, prompts: list[list[int]], shape: dict[str, Any]) -> list[list[int]]:
        """New tokens behind prompts of one length, so that none is padded."""
        ids = torch.tensor(prompts)
        options = {"do_sample": False, "max_new_tokens": self.num_tokens, "pad_token_id": 0}
        out = self.theirs.generate(ids, attention_mask=torch.ones_like(ids), **(options | shape))
        ends = shape.get("eos_token_id", [])
        made = []
        for tokens in out[:, ids.shape[1] :].tolist():
            end = next((at for at, token in enumerate(tokens, 1) if token in ends), len(tokens))
            made.append(tokens[:end])
        return made

    def check(self, made: Made, expected: list[int], prompt: list[int]) -> None:
        """The same tokens, up to one that float32 cannot tell from another.

        Each of two logits may be off by the rounding error of transformers' own float32 in
        transformers and by twice that here; a penalty multiplies it.
        """
        if made.tokens == expected:
            return
        pairs = list(zip(made.tokens, expected, strict=False))
        at = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), -1)
        assert at >= 0, f"{len(made.tokens)} tokens against {len(expected)}, else the same"
        ours, theirs = pairs[at]
        ids = torch.tensor([prompt + expected[:at]])
        with torch.inference_mode():
            rounded, exact = (model(ids).logits[0, -1] for model in (self.theirs, self.exact))
        bound = 2 * (1 + 2) * PENALTY * float((rounded - exact).abs().max())
        margin = float(made.rows[at, ours] - made.rows[at, theirs])
        assert margin <= bound, f"token {at}: {ours} against {theirs}, {margin:.2e} > {bound:.2e}"


def stop_string(tokens: Sequence[int]) -> str:
    """Text of two tokens behind the middle of `tokens`; of one character if no two have any."""
    for at in range(len(tokens) // 2, len(tokens) - 2):
        text: str = tokenizer().decode(tokens[at : at + 2])
        if len(text) > 1 and text.isprintable() and "\ufffd" not in text:
            return text
    return "e"


def decode_all(engine: Engine, prompts: list[list[int]], first: int) -> Counter[tuple[str, str]]:
    """Prompts of one length, the first of which has number `first`, in all ways.

    Returns:
        how many tokens were "drafted" and "accepted", by way.
    """
    counts: Counter[tuple[str, str]] = Counter()
    greedy = engine.transformers(prompts, {})
    for name, common in SHAPES.items():
        shapes, expected = [common] * len(prompts), greedy
        if name == "stop strings":
            strings = [stop_string(tokens) for tokens in greedy]
            shapes = [{"stop_strings": string, "tokenizer": tokenizer()} for string in strings]
            # One by one: transformers goes on with a sequence that has ended beside others.
            pairs = zip(prompts, shapes, strict=True)
            expected = [engine.transformers([prompt], shape)[0] for prompt, shape in pairs]
        elif common:
            expected = engine.transformers(prompts, common)
        for number, prompt in enumerate(prompts):
            llm = engine.llms[(first + number) % len(engine.llms)]
            plain = engine.plain(llm, prompt, shapes[number])
            engine.check(plain, expected[number], prompt)
            ways = {title: way for title, way in WAYS.items() if way.shape == name}
            for title, way in ways.items():
                made = engine.drafted(llm, prompt, way, plain, shapes[number])
                assert made.tokens == plain.tokens, title
                testing.assert_same_bits(made.rows, plain.rows)
                counts[title, "drafted"] += made.num_drafted
                counts[title, "accepted"] += made.num_accepted
    return counts
