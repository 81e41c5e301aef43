"""Whole continuations raced: our loop by its ways of drafting, and peers, on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from benchmarks.bars import Bar
from benchmarks.racing import Decode, Field, Terms, pooled, race, result, show
from benchmarks.serving_peers import SERVERS, served
from benchmarks.subjects import Subject
from benchmarks.traffic import Counter
from benchmarks.transformers_peer import Transformers, shared, shared_draft
from kangaroo.engine.stats import Speculation
from kangaroo.evals.paired import run_once
from kangaroo_kernels import Backend, KernelSet, Target
from kangaroo_kernels.kernel_set import LIBRARY_OPS

AR, CHAIN, TREE = "autoregressive", "chain", "tree"
COPIES = {way: f"lookup, {way}" for way in (CHAIN, TREE)}
SAMPLED, SAMPLED_CHAIN = "sampled", "sampled chain"
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 0.95, "seed": 0}
# Our own, and what each is held to.
BASES = dict.fromkeys((AR, CHAIN, TREE, *COPIES.values()), AR) | dict.fromkeys(
    (SAMPLED, SAMPLED_CHAIN), SAMPLED
)
LIBRARY = "library"
EAGER, STATIC, ASSISTED = "transformers", "transformers static", "transformers assisted"
PEERS = (LIBRARY, EAGER, STATIC, ASSISTED, *SERVERS)
LEFT_OUT = "left out"


@dataclass(frozen=True)
class Drafting:
    """How our own contestants draft: options of `generate`."""

    chain: Mapping[str, Any]
    tree: Mapping[str, Any]


def enter_ours(entered: Field, subject: Subject, drafting: Drafting, terms: Terms) -> None:
    """Autoregressive decoding, chains and trees, alone and behind copies of what the text repeats;
    sampled too.
    """
    llm = subject.llm
    ways = {AR: {"draft": "off"}, CHAIN: {"draft": "chain", "adaptive": False, **drafting.chain}}
    ways[TREE] = {"draft": "tree", "adaptive": False, **drafting.tree}
    ways |= {name: ways[way] | {"lookup": 3} for way, name in COPIES.items()}
    ways |= {SAMPLED: ways[AR] | SAMPLING, SAMPLED_CHAIN: ways[CHAIN] | SAMPLING}
    for name, options in ways.items():
        entered.contestants[name] = partial(
            run_once, llm, max_new_tokens=terms.new_tokens, **options
        )


def library(subject: Subject, terms: Terms) -> Decode:
    """Our loop without drafting on PyTorch's libraries, wherever an op has them.

    Raises:
        UnsupportedError: one of them cannot run here.
    """
    norm = subject.model.weights.norm
    target = Target(norm.device, norm.dtype, subject.model.config.head_dim)
    kernels = KernelSet.resolve(target, "auto", **dict.fromkeys(LIBRARY_OPS, Backend.LIBRARY))
    llm = subject.served_by(kernels).llm
    return partial(run_once, llm, max_new_tokens=terms.new_tokens, draft="off")


def makers(subject: Subject, terms: Terms) -> dict[str, Callable[[], Mapping[str, Decode]]]:
    """By peer: what makes its options, as late as it is needed."""
    new_tokens = terms.new_tokens

    def static() -> Mapping[str, Decode]:
        return {m: Transformers(shared(subject), new_tokens, m) for m in terms.compile_modes}

    def assisted() -> Mapping[str, Decode]:
        draft = shared_draft(subject)
        return {"ours": Transformers(shared(subject), new_tokens, assistant=draft)}

    made: dict[str, Callable[[], Mapping[str, Decode]]] = {
        LIBRARY: lambda: {LIBRARY: library(subject, terms)},
        EAGER: lambda: {"eager": Transformers(shared(subject), new_tokens)},
        STATIC: static,
        ASSISTED: assisted,
    }
    for name in SERVERS:
        made[name] = lambda name=name: {name: served(name, subject, terms)}
    return made


def enter_peers(entered: Field, subject: Subject, wanted: Sequence[str], terms: Terms) -> None:
    """Those that are `wanted`; `missing` has the words of those that cannot."""
    for name, make in makers(subject, terms).items():
        if name not in wanted:
            entered.missing[name] = LEFT_OUT
            continue
        try:
            options = make()
        except Exception as error:  # others' code may fail as it likes
            entered.missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        if options:
            entered.enter(name, options, terms)
        else:
            entered.missing[name] = LEFT_OUT


def allowed(subject: Subject, context: int, told: Speculation) -> float:
    """The speed-up that bytes and what chains had accepted allow: a token's bytes without drafting
    over those with it, behind `context` tokens.
    """
    config, adapter = subject.model.config, subject.adapter.config
    count = Counter(config, adapter, subject.model.weights.norm.itemsize)
    lengths, rounds = [context], enumerate(told.drafted_lens)
    moved = sum(times * count.round(lengths, depth).num_bytes for depth, times in rounds)
    return told.num_tokens * count.ar_step(lengths).num_bytes / moved


def run_race(
    subject: Subject, drafting: Drafting, wanted: Sequence[str], terms: Terms
) -> tuple[list[dict[str, Any]], dict[str, str], Bar]:
    """Rows of the table and who is missing and why, printed; and what drafting has to keep."""
    entered = Field()
    enter_ours(entered, subject, drafting, terms)
    enter_peers(entered, subject, wanted, terms)
    runs = race(entered.contestants, terms.prompts, terms.repeats)
    rows = [result(name, taken, runs[BASES.get(name, AR)]) for name, taken in runs.items()]
    middle = round(median(map(len, terms.prompts.values()))) + terms.new_tokens // 2
    chains = pooled([taken[0] for taken in runs[CHAIN]])
    for row in rows:
        row["option"] = entered.chosen.get(row["name"])
        if row["name"] == CHAIN:
            row["allowed_speedup"] = round(allowed(subject, middle, chains), 4)
    show(rows)
    for name, why in entered.missing.items():
        print(f"{name}: absent: {why}")
    wrong = sum(
        run.token_ids != base[0].token_ids
        for name, plain in BASES.items()
        for taken, base in zip(runs[name], runs[plain], strict=True)
        for run in taken
    )
    bar = Bar("our runs with other ids than autoregressive decoding's", wrong, 0, at_least=False)
    return rows, entered.missing, bar
