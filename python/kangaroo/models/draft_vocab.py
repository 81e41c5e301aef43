"""The draft vocabulary: tokens that may be drafted, the most frequent ones of some text (FR-Spec,
arXiv 2502.14856). A file of them belongs to the tokenizer whose tokens were counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from kangaroo.models.files import check_fields, check_free, flush, read_json

FORMAT, VERSION, NOUN = "kangaroo-draft-vocab", 1, "draft vocabulary"
KINDS = {
    "format": str,
    "version": int,
    "vocab_size": int,
    "tokenizer": str,
    "coverage": float,
    "token_ids": list,
}


def most_frequent(counts: Tensor, size: int, always: Iterable[int]) -> list[int]:
    """`size` tokens in increasing order: those of `always`, and the most frequent by counts [V];
    ties go to the lowest id.

    Raises:
        ValueError: a size that cannot be, or an id that is no token's.
    """
    least = set(always)
    if not max(len(least), 1) <= size <= len(counts):
        raise ValueError(f"size: expected {max(len(least), 1)} to {len(counts)}, got {size}")
    if bad := [token for token in sorted(least) if not 0 <= token < len(counts)]:
        raise ValueError(f"eos_token_id: expected ids in [0, {len(counts)}), got {bad[0]}")
    ranked = counts.sort(descending=True, stable=True).indices.tolist()
    others = [token for token in ranked if token not in least]
    return sorted([*least, *others[: size - len(least)]])


def save_draft_vocab(file: Path, ids: Sequence[int], counts: Tensor, tokenizer: str) -> float:
    """Write `ids` for a target of len(counts) tokens whose tokenizer has this sha256, whole or not
    at all; a draft vocabulary that is there is replaced.

    Returns:
        the share of what was counted that may be drafted.

    Raises:
        ValueError: nothing was counted, or as :func:`kangaroo.models.files.check_free`.
    """
    check_free(file, FORMAT, NOUN)
    if not (total := int(counts.sum())):
        raise ValueError("counts: expected at least one token, got none")
    coverage = int(counts[torch.tensor(ids)].sum()) / total
    content = {
        "format": FORMAT,
        "version": VERSION,
        "vocab_size": len(counts),
        "tokenizer": tokenizer,
        "coverage": coverage,
        "token_ids": list(ids),
    }
    with TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as workshop:
        new = Path(workshop, "new")
        new.write_text(json.dumps(content) + "\n", encoding="utf-8")
        flush(new)
        new.replace(file)
    return coverage


def read_draft_vocab(file: Path, vocab_size: int, tokenizer: str) -> list[int]:
    """The ids that :func:`save_draft_vocab` wrote.

    Raises:
        ValueError: not such a file, or it was made for another target.
    """
    content = read_json(file)
    own = {
        "format": FORMAT,
        "version": VERSION,
        "vocab_size": vocab_size,
        "tokenizer": tokenizer,
    }
    for name, expected in own.items():
        if content.get(name) != expected:
            raise ValueError(f"{file}: {name}: expected {expected!r}, got {content.get(name)!r}")
    check_fields(f"{file}", content, KINDS)
    ids: list[int] = content["token_ids"]
    return ids


def vocab_tensor(ids: Sequence[int], vocab_size: int) -> Tensor:
    """`ids` as DraftHead takes them: [R] int32.

    Raises:
        ValueError: none, or not whole numbers in [0, vocab_size), each larger than the one before.
    """
    if not ids:
        raise ValueError("draft_vocab: expected at least one token id, got none")
    before = -1
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise ValueError(f"draft_vocab: expected ids in [0, {vocab_size}), got {token!r}")
        if token <= before:
            raise ValueError(
                f"draft_vocab: expected strictly increasing ids, got {[before, token]}"
            )
        before = token
    return torch.tensor(ids, dtype=torch.int32)
