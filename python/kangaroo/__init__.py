"""Lossless self-speculative decoding of a model's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kangaroo.engine.llm import KangarooForCausalLM as KangarooForCausalLM

__all__ = ["KangarooForCausalLM"]


def __getattr__(name: str) -> Any:
    """Load the engine, and with it torch and transformers, when it is first asked for."""
    if name == "KangarooForCausalLM":
        from kangaroo.engine.llm import KangarooForCausalLM

        return KangarooForCausalLM
    raise AttributeError(f"module 'kangaroo' has no attribute {name!r}")
