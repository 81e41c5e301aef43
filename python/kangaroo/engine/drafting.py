"""What a call of generate asks for of drafting: done or refused, never ignored; and by whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from numbers import Integral, Real
from typing import Any

from transformers import GenerationConfig

from kangaroo.config import MAX_TREE_NODES, TREE_CONFIDENCE, DraftConfig
from kangaroo.draft.base import Drafter
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.copying import CopyingDrafter
from kangaroo.draft.eagle import EagleDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.medusa import MedusaDrafter
from kangaroo.draft.sampled import SampledBranchingDrafter, SampledDrafter
from kangaroo.draft.whole import chain_drafter
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import DraftModule
from kangaroo.models.eagle import Eagle
from kangaroo.models.llama import Llama
from kangaroo.models.medusa import Medusa
from kangaroo_kernels.draft_head import DraftHead

DRAFT_OPTIONS = frozenset(field.name for field in fields(DraftConfig))
OF_TREES = ("draft_top_k", "max_nodes", "tree_widths")
OF_COPIES = ("lookup", "lookup_depth")
# transformers' words for `lookup_depth` and `lookup`. There the longest end of the text that has
# stood before, of at most so many tokens, is gone on with; here one of exactly as many.
PROMPT_LOOKUP = ("prompt_lookup_num_tokens", "max_matching_ngram_size")
MAX_MATCHING_NGRAM_SIZE = 2  # transformers' default
# With `tree_widths` the shape of a tree is given; nothing else has a say in it.
OF_DYNAMIC_TREES = ("draft_top_k", "max_nodes", "max_depth", "confidence")


def taken(options: dict[str, Any], config: GenerationConfig | None = None) -> dict[str, Any]:
    """The fields of DraftConfig, taken out of options of generate; transformers' words for two of
    them may stand in the caller's `config` too.

    Raises:
        ValueError: adaptive drafting beside speculative sampling, whose tokens for a seed would
            depend on who else is decoded (see draft/pace.py); or copies that are asked for
            twice, or cannot be.
    """
    given = {name: options.pop(name) for name in DRAFT_OPTIONS & options.keys()}
    depth, size = (options.get(name, getattr(config, name, None)) for name in PROMPT_LOOKUP)
    if depth is not None:
        size = MAX_MATCHING_NGRAM_SIZE if size is None else size
        given |= _copies(depth, size, given)
        options |= dict.fromkeys(PROMPT_LOOKUP)
    if options.get("draft_sampling") == "rejection" and given.get("adaptive"):
        raise ValueError("adaptive: has no effect on draft_sampling='rejection'; leave it out")
    return given


def _copies(depth: Any, size: Any, given: Mapping[str, Any]) -> dict[str, int]:
    """What transformers' words ask for, beside what is `given` in ours."""
    for name in OF_COPIES:
        if given.get(name) is not None:
            raise ValueError(f"{name}: has no effect beside {PROMPT_LOOKUP[0]}; leave one out")
    if not isinstance(depth, int) or not 1 <= depth < MAX_TREE_NODES:
        raise ValueError(f"{PROMPT_LOOKUP[0]}: expected 1 to {MAX_TREE_NODES - 1}, got {depth!r}")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{PROMPT_LOOKUP[1]}: expected at least 1, got {size!r}")
    return {"lookup": size, "lookup_depth": depth}


