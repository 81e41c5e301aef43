"""How often a target's tokens are written: what a draft vocabulary is chosen by."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kangaroo.train.documents import bos_of, read_documents


def token_counts(file: Path, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor:
    """Tokens of the documents in `file`, of conversations the answers alone: [vocab_size] int64.
    What the tokenizer puts in front of a text is not counted: no one drafts it.

    Raises:
        DataError: see read_documents.
    """
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    for document in read_documents(file, tokenizer, vocab_size):
        written = document.ids if document.answer is None else document.ids[document.answer]
        counts += torch.bincount(written, minlength=vocab_size)
    if (bos := bos_of(tokenizer)) is not None:
        counts[bos] = 0
    return counts
