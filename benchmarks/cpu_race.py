"""Decoding raced on a CPU: our backends, Kangaroo with each adapter, llama.cpp and transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import llama_cpp_peer
from benchmarks.bars import Bar
from benchmarks.llama_cpp_peer import ALL_OPTIONS, EXACT, LlamaCpp, Model, Options, write_gguf
from benchmarks.racing import (
    Decode,
    Field,
    Prompts,
    Terms,
    race,
    result,
    show,
    speedup,
    tune,
)
from benchmarks.transformers_peer import Transformers, load
from kangaroo import KangarooForCausalLM
from kangaroo.evals.bits import plain
from kangaroo.evals.paired import run_once
from kangaroo.models.llama import Llama

NATIVE, REFERENCE, EAGER = "native", "reference", "transformers"
LLAMA_CPP, COMPILED = "llama.cpp", "transformers compiled"
COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")
OVER_REFERENCE, OVER_NATIVE = 2.5, 1.6
LOOKUP, COPYING = "lookup", {"lookup": 3, "adaptive": False}
GGUF_TOLERANCE = 1e-3  # of a logit: the same weights, summed in another order


def autoregressive(llm: KangarooForCausalLM, new_tokens: int) -> Decode:
    return lambda ids: run_once(llm, ids, max_new_tokens=new_tokens, max_depth=0)


def enter_kangaroo(
    entered: Field, llms: Mapping[str, KangarooForCausalLM], terms: Terms
) -> dict[str, Any]:
    """Each adapter by its fastest rule, or the deployed one; the same behind copies of what the
    text repeats; and copies alone. The rules for JSON.
    """
    rules = tune(llms, terms.tuning, terms.new_tokens) if terms.tuning else {}

    def decode_with(llm: KangarooForCausalLM, options: Mapping[str, Any]) -> Decode:
        return lambda ids: run_once(llm, ids, max_new_tokens=terms.new_tokens, **options)

    for kind, llm in llms.items():
        options: dict[str, Any] = {"adaptive": False}
        if kind in rules:
            best = rules[kind][0]
            options |= {"max_depth": best.max_depth, "confidence": best.confidence}
        entered.contestants[kind] = decode_with(llm, options)
        entered.contestants[f"{LOOKUP}, {kind}"] = decode_with(llm, options | COPYING)
    some = next(iter(llms.values()))
    bare = KangarooForCausalLM(some.model, None, some.path, some.generation_config)
    entered.contestants[LOOKUP] = decode_with(bare, COPYING)
    return {kind: [vars(rule) for rule in found] for kind, found in rules.items()}


def enter_transformers(entered: Field, path: Path, terms: Terms) -> None:
    """Eager, and compiled where that was asked for; a model for each, for they share no code."""
    entered.enter(EAGER, {"eager": Transformers(load(path), terms.new_tokens)}, terms)
    compiled = {
        mode: Transformers(load(path), terms.new_tokens, mode) for mode in terms.compile_modes
    }
    if compiled:
        entered.enter(COMPILED, compiled, terms)
    else:
        entered.missing[COMPILED] = "left out"


def llama_cpp_peers(
    hf_model: Any, threads: int, num_slots: int
) -> tuple[Model, dict[Options, LlamaCpp]]:
    """A transformers model as llama.cpp runs it, by all options."""
    with TemporaryDirectory() as folder:
        write_gguf(hf_model, Path(folder) / "model.gguf")
        model = Model(Path(folder) / "model.gguf")
    return model, {options: LlamaCpp(model, options, threads, num_slots) for options in ALL_OPTIONS}


def enter_llama_cpp(entered: Field, llm: KangarooForCausalLM, terms: Terms) -> dict[str, Any]:
    """llama.cpp with its fastest options; for JSON its version and how far its logits are from
    transformers' on one prompt.
    """
    if absent := llama_cpp_peer.absent():
        entered.missing[LLAMA_CPP] = f"not installed: {', '.join(absent)}"
        return {}
    hf_model, eos = load(llm.path), llm.generation_config.eos_token_id
    eos_ids = frozenset([eos] if isinstance(eos, int) else eos or ())
    num_slots = max(map(len, [*terms.prompts.values(), *terms.trial.values()])) + terms.new_tokens
    try:
        model, peers = llama_cpp_peers(hf_model, terms.threads, num_slots)
    except Exception as error:  # others' code may fail as it likes
        entered.missing[LLAMA_CPP] = f"{type(error).__name__}: {error}".splitlines()[0]
        return {}

    def decode_with(peer: LlamaCpp) -> Decode:
        return lambda ids: peer.generate(ids, terms.new_tokens, eos_ids)

    prompt = next(iter(terms.prompts.values()))
    with torch.inference_mode():
        expected = hf_model(torch.tensor([prompt])).logits[0, -1]
    differences = {
        str(options): (peer.logits(prompt) - expected).abs().max().item()
        for options, peer in peers.items()
    }
    entered.enter(LLAMA_CPP, {str(o): decode_with(peer) for o, peer in peers.items()}, terms)
    return model.about() | {
        "logit_differences": differences,
        "gguf_difference": differences[str(EXACT)],
    }


def divergences(
    model: Llama, prompts: Prompts, ours: Sequence[list[int]], theirs: Sequence[list[int]]
) -> list[dict[str, Any]]:
    """Where ids part: the prompt, the place, and by how much our logit of our token leads."""
    found = []
    for (name, prompt), a, b in zip(prompts.items(), ours, theirs, strict=True):
        place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if place is not None:
            row = plain(model, prompt, place + 1).logits[place]
            lead = (row[a[place]] - row[b[place]]).item()
            found.append({"prompt": name, "token": place, "logit_margin": round(lead, 6)})
    return found


def bars(
    entered: Field, runs: Mapping[str, Any], kinds: Sequence[str], gguf: Mapping[str, Any]
) -> list[Bar]:
    """What the race has to show."""
    native = runs[NATIVE]

    def over(name: str, limit: float) -> Bar:
        if name in runs:
            note = entered.chosen.get(name, "")
            return Bar(f"native AR over {name}", speedup(native, runs[name]), limit, note=note)
        return Bar(f"native AR over {name}", None, limit, note=entered.missing[name])

    best = max(kinds, key=lambda kind: speedup(runs[kind], native))
    wrong = sum(
        run.token_ids != base[0].token_ids
        for kind in (*kinds, LOOKUP, *(f"{LOOKUP}, {kind}" for kind in kinds))
        for taken, base in zip(runs[kind], native, strict=True)
        for run in taken
    )
    checks = [
        over(REFERENCE, OVER_REFERENCE),
        over(LLAMA_CPP, 1.0),
        over(COMPILED, 1.0),
        Bar(f"Kangaroo ({best}) over native AR", speedup(runs[best], native), OVER_NATIVE),
        Bar("Kangaroo's runs with other ids than native AR", wrong, 0, at_least=False),
    ]
    if gguf:
        difference = gguf["gguf_difference"]
        checks.append(Bar("logits of the GGUF", difference, GGUF_TOLERANCE, at_least=False))
    return checks


def decode_bars(
    llms: Mapping[str, KangarooForCausalLM], reference: KangarooForCausalLM, terms: Terms
) -> tuple[list[Bar], dict[str, Any]]:
    """Choose options and rules, race, print; the bars, and everything for JSON.

    Args:
        llms: by adapter kind, on the native backend.
    """
    some, entered = next(iter(llms.values())), Field()
    entered.contestants[NATIVE] = autoregressive(some, terms.new_tokens)
    entered.contestants[REFERENCE] = autoregressive(reference, terms.new_tokens)
    gguf = enter_llama_cpp(entered, some, terms)
    enter_transformers(entered, some.path, terms)
    rules = enter_kangaroo(entered, llms, terms)
    runs = race(entered.contestants, terms.prompts, terms.repeats)
    rows = [result(name, taken, runs[NATIVE]) for name, taken in runs.items()]
    show(rows)
    ids = {name: [taken[0].token_ids for taken in own] for name, own in runs.items()}
    for row in rows:
        row["divergences"] = divergences(some.model, terms.prompts, ids[NATIVE], ids[row["name"]])
        if row["divergences"]:
            print(f"{row['name']}: first divergence {row['divergences'][0]}")
    for name, why in entered.missing.items():
        print(f"{name}: {why}")
    record = {"trials": entered.trials, "chosen": entered.chosen, "llama_cpp": gguf}
    record |= {
        "missing": entered.missing,
        "rules": rules,
        "prompts": list(terms.prompts),
        "results": rows,
    }
    return bars(entered, runs, list(llms), gguf), record
