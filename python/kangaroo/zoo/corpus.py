"""The corpus of tiny-py: the Python standard library's own sources, split by whole files, and a BPE
of them.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
_MIN_FILE_BYTES, _MAX_FILE_BYTES = 200, 200_000
_HELD_OUT_ONE_IN = 25


def is_held_out(relative_path: str) -> bool:
    """The fixed rule of the split: one file in 25, by the SHA-256 of its path below the library's
    root.
    """
    return int(hashlib.sha256(relative_path.encode()).hexdigest(), 16) % _HELD_OUT_ONE_IN == 0


def stdlib_files(root: Path | None = None) -> dict[str, str]:
    """Sources of the running Python's standard library: {path below its root, POSIX: text}, in path
    order.

    Files under 200 bytes or over 200 kB are left out, as are site-packages.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(
        p for p in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(p.parts)
    )
    return {
        p.relative_to(root).as_posix(): p.read_text(encoding="utf-8", errors="ignore")
        for p in paths
        if _MIN_FILE_BYTES <= p.stat().st_size <= _MAX_FILE_BYTES
    }


def split(files: dict[str, str]) -> tuple[list[str], list[str]]:
    """(training texts, held-out texts), whole files, by :func:`is_held_out`."""
    train = [text for path, text in files.items() if not is_held_out(path)]
    return train, [text for path, text in files.items() if is_held_out(path)]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocab_size` entries with `<s>` = 0 in front of every text and `</s>` =
    1.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """All texts in order as one stream, each `<s> ... </s>`: [num_tokens] int64."""
    eos = tokenizer.eos_token_id
    return torch.tensor([token for ids in tokenizer(texts)["input_ids"] for token in (*ids, eos)])


def windows(
    stream: Tensor, length: int, bos_id: int, generator: torch.Generator | None = None
) -> Tensor:
    """Cut a stream into windows [num_windows, length + 1], each starting with `bos_id`.

    Every window sees the attention sink it will meet at inference. With a generator the cut starts
    at a random offset and the windows are shuffled; without, they come in order.
    """
    offset = 0 if generator is None else int(torch.randint(0, length, (), generator=generator))
    rows = (
        stream[offset : offset + (len(stream) - offset - 1) // length * length + 1]
        .unfold(0, length + 1, length)
        .clone()
    )
    rows[:, 0] = bos_id
    if generator is None:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)]
