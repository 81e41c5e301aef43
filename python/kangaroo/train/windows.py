"""Windows of equal length out of documents: what is held out, what a step trains on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kangaroo.train.documents import DataError, Document


@dataclass(frozen=True)
class Windows:
    """N windows of T slots.

    Attributes:
        ids: [N, T] int64; mask: [N, T] bool, slots that are trained: the token *behind* the slot is
            one that the drafter would have to guess.
    """

    ids: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Windows:
        return Windows(self.ids[rows], self.mask[rows])


def split_documents(
    documents: list[Document], held_out_fraction: float
) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents, by a hash of their tokens: equal documents stay together.

    A single document is cut in two instead; the held-out part is its end.

    Raises:
        DataError: all documents are equal.
    """
    if len(documents) == 1:
        (whole,) = documents
        cut = min(max(round(len(whole.ids) * (1 - held_out_fraction)), 1), len(whole.ids) - 1)
        answers = (None, None) if whole.answer is None else (whole.answer[:cut], whole.answer[cut:])
        halves = (whole.ids[:cut], whole.ids[cut:])
        train, held = map(Document, halves, answers)
        return [train], [held]
    ranks = [_hash_fraction(document.ids) for document in documents]
    levels = sorted(set(ranks))
    if len(levels) < 2:
        raise DataError("expected documents that differ, so that some can be held out")
    # However small the data, something is held out and something is trained on.
    threshold = min(max(held_out_fraction, levels[0]), levels[-2])
    train_documents = [d for d, rank in zip(documents, ranks, strict=True) if rank > threshold]
    held_documents = [d for d, rank in zip(documents, ranks, strict=True) if rank <= threshold]
    return train_documents, held_documents


def _hash_fraction(ids: Tensor) -> float:
    digest = hashlib.sha256(ids.numpy().tobytes()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class WindowSet:
    """Windows of `seq_len` slots over documents, in an order that (seed, sample number) decides.

    Plain texts are joined into one stream, which is cut at a new offset every epoch (`moving`) or
    always at the same places; a conversation is cut by itself, its last window padded on the right.
    Every window starts with `bos_id`, the attention sink that decoding always has (None: the
    tokenizer has no such token). Nothing is trained behind an end-of-sequence token: decoding stops
    there.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        seq_len: int,
        bos_id: int | None,
        eos_ids: Iterable[int],
        *,
        seed: int = 0,
        moving: bool = True,
    ):
        documents = list(documents)
        self.seq_len, self.bos_id, self.seed, self.moving = seq_len, bos_id, seed, moving
        ends = torch.tensor(sorted(eos_ids), dtype=torch.int64)
        texts = [d.ids for d in documents if d.answer is None]
        stream = torch.cat(texts) if texts else torch.empty(0, dtype=torch.int64)
        self.stream, self.stream_mask = _trained(stream, None, ends)
        chats = [
            _padded(*_trained(d.ids, d.answer, ends), seq_len)
            for d in documents
            if d.answer is not None
        ]
        if 1 < len(stream) < seq_len:
            chats.append(_padded(self.stream, self.stream_mask, seq_len))
        self.num_streamed = max(len(stream) // seq_len - 1, min(len(stream) // seq_len, 1))
        ids = torch.cat([c.ids for c in chats]) if chats else stream.new_empty(0, seq_len)
        mask = torch.cat([c.mask for c in chats]) if chats else ids.bool()
        useful = mask.any(dim=1)
        self.fixed = Windows(ids[useful], mask[useful])
        if not len(self):
            raise DataError("expected at least one token to train on: all are masked out")

    def __len__(self) -> int:
        """Windows of an epoch."""
        return self.num_streamed + len(self.fixed)

    def evenly(self, count: int | None = None) -> Windows:
        """`count` windows [N, T] (or all) spread evenly over the documents, in their order."""
        count = len(self) if count is None else min(count, len(self))
        return self._gather([w * len(self) // count for w in range(count)], offset=0)

    def sample(self, first: int, count: int) -> Windows:
        """Samples [first, first + count) of the endless shuffled order: windows [count, T]."""
        parts = []
        while count:
            epoch, start = divmod(first, len(self))
            rng = torch.Generator().manual_seed(
                random.Random(f"{self.seed}/{epoch}").getrandbits(63)
            )
            order = torch.randperm(len(self), generator=rng)
            slack = len(self.stream) - self.num_streamed * self.seq_len
            offset = int(torch.randint(min(slack, self.seq_len - 1) + 1, (), generator=rng))
            offset = offset if self.moving else 0
            parts.append(self._gather(order[start : start + count].tolist(), offset))
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return Windows(torch.cat([p.ids for p in parts]), torch.cat([p.mask for p in parts]))

    def _gather(self, windows: list[int], offset: int) -> Windows:
        ids, mask = [], []
        for window in windows:
            if window < self.num_streamed:
                start = offset + window * self.seq_len
                ids.append(self.stream[start : start + self.seq_len])
                mask.append(self.stream_mask[start : start + self.seq_len])
            else:
                ids.append(self.fixed.ids[window - self.num_streamed])
                mask.append(self.fixed.mask[window - self.num_streamed])
        rows = Windows(torch.stack(ids), torch.stack(mask))
        if self.bos_id is not None:
            rows.ids[:, 0] = self.bos_id
        return rows


def _trained(ids: Tensor, answer: Tensor | None, ends: Tensor) -> tuple[Tensor, Tensor]:
    """(ids, mask), both [S]: s is trained if token s + 1 is an answer and token s ends nothing."""
    following = torch.ones(len(ids), dtype=torch.bool) if answer is None else answer
    mask = torch.zeros(len(ids), dtype=torch.bool)
    mask[:-1] = following[1:]
    return ids, mask & ~torch.isin(ids, ends)


def _padded(ids: Tensor, mask: Tensor, seq_len: int) -> Windows:
    """ids and mask [S] -> windows [ceil(S / seq_len), seq_len]; padding is not trained."""
    missing = -len(ids) % seq_len
    ids, mask = torch.cat([ids, ids.new_zeros(missing)]), torch.cat([mask, mask.new_zeros(missing)])
    return Windows(ids.view(-1, seq_len), mask.view(-1, seq_len))
