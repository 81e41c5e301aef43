"""Windows of equal length out of documents: what is held out, what a step trains on."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left, insort
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
        positions: [N, T] int64, of each slot in its document, of which alone it sees; 0 begins one.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Windows:
        return Windows(self.ids[rows], self.mask[rows], self.positions[rows])


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

    A window holds several documents where they are short. Plain texts are joined into one stream,
    which is cut at a new offset every epoch (`moving`) or always at the same places; a conversation
    is cut by itself, and what is shorter than a window is packed with others (best fit, longest
    first) and padded on the right. Every window of texts, and every piece of a conversation that
    begins with it, starts with `bos_id`, the attention sink that decoding has there (None: the
    tokenizer has no such token). All other tokens of a conversation are kept.
    Nothing is trained behind an end-of-sequence token: decoding stops there.

    Attributes:
        stream: [3, S] and packed: [N, 3, T], both int64: tokens; 1 where a slot is trained; 1 where
            a document begins.
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
        self.seq_len, self.bos_id, self.seed, self.moving = seq_len, bos_id, seed, moving
        ends = torch.tensor(sorted(eos_ids), dtype=torch.int64)
        texts, pieces = [torch.empty(3, 0, dtype=torch.int64)], list[Tensor]()
        for document in documents:
            slots = _slots(document, ends)
            if document.answer is None:
                texts.append(slots)
            else:
                sink = bos_id if slots[0, 0] == bos_id else None
                pieces += (_begun(piece, sink) for piece in slots.split(seq_len, dim=1))
        self.stream = torch.cat(texts, dim=1)
        length = self.stream.shape[1]
        if 1 < length < seq_len:
            pieces.append(_begun(self.stream, bos_id))
        self.num_streamed = max(length // seq_len - 1, min(length // seq_len, 1))
        self.packed = _packed([piece for piece in pieces if piece[1].any()], seq_len)
        if not len(self):
            raise DataError("expected at least one token to train on: all are masked out")

    def __len__(self) -> int:
        """Windows of an epoch."""
        return self.num_streamed + len(self.packed)

    def evenly(self, count: int | None = None) -> Windows:
        """`count` windows [N, T] (or all) spread evenly over the documents, in their order."""
        count = len(self) if count is None else min(count, len(self))
        return _windows(self._gather([w * len(self) // count for w in range(count)], offset=0))

    def sample(self, first: int, count: int) -> Windows:
        """Samples [first, first + count) of the endless shuffled order: windows [count, T]."""
        parts = []
        while count:
            epoch, start = divmod(first, len(self))
            rng = torch.Generator().manual_seed(
                random.Random(f"{self.seed}/{epoch}").getrandbits(63)
            )
            order = torch.randperm(len(self), generator=rng)
            slack = self.stream.shape[1] - self.num_streamed * self.seq_len
            offset = int(torch.randint(min(slack, self.seq_len - 1) + 1, (), generator=rng))
            offset = offset if self.moving else 0
            parts.append(self._gather(order[start : start + count].tolist(), offset))
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return _windows(torch.cat(parts))

    def _gather(self, windows: list[int], offset: int) -> Tensor:
        """[N, 3, T], as `packed`."""
        rows = []
        for window in windows:
            if window < self.num_streamed:
                start = offset + window * self.seq_len
                rows.append(_begun(self.stream[:, start : start + self.seq_len], self.bos_id))
            else:
                rows.append(self.packed[window - self.num_streamed])
        return torch.stack(rows)


def _slots(document: Document, ends: Tensor) -> Tensor:
    """[3, S]: slot s is trained if token s + 1 is an answer and token s ends nothing."""
    ids, answer = document.ids, document.answer
    slots = torch.zeros(3, len(ids), dtype=torch.int64)
    slots[0] = ids
    slots[1, :-1] = 1 if answer is None else answer[1:]
    slots[1, torch.isin(ids, ends)] = 0
    slots[2, :1] = 1
    return slots


def _begun(slots: Tensor, bos_id: int | None) -> Tensor:
    """A copy [3, S] that begins a document, with `bos_id` if there is one."""
    slots = slots.clone()
    slots[2, 0] = 1
    if bos_id is not None:
        slots[0, 0] = bos_id
    return slots


def _packed(pieces: list[Tensor], seq_len: int) -> Tensor:
    """Pieces [3, S], S <= seq_len -> [N, 3, seq_len]; padding begins like a document."""
    bins, rooms = list[list[int]](), list[tuple[int, int]]()  # rooms: (free slots, bin), sorted
    for piece in sorted(range(len(pieces)), key=lambda piece: -pieces[piece].shape[1]):
        length = pieces[piece].shape[1]
        if (place := bisect_left(rooms, (length, 0))) < len(rooms):
            room, chosen = rooms.pop(place)
        else:
            room, chosen = seq_len, len(bins)
            bins.append([])
        bins[chosen].append(piece)
        if room > length:
            insort(rooms, (room - length, chosen))
    packed = torch.zeros(len(bins), 3, seq_len, dtype=torch.int64)
    for window, members in zip(packed, sorted(sorted(members) for members in bins), strict=True):
        joined = torch.cat([pieces[member] for member in members], dim=1)
        window[2, joined.shape[1] :][:1] = 1
        window[:, : joined.shape[1]] = joined
    return packed


def _windows(slots: Tensor) -> Windows:
    """[N, 3, T] as `WindowSet.packed` -> windows."""
    ids, trained, begins = slots.unbind(dim=1)
    slot = torch.arange(slots.shape[2])
    positions = slot - (slot * begins).cummax(dim=1).values
    return Windows(ids, trained.bool(), positions)
