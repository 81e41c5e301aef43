"""Small things to train with: a byte-level tokenizer, data files, a target on disk, a config."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from kangaroo.train.config import EvalConfig, TrainConfig
from tests.factories import make_checkpoint

BOS, EOS, TURN, END = "<s>", "</s>", "<turn>", "<end>"
SPECIAL = (
    "<unk>",
    BOS,
    EOS,
    TURN,
    END,
)  # ids 0 to 4; the factories' targets begin with 1 and end with 2
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def make_tokenizer(
    chat_template: str | None = None, *, adds_bos: bool = True
) -> PreTrainedTokenizerFast:
    """263 tokens: special ones, bytes, and two of two bytes: " y" and "he"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate((*SPECIAL, *alphabet, "Ġy", "he"))}
    bpe = Tokenizer(models.BPE(vocab, [("Ġ", "y"), ("h", "e")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    if adds_bos:
        bpe.post_processor = processors.TemplateProcessing(f"{BOS} $A", special_tokens=[(BOS, 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, eos_token=EOS)
    tokenizer.chat_template = chat_template
    return tokenizer


def write_jsonl(path: Path, records: Iterable[Any]) -> Path:
    """One line each; strings are written as they are."""
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def make_target(path: Path, family: str = "llama") -> Path:
    """A random target of four layers with its tokenizer."""
    make_tokenizer().save_pretrained(path)
    return make_checkpoint(path, family)


def make_config(
    folder: Path, target: Path, changes: Mapping[str, Any] | None = None
) -> TrainConfig:
    """A run of six small steps on a few texts in `folder`; changes as of :func:`changed`."""
    texts = [{"text": f"{n} kangaroos hop, {n + 1} sleep; yes, {'he' * n}. "} for n in range(24)]
    data = write_jsonl(folder / "data.jsonl", texts)
    config = TrainConfig(target, data, folder / "adapter", device="cpu", checkpoint_every=2)
    fields = {"adapter.exit_layer": 2, "adapter.max_depth": 3, "optim.num_steps": 6}
    fields |= {"optim.warmup_steps": 2, "windows.batch_size": 2, "windows.seq_len": 24}
    evaluation = EvalConfig(every=3, num_windows=3, num_prompts=3, prompt_len=6, new_tokens=9)
    fields |= {"windows.held_out_fraction": 0.2, "eval": evaluation}
    return changed(config, fields | dict(changes or {}))


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`config` with other values by dotted name: {"optim.lr": 1e-3}."""
    for name, value in changes.items():
        section, _, field = name.rpartition(".")
        if section:
            value = replace(getattr(config, section), **{field: value})
        config = replace(config, **{section or field: value})
    return config
