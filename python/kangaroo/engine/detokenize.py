"""Token ids to text as they come, never a piece of a character."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

CONTEXT = 6  # tokens in front that may change how the next one is spelled (a leading space, say)
UNFINISHED = (
    "\N{REPLACEMENT CHARACTER}"  # what tokenizers write for bytes that are no character yet
)


class Detokenizer:
    """Text behind a prompt; special tokens have none.

    Each piece is the difference between two decodings of a short window, so that a long text costs
    no more per token than a short one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]):
        self._tokenizer = tokenizer
        self._window = list(prompt[-CONTEXT:])
        self._written = len(self._window)

    def add(self, token: int) -> str:
        """The text that `token` completes; "" while it is unfinished."""
        self._window.append(token)
        text = self._pending()
        if not text or text.endswith(UNFINISHED):
            return ""
        self._window = self._window[-CONTEXT:]
        self._written = len(self._window)
        return text

    def end(self) -> str:
        """What is left, unfinished as it is."""
        text, self._written = self._pending(), len(self._window)
        return text

    def _pending(self) -> str:
        before, after = (
            str(
                self._tokenizer.decode(
                    ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
                )
            )
            for ids in (self._window[: self._written], self._window)
        )
        return after[len(before) :]


def text_of(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], token_ids: Sequence[int]
) -> str:
    """The text of `token_ids` behind `prompt`: what a Detokenizer writes in all."""
    pieces = Detokenizer(tokenizer, prompt)
    return "".join([pieces.add(token) for token in token_ids] + [pieces.end()])
