"""Greedy ids beside those of transformers' `generate`; where they part, a float64 margin judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from kangaroo.evals.subject import Finding, Subject


class Transformers:
    """transformers' own model of the same folder, dtype and device.

    In float64 its norms and rotations stay in float32, as transformers writes them: of the order of
    a float32 ulp, far below what 16 bits do to a logit.
    """

    def __init__(self, path: Path, dtype: torch.dtype, device: torch.device):
        auto: Any = AutoModelForCausalLM
        model = auto.from_pretrained(path, dtype=dtype, local_files_only=True)
        self.model = model.to(device).eval()
        self.model.generation_config = GenerationConfig(pad_token_id=0)  # none of the folder's
        self.device = device

    @torch.inference_mode()
    def greedy(self, prompt: Sequence[int], max_new_tokens: int) -> tuple[list[int], Tensor]:
        """New ids, and the logits [N, V] float32 that they were chosen from."""
        ids = torch.tensor([prompt], device=self.device)
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return out.sequences[0, len(prompt) :].tolist(), torch.cat(out.logits)

    @torch.inference_mode()
    def exact(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind `ids` in float64, of the weights as they are in this dtype.

        The model stays in float64: ask for greedy ids first.
        """
        logits: Tensor = self.model.double()(torch.tensor([ids], device=self.device)).logits
        return logits[0, -1]


def margin(exact: Tensor, logits: Tensor, ours: int, theirs: int) -> dict[str, Any]:
    """How far two tokens lie below the best in float64, and how far ours may lie.

    Let l be the exact logits and e the largest error of a computation m, |m_i - l_i| <= e for all
    i. The token a that m makes the largest has l_a >= m_a - e >= m_b - e >= l_b - 2e for every b:
    it lies at most 2e below the best, and no arithmetic of that error can promise more. So we grant
    2e, with e as transformers' own logits err here, in this dtype, at this place: its own token
    never lies lower, and a decoder that is as exact as transformers may say any token that does
    not.

    Args:
        exact: [V] float64.
        logits: [V], transformers' own in the dtype that is verified.
        ours, theirs: the tokens; `theirs` is the largest of `logits`.
    """
    bound = 2 * float((logits.double() - exact).abs().max())
    below, their_margin = (float(exact.max() - exact[token]) for token in (ours, theirs))
    found = {"margin": below, "their_margin": their_margin, "bound": bound}
    return found | {"certified": below <= bound}


@dataclass(frozen=True)
class Parting:
    """Where a continuation leaves transformers'.

    Attributes:
        prompt: its number.
        drafting: the way of decoding.
        ours, theirs: new ids up to and including the first that differs; a list that ends in front
            of it is shorter.
        logits: [1, V], what transformers chose its token from; [0, V] where it has none.
    """

    prompt: int
    drafting: str
    ours: list[int]
    theirs: list[int]
    logits: Tensor

    def judged(self, prompt: Sequence[int], model: Transformers) -> dict[str, Any]:
        """For JSON, with the margin. That one of them ended is explained by no rounding."""
        place = max(len(self.ours), len(self.theirs)) - 1
        found = {"prompt": self.prompt, "drafting": self.drafting, "token": place}
        if len(self.ours) != len(self.theirs):
            ends = {"ours": len(self.ours), "theirs": len(self.theirs)}
            return found | {"lengths": ends, "margin": None, "certified": False}
        exact = model.exact([*prompt, *self.ours[:-1]])
        found |= {"ours": self.ours[-1], "theirs": self.theirs[-1]}
        return found | margin(exact, self.logits[0], self.ours[-1], self.theirs[-1])


def greedy_equality(subject: Subject) -> Finding:
    """Ids of every way of decoding beside transformers'; a difference needs a margin."""
    llm, num_tokens, partings = subject.llm, 0, []
    ours = {
        (number, mode): subject.ids(prompt, **subject.greedy | options)
        for number, prompt in enumerate(subject.prompts)
        for mode, options in subject.modes.items()
    }
    model = Transformers(llm.path, llm.model.weights.norm.dtype, llm.device)
    theirs = [model.greedy(each, subject.settings.max_new_tokens) for each in subject.prompts]
    for (number, mode), ids in ours.items():
        expected, logits = theirs[number]
        place = first_difference(ids, expected)
        num_tokens += len(ids) if place is None else place + 1
        if place is not None:
            ends = slice(0, place + 1)
            row = logits[place : place + 1]
            partings.append(Parting(number, mode, ids[ends], expected[ends], row))
    remarks = [parting.judged(subject.prompts[parting.prompt], model) for parting in partings]
    failures = [remark for remark in remarks if not remark["certified"]]
    counts = {
        "continuations": len(ours),
        "tokens": num_tokens,
        "divergences": len(remarks),
        "certified": len(remarks) - len(failures),
        "largest_margin": max((remark["margin"] or 0.0 for remark in remarks), default=0.0),
    }
    return Finding(counts, failures, remarks)


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The first place where two lists differ, their lengths included; None: they do not."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    shorter = min(len(ours), len(theirs))
    place = next((place for place, (a, b) in pairs if a != b), shorter)
    return None if place == len(ours) == len(theirs) else place
