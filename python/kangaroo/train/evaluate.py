"""How good a drafter a student is: on held-out text, and on the target's own greedy text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.train.documents import DataError
from kangaroo.train.loss import chunk_rows, logits_of
from kangaroo.train.simulate import Trace
from kangaroo.train.student import Student
from kangaroo.train.target import FrozenTarget, States
from kangaroo.train.windows import Windows


@dataclass(frozen=True)
class Agreement:
    """Teacher-forced scores by delta.

    Attributes:
        deltas: distances to the newest verified slot.
        agreement: fraction of slots where the student's best token is the target's.
        confidence: mean probability of the student's best token.
        num_slots: slots scored.
    """

    deltas: tuple[int, ...]
    agreement: tuple[float, ...]
    confidence: tuple[float, ...]
    num_slots: int


@dataclass(frozen=True)
class Judge:
    """A target and a student, side by side.

    Attributes:
        rope: [2, P, D / 2] float32; batch_size: sequences per forward pass.
    """

    target: FrozenTarget
    student: Student
    rope: Tensor
    batch_size: int

    @torch.no_grad()
    def teacher_forced(self, windows: Windows, deltas: Sequence[int]) -> Agreement:
        """Scores on the trained slots of `windows`."""
        agreed, sure = torch.zeros(2, len(deltas), dtype=torch.float64)
        for first in range(0, len(windows), self.batch_size):
            batch = windows[first : first + self.batch_size]
            keep = batch.mask.to(self.rope.device)
            states = self.target.states(batch.ids, batch.positions)
            agree, sure_of = self._guesses(states, keep, deltas)
            agreed += agree.double().sum(1).cpu()
            sure += sure_of.double().sum(1).cpu()
        num_slots = int(windows.mask.sum())
        agreement, confidence = (agreed / num_slots).tolist(), (sure / num_slots).tolist()
        return Agreement(tuple(deltas), tuple(agreement), tuple(confidence), num_slots)

    def greedy_trace(self, prompts: Tensor, new_tokens: int, max_depth: int) -> Trace:
        """Guesses, delta 1..max_depth, along greedy continuations of prompts [N, P]."""
        return self.trace(
            self.continued(prompts, new_tokens), prompts.shape[1], new_tokens, max_depth
        )

    def continued(self, prompts: Tensor, new_tokens: int) -> list[Tensor]:
        """Greedy continuations [B, P + n] of batches of prompts [N, P]: the target's alone."""
        batches = prompts.split(self.batch_size)
        return [self.target.continue_greedily(batch, new_tokens) for batch in batches]

    @torch.no_grad()
    def trace(
        self, continued: Sequence[Tensor], prompt_len: int, new_tokens: int, max_depth: int
    ) -> Trace:
        """Guesses, delta 1..max_depth, along what `continued` returned."""
        parts, lengths = [], list[int]()
        for ids in continued:
            new_slots = ids.shape[1] - prompt_len
            keep = torch.zeros_like(ids, dtype=torch.bool)
            keep[:, prompt_len - 1 : -1] = True
            agree, confidence = self._guesses(
                self.target.states(ids), keep, range(1, max_depth + 1)
            )
            pad = (0, new_tokens - new_slots)
            parts.append(
                [
                    F.pad(rows.unflatten(1, (len(ids), new_slots)), pad).cpu()
                    for rows in (agree, confidence)
                ]
            )
            lengths += until_eos(ids[:, prompt_len:], self.target.eos_ids)
        agree, confidence = (torch.cat(rows, dim=1) for rows in zip(*parts, strict=True))
        return Trace(agree, confidence, tuple(lengths))

    def _guesses(
        self, states: States, keep: Tensor, deltas: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """At the M slots of keep [B, T]: agreement [len(deltas), M] bool, confidence float32."""
        truth, _ = top1(states.normed[keep], self.target.head)
        agree, confidence = list[Tensor](), list[Tensor]()
        last: Tensor | None = None
        for delta, out in zip(deltas, self.student.hidden(states, self.rope, deltas), strict=True):
            if out is not last:  # who does not know delta says the same again
                token, sure = top1(out[keep], self.student.head(delta, self.target.head))
                last = out
            agree.append(token == truth)
            confidence.append(sure)
        return torch.stack(agree), torch.stack(confidence)


def top1(hidden: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    """Best token [M] int64 and its probability [M] float32 of hidden [M, C] under head [V, C]."""
    tokens, probabilities = [], []
    for rows in hidden.split(chunk_rows(head)):
        logits = logits_of(rows, head)
        best, token = logits.max(dim=-1)
        tokens.append(token)
        probabilities.append((best - logits.logsumexp(-1)).exp())
    return torch.cat(tokens), torch.cat(probabilities)


def greedy_prompts(windows: Windows, count: int, prompt_len: int, bos_id: int | None) -> Tensor:
    """Up to `count` prompts [N, prompt_len] int64, each ending where an answer is to be written.

    Of every document of a window the first such place that leaves room for `prompt_len` tokens is
    taken; what is further back is left out, but for the beginning-of-sequence token.

    Raises:
        DataError: no document has such a place.
    """
    found = []
    begins = torch.arange(windows.ids.shape[1]) - windows.positions
    fits = windows.mask & (windows.positions >= prompt_len - 1)
    for ids, begin, fit in zip(windows.ids, begins, fits, strict=True):
        for document in begin[fit].unique():
            stop = int((fit & (begin == document)).nonzero()[0]) + 1
            found.append(ids[stop - prompt_len : stop].clone())
    if not found:
        raise DataError(
            f"prompt_len: no held-out window has {prompt_len} tokens of a document in front of a "
            f"trained one; expected a smaller prompt_len, or more data"
        )
    count = min(count, len(found))
    prompts = torch.stack([found[i * len(found) // count] for i in range(count)])
    if bos_id is not None:
        prompts[:, 0] = bos_id
    return prompts


def until_eos(new: Tensor, eos_ids: Sequence[int]) -> list[int]:
    """Tokens of each row of new [N, S] up to and including the first end token."""
    ended = torch.isin(new, torch.tensor(eos_ids, device=new.device, dtype=new.dtype))
    before = (ended.cumsum(1) - ended.long()) == 0
    lengths: list[int] = before.sum(1).tolist()
    return lengths
