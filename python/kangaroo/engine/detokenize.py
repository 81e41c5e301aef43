"""Token ids to text as they come, never a piece of a character."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

CONTEXT = 6  # tokens in front that may change how the next one is spelled (a leading space, say)
UNFINISHED = (
    "\N{REPLACEMENT CHARACTER}"  # what tokenizers write for bytes that are no character yet
)


class Detokenizer:
    """Text behind a prompt, from the character on that new tokens complete; special tokens have
    none.

    Each piece is the difference between two decodings of a short window, so that a long text costs
    no more per token than a short one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]):
        self._tokenizer = tokenizer
        size = CONTEXT
        while size < len(prompt) and self._decode(prompt[-size:]).startswith(UNFINISHED):
            size *= 2  # it would begin inside a character, which may spoil others behind it
        self._window = list(prompt[-size:])
        self._written = len(self._window)

    def add(self, token: int) -> str:
        """The text that `token` completes; "" while it is unfinished."""
        self._window.append(token)
        start, text = self._pending()
        if not text or text.endswith(UNFINISHED):
            return ""
        self._window = self._window[start:]  # whole characters
        self._written = len(self._window)
        return text

    def end(self) -> str:
        """What is left, unfinished as it is."""
        _, text = self._pending()
        self._written = len(self._window)
        return text

    def _pending(self) -> tuple[int, str]:
        """Where in the window it begins, and the text."""
        start, after = self._written, self._decode(self._window)
        before = self._decode(self._window[:start])
        while before.endswith(UNFINISHED) and not after.startswith(before):
            start -= 1  # back to where the character begins that the prompt left unfinished
            before = self._decode(self._window[:start])
        return start, after[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


def text_of(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], token_ids: Sequence[int]
) -> str:
    """The text of `token_ids` behind `prompt`: what a Detokenizer writes in all."""
    pieces = Detokenizer(tokenizer, prompt)
    return "".join([pieces.add(token) for token in token_ids] + [pieces.end()])
