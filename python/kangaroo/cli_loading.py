"""Loading, for commands: what transformers has to say about it is no news to their users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kangaroo import terminal

if TYPE_CHECKING:
    from kangaroo.engine.llm import KangarooForCausalLM


def load(model: str, adapter: str | None, **options: Any) -> KangarooForCausalLM:
    """See :meth:`KangarooForCausalLM.from_pretrained`; a terminal sees how far it is."""
    from transformers.utils import logging

    from kangaroo.engine.llm import KangarooForCausalLM

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with terminal.progress(num_bytes=True) as bar:
        task = bar.add_task("loading", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return KangarooForCausalLM.from_pretrained(
            model, adapter, on_progress=on_progress, **options
        )
