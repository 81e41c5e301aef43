"""Training data, tokenised and split once: a folder that `train` takes.

train.jsonl and held-out.jsonl hold {"input_ids", "loss_mask"}, the mask null for plain text;
rejects.jsonl what could not be used, by file, line and reason; manifest.json where all came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from kangaroo.config import ModelConfig
from kangaroo.engine.generation import eos_list
from kangaroo.engine.loading import generation_config, load_tokenizer
from kangaroo.environment import versions
from kangaroo.models.families import model_config
from kangaroo.models.files import file_sha256, read_json
from kangaroo.models.fingerprint import tokenizer_sha256
from kangaroo.train.documents import (
    DataError,
    Document,
    Rejected,
    bos_of,
    read_documents,
    scan,
)
from kangaroo.train.staging import require_free, whole_folder, write_lines
from kangaroo.train.windows import WindowSet, split_documents

FORMAT, VERSION = "kangaroo-data", 1
TRAIN, HELD_OUT = "train.jsonl", "held-out.jsonl"
REJECTS, MANIFEST = "rejects.jsonl", "manifest.json"


def prepare_data(
    model: Path, data: Sequence[Path], out: Path, held_out_fraction: float, seq_len: int
) -> dict[str, Any]:
    """Write what files hold for a target to folder `out`; returns the manifest.

    Args:
        model: the target's folder, whose tokenizer and chat template are used.
        data: .jsonl and .txt files, see `read_documents`; a conversation that is longer than the
            target's context is rejected.
        held_out_fraction: see `split_documents`.
        seq_len: of the windows that the manifest counts.

    Raises:
        ValueError: `out` exists, a file cannot be read, or there is too little that can be used.
    """
    require_free(out)
    if not 0 < held_out_fraction < 1:
        raise ValueError(f"held_out_fraction: expected between 0 and 1, got {held_out_fraction}")
    if seq_len < 2:
        raise ValueError(f"seq_len: expected at least 2, got {seq_len}")
    target, tokenizer = model_config(model), load_tokenizer(model)
    documents, rejects, sources = _scan(data, tokenizer, target)
    if not documents:
        first = f"; the first line rejected: {rejects[0]}" if rejects else ""
        raise DataError(f"data: expected at least one document that can be used, got none{first}")
    train, held_out = split_documents(documents, held_out_fraction)
    parts = {TRAIN: train, HELD_OUT: held_out}
    windows = {name: _windows(part, model, tokenizer, seq_len) for name, part in parts.items()}
    with whole_folder(out) as folder:
        for name, part in parts.items():
            write_lines(folder / name, map(_record, part))
        write_lines(folder / REJECTS, map(asdict, rejects))
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            **fingerprints(model, tokenizer),
            "options": {"held_out_fraction": held_out_fraction, "seq_len": seq_len},
            "sources": sources,
            "files": {
                name: _counts(folder / name, part, len(windows[name]))
                for name, part in parts.items()
            },
            "num_rejected": len(rejects),
            "versions": versions(),
        }
        content = json.dumps(manifest, indent=2) + "\n"
        (folder / MANIFEST).write_text(content, encoding="utf-8")
    return manifest


def training_documents(
    data: Path, model: Path, tokenizer: PreTrainedTokenizerBase, held_out_fraction: float
) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents of a file, or of a folder that `prepare_data` wrote.

    Args:
        held_out_fraction: of a file; a folder has been split.

    Raises:
        ValueError: the file cannot be used, or the folder is none of these, has changed or was made
            with another tokenizer or chat template.
    """
    vocab_size = model_config(model).vocab_size
    if not data.is_dir():
        return split_documents(read_documents(data, tokenizer, vocab_size), held_out_fraction)
    manifest = read_json(data / MANIFEST)
    own = {"format": FORMAT, "version": VERSION, **fingerprints(model, tokenizer)}
    for name, expected in own.items():
        if manifest.get(name) != expected:
            got = manifest.get(name)
            raise ValueError(f"{data / MANIFEST}: {name}: expected {expected!r}, got {got!r}")
    for name in (TRAIN, HELD_OUT):
        if file_sha256(data / name) != manifest["files"][name]["sha256"]:
            raise ValueError(f"{data / name}: not the file that {MANIFEST} tells of")
    train, held_out = (
        read_documents(data / name, tokenizer, vocab_size) for name in (TRAIN, HELD_OUT)
    )
    return train, held_out


def _scan(
    files: Sequence[Path], tokenizer: PreTrainedTokenizerBase, target: ModelConfig
) -> tuple[list[Document], list[Rejected], list[dict[str, Any]]]:
    """Documents and rejected lines of all files, and what the manifest says of each."""
    documents, rejects, sources = list[Document](), list[Rejected](), []
    vocab_size = min(target.vocab_size, len(tokenizer))
    for file in files:
        found = list(scan(file, tokenizer, vocab_size, target.max_seq_len))
        good = [each for each in found if isinstance(each, Document)]
        documents += good
        rejects += (each for each in found if isinstance(each, Rejected))
        counts = {"num_documents": len(good), "num_rejected": len(found) - len(good)}
        sources.append({"file": str(file), "sha256": file_sha256(file)} | counts)
    return documents, rejects, sources


def fingerprints(model: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """sha256 of what turns the target's texts and conversations into tokens, by name."""
    template = json.dumps(tokenizer.chat_template, sort_keys=True)
    digest = hashlib.sha256(template.encode()).hexdigest()
    return {"tokenizer": tokenizer_sha256(model), "chat_template": digest}


def _windows(
    documents: Iterable[Document], model: Path, tokenizer: PreTrainedTokenizerBase, seq_len: int
) -> WindowSet:
    ends = eos_list(generation_config(model).eos_token_id)
    if tokenizer.eos_token_id is not None:
        ends.append(tokenizer.eos_token_id)
    return WindowSet(documents, seq_len, bos_of(tokenizer), ends)


def _record(document: Document) -> dict[str, Any]:
    answer = document.answer
    mask = None if answer is None else answer.long().tolist()
    return {"input_ids": document.ids.tolist(), "loss_mask": mask}


def _counts(file: Path, documents: Sequence[Document], num_windows: int) -> dict[str, Any]:
    answers = (d.ids if d.answer is None else d.ids[d.answer] for d in documents)
    return {
        "sha256": file_sha256(file),
        "num_documents": len(documents),
        "num_tokens": sum(len(d.ids) for d in documents),
        "num_answer_tokens": sum(map(len, answers)),
        "num_windows": num_windows,
    }
