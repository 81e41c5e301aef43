"""What all rows train and are judged on: windows, prompts, and what the target writes."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.ablations.rows import Settings
from kangaroo.train.documents import Document
from kangaroo.train.evaluate import greedy_prompts, until_eos
from kangaroo.train.target import FrozenTarget
from kangaroo.train.windows import Windows, WindowSet
from kangaroo.zoo import corpus

AT_ONCE = 64  # prompts that the target continues together


class Texts:
    """Files of the standard library: some to train on, of the others the code and the prose.

    Args:
        folder: where what the target writes is kept.
    """

    def __init__(self, settings: Settings, target: FrozenTarget, path: Path, folder: Path):
        self.settings, self.target, self.folder = settings, target, folder
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        train, held = corpus.split(corpus.stdlib_files())
        self.num_windows = settings.num_steps * settings.batch_size
        self.files = self._some(train)
        self.held_texts = {"code": held, "prose": list(docstrings(held))}

    def documents_of(self, texts: list[str]) -> list[Document]:
        """Tokens of whole texts."""
        eos = self.tokenizer.eos_token_id
        return [Document(torch.tensor([*ids, eos])) for ids in self.tokenizer(texts)["input_ids"]]

    def _some(self, texts: list[str]) -> list[Document]:
        """Files in a random order, enough for the windows of all steps."""
        chosen = random.Random(0).sample(texts, len(texts))
        wanted, got, documents = (self.num_windows + 2) * self.settings.seq_len, 0, list[Document]()
        while chosen and got < wanted:
            documents += self.documents_of([chosen.pop()])
            got += len(documents[-1].ids)
        if got < wanted:
            raise ValueError(f"num_steps: expected windows of at most {got} tokens, got {wanted}")
        return documents

    @cached_property
    def answers(self) -> list[Document]:
        """What the target writes behind beginnings of the training windows."""
        given = self.settings
        kept = self.folder / f"answers-{self.num_windows}x{given.seq_len}.safetensors"
        if not kept.exists():
            windows = self.window_set(self.files).evenly()
            prompts = self._prompts(windows, self.num_windows)
            new_tokens = given.seq_len - given.prompt_len
            found = torch.full((len(prompts), given.seq_len), self.tokenizer.eos_token_id)
            for rows, some in zip(found.split(AT_ONCE), prompts.split(AT_ONCE), strict=True):
                ids = self.target.continue_greedily(some, new_tokens)
                rows[:, : ids.shape[1]] = ids
            part = kept.with_suffix(".part")
            save_file({"ids": found}, part)
            part.rename(kept)
        ids = load_file(kept)["ids"]
        lengths = until_eos(ids[:, given.prompt_len :], self.target.eos_ids)
        ends = [given.prompt_len + length for length in lengths]
        return [Document(row[:end]) for row, end in zip(ids, ends, strict=True)]

    def window_set(self, documents: list[Document], seed: int = 0) -> WindowSet:
        """Windows of documents, in the order of a seed."""
        own = self.tokenizer
        return WindowSet(
            documents,
            self.settings.seq_len,
            own.bos_token_id,
            [own.eos_token_id],
            seed=seed,
            moving=False,
        )

    def _prompts(self, windows: Windows, count: int) -> Tensor:
        own = self.tokenizer
        return greedy_prompts(windows, count, self.settings.prompt_len, own.bos_token_id)

    @cached_property
    def held(self) -> dict[str, WindowSet]:
        """Held-out windows of each kind of text."""
        return {
            kind: self.window_set(self.documents_of(texts))
            for kind, texts in self.held_texts.items()
        }

    def prompts(self, kind: str, count: int) -> Tensor:
        """Held-out prompts [N, P]."""
        return self._prompts(self.held[kind].evenly(), count)

    @cached_property
    def continued(self) -> dict[str, list[Tensor]]:
        """What the target writes behind the prompts of each kind."""
        return {kind: self.written(kind, self.settings.num_prompts, 8) for kind in self.held_texts}

    def written(self, kind: str, num_prompts: int, at_once: int) -> list[Tensor]:
        """Batches of greedy continuations [at_once, P + n] of held-out prompts."""
        batches = self.prompts(kind, num_prompts).split(at_once)
        return [self.target.continue_greedily(some, self.settings.new_tokens) for some in batches]


def docstrings(sources: Iterable[str], least: int = 400) -> Iterator[str]:
    """English: the documentation strings of at least so many characters in Python sources."""
    places = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # files that test parsers
            continue
        for node in ast.walk(tree):
            if isinstance(node, places) and len(text := ast.get_docstring(node) or "") >= least:
                yield text
