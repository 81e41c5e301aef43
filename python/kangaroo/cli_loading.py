"""Loading, for commands: what transformers has to say about it is no news to their users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kangaroo.engine.llm import KangarooForCausalLM


def load(model: str, adapter: str | None, **options: Any) -> KangarooForCausalLM:
    """See :meth:`KangarooForCausalLM.from_pretrained`."""
    from transformers.utils import logging

    from kangaroo.engine.llm import KangarooForCausalLM

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return KangarooForCausalLM.from_pretrained(model, adapter, **options)