def draft_config(
    deployed: DraftConfig | None, num_layers: int, options: Mapping[str, Any]
) -> DraftConfig:
    """The adapter's deployed stopping rule, but for what is given here; None is not given.

    Args:
        deployed: the adapter's rule; None: there is no adapter.
        num_layers: of the target.
        options: fields of DraftConfig.

    Raises:
        ValueError: there is no adapter to draft with, nor `lookup`, or it was not made for this
            exit layer; an option has an impossible value or no effect.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - DRAFT_OPTIONS):
        raise ValueError(f"drafting has no option {', '.join(unknown)}")
    for name in ("tree_widths", "costs"):
        if isinstance(given.get(name), Iterable):
            given[name] = tuple(given[name])
    check_numbers(given)
    refuse_idle(given)
    copies = given.get("lookup", 0) > 0
    off = given.get("draft") == "off" or given.get("max_depth") == 0
    if deployed is None and copies:
        deployed = DraftConfig(exit_layer=1, max_depth=0, adaptive=True)
        for name in ("draft", "max_depth", "confidence"):
            if given.get(name, "chain") != "chain":
                raise ValueError(f"{name}: has no effect without an adapter; leave it out")
    elif deployed is None and not off:
        raise ValueError(
            "adapter: none is loaded, so nothing can be drafted; load one (adapter=DIR, "
            "--adapter DIR), copy from the text alone (lookup=3, --lookup 3), or decode without "
            "drafting (draft='off', --draft off)"
        )
    rule = DraftConfig(exit_layer=1) if deployed is None else deployed
    if given.get("exit_layer", rule.exit_layer) != rule.exit_layer and not off:
        raise ValueError(
            f"exit_layer: the adapter was trained for {rule.exit_layer}, got {given['exit_layer']}"
        )
    if given.get("draft") == "tree":
        rule = replace(rule, confidence=TREE_CONFIDENCE)
    if "tree_widths" in given:  # whose shape is always the same, unless told otherwise
        rule = replace(rule, adaptive=False)
    rule = replace(rule, **given)
    if rule.costs and not rule.adaptive:
        raise ValueError("costs: have no effect on drafting that is not adaptive; leave them out")
    if rule.exit_layer >= max(num_layers, 2):
        raise ValueError(f"exit_layer: expected 1 to {num_layers - 1}, got {rule.exit_layer}")
    return rule


def check_numbers(given: Mapping[str, Any]) -> None:
    """Refuse what is no number where one belongs.

    Raises:
        ValueError: names the option.
    """
    reals, several = ("confidence", "costs"), ("tree_widths", "costs")
    for name in given.keys() - {"draft", "adaptive"}:
        kind, value = Real if name in reals else Integral, given[name]
        each = (value,) if name not in several else value
        if not isinstance(each, tuple) or not all(
            isinstance(x, kind) and not isinstance(x, bool) for x in each
        ):
            wanted = "a number" if kind is Real else "an integer"
            listed = "a list, each " if name in several else ""
            raise ValueError(f"{name}: expected {listed}{wanted}, got {value!r}")


def refuse_idle(given: Mapping[str, Any]) -> None:
    """Refuse options that have no effect beside the others.

    Raises:
        ValueError: there is one.
    """
    kind = given.get("draft", "chain")
    idle = {
        "off": ("max_depth", "confidence", "adaptive", "costs", *OF_TREES, *OF_COPIES),
        "chain": OF_TREES,
    }.get(kind, ())
    for name in idle:
        if name in given:
            raise ValueError(f"{name}: has no effect on draft={kind!r}; leave it out")
    if given.get("lookup") and given.get("max_depth") == 0:
        raise ValueError("lookup: has no effect on max_depth=0; leave one of them out")
    if "lookup_depth" in given and not given.get("lookup"):
        raise ValueError("lookup_depth: has no effect without lookup; leave it out")
    for name in OF_DYNAMIC_TREES if given.get("tree_widths") else ():
        if name in given:
            raise ValueError(f"{name}: has no effect beside tree_widths; leave one of them out")


def plain_drafter(model: Llama, adapter: DraftModule | None, draft: DraftConfig) -> Drafter:
    """Who drafts with `adapter`, token by token.

    Raises:
        ValueError: Medusa or EAGLE is to draft trees, or deeper than it has heads.
    """
    if isinstance(adapter, Medusa):
        return MedusaDrafter(model, draft, adapter)
    if isinstance(adapter, Eagle):
        return EagleDrafter(model, draft, adapter)
    return KangarooDrafter(model, adapter, draft)


def drafter_of(
    model: Llama,
    adapter: DraftModule | None,
    draft: DraftConfig,
    head: DraftHead,
    *,
    sampled: bool,
    coupled: bool,
) -> Drafter:
    """Who drafts by `draft`.

    Args:
        head: what Kangaroo's drafts are taken from.
        sampled: some sequences are sampled; coupled: by the same numbers as the drafter's.

    Raises:
        ValueError: as :func:`plain_drafter`; or Medusa or EAGLE is to draft where nothing can be
            copied.
    """
    if isinstance(adapter, Medusa | Eagle):
        if draft.lookup:
            kind = adapter.config.kind
            raise ValueError(f"lookup: expected Kangaroo's adapter or none beside it, got {kind!r}")
        return plain_drafter(model, adapter if draft.depth else None, draft)
    return kangaroo_drafter(model, adapter, draft, head, sampled=sampled, coupled=coupled)


def kangaroo_drafter(
    model: Llama,
    adapter: Adapter | None,
    draft: DraftConfig,
    head: DraftHead,
    *,
    sampled: bool,
    coupled: bool,
) -> KangarooDrafter | CopyingDrafter:
    """Who drafts by `draft` with Kangaroo's adapter; see :func:`drafter_of`."""
    drafter = _own_drafter(model, adapter, draft, head, sampled=sampled, coupled=coupled)
    return CopyingDrafter(drafter) if draft.lookup else drafter


def _own_drafter(
    model: Llama,
    adapter: Adapter | None,
    draft: DraftConfig,
    head: DraftHead,
    *,
    sampled: bool,
    coupled: bool,
) -> KangarooDrafter:
    if not draft.depth:  # autoregressive decoding must not pay for an adapter that it does not use
        return KangarooDrafter(model, None, draft)
    if draft.draft == "tree" and sampled and coupled:
        return SampledBranchingDrafter(model, adapter, draft, head=head)
    if draft.draft == "tree":
        # Its tokens are chosen, not drawn: lossless by rejection too, see `sampling.accept`.
        return BranchingDrafter(model, adapter, draft, head=head)
    return (SampledDrafter if sampled else chain_drafter)(model, adapter, draft, head=head)
