"""The command that chooses the tokens that may be drafted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal


def draft_vocab(
    *,
    model: opt.Model = "tiny-py",
    data: Annotated[Path, typer.Option(help="Texts or conversations, .txt or .jsonl.")],
    size: Annotated[int, typer.Option(help="Tokens, those that end a sequence included.")],
    out: Annotated[Path, typer.Option(help="File to write, FILE.json.")],
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Write the most frequent tokens of some text, for --draft-vocab.

    Drafts then cost fewer bytes and are accepted less often; the output is the same.
    """
    from kangaroo.engine.generation import eos_list
    from kangaroo.engine.loading import generation_config, load_tokenizer, target_path
    from kangaroo.models.draft_vocab import FORMAT, NOUN, most_frequent, save_draft_vocab
    from kangaroo.models.families import model_config
    from kangaroo.models.files import check_free
    from kangaroo.models.fingerprint import tokenizer_sha256
    from kangaroo.train.vocabulary import token_counts

    check_free(out, FORMAT, NOUN)
    path = target_path(model)
    tokenizer = load_tokenizer(path)
    counts = token_counts(data, tokenizer, model_config(path).vocab_size)
    ids = most_frequent(counts, size, eos_list(generation_config(path).eos_token_id))
    coverage = save_draft_vocab(out, ids, counts, tokenizer_sha256(path))
    if as_json:
        terminal.write_json({"out": out, "num_tokens": len(ids), "coverage": coverage})
    else:
        terminal.show(f"wrote {out}: {len(ids)} tokens, {100 * coverage:.1f} % of the text")
